"""Lanes: how their bytes are cut into frames, and that they keep the one order of what was written."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.connection import Connection
from executor.data_lane import FrameCutter, LaneListener, prefix
from executor.session import Session, SessionClosed
from proto.exchange_pb2 import Grant, Header, Want
from proto.frames import CHUNK_BYTES, EXCHANGE_METHOD, MAX_HEADER_BYTES, Frame, FrameError, frame
from tests.executor.harness import free_port

TIMEOUT_S = 30.0


def bytes_of(after: int, made: Frame) -> bytes:
    return prefix(after, made) + made.head + bytes(made.payload)


def fed(cutter: FrameCutter, data: bytes, sizes: Any) -> list[Any]:
    """Feeds bytes as a socket would, at most so many at a time, and never more than the cutter has room for."""
    found, position = [], 0
    while position < len(data):
        room = cutter.buffer()
        count = min(len(room), next(sizes), len(data) - position)
        room[:count] = data[position : position + count]
        position += count
        found += cutter.received(count)
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 7, 16_384, 70_000, CHUNK_BYTES]))),
    st.integers(0, 2**32),
)
def test_frames_come_out_as_they_went_in(frames: list[tuple[int, int]], seed: int) -> None:
    draw = random.Random(seed)
    made = [
        (after, frame(Header(attempt=k, want=Want(version=size)), draw.randbytes(size)))
        for k, (after, size) in enumerate(frames)
    ]
    sizes = iter(lambda: draw.choice([1, 3, 24, 100, 5000, 1 << 20]), None)
    if sum(size for _, size in frames) > 200_000:
        sizes = iter(lambda: draw.choice([5000, 1 << 20]), None)
    found = fed(FrameCutter(), b"".join(bytes_of(*each) for each in made), sizes)
    assert [(f.after, f.header.attempt, bytes(f.payload)) for f in found] == [
        (after, k, bytes(each.payload)) for k, (after, each) in enumerate(made)
    ]
    assert all(not f.payload.readonly for f in found if f.payload)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_byte_is_found(payload: bytes, place: int, change: int) -> None:
    data = bytearray(bytes_of(5, frame(Header(attempt=1, want=Want(version=2)), payload)))
    data[place % len(data)] ^= change
    with pytest.raises(FrameError):
        fed(FrameCutter(), bytes(data), iter(lambda: 64, None))


def test_lengths_that_nobody_sends_are_refused_before_memory_is_taken() -> None:
    for head, size in ((bytes(MAX_HEADER_BYTES + 1), b""), (b"", bytes(CHUNK_BYTES + 1))):
        with pytest.raises(FrameError, match="of payload"):
            fed(FrameCutter(), prefix(0, Frame(head, size, 0)), iter(lambda: 64, None))


class Pair:
    """Two sessions joined by a real gRPC stream; the server offers lanes on `lanes_port`."""

    def __init__(self) -> None:
        self.server: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
        self.over = asyncio.Event()
        self.received: list[int] = []
        self.news = asyncio.Event()


@asynccontextmanager
async def joined(lanes_port: int, offer: bool = True) -> AsyncIterator[tuple[Session, Session, LaneListener]]:
    """A client's and a server's session."""
    pair = Pair()

    async def serve(_: Any, context: Any) -> None:
        pair.server.set_result(Session(context, "client"))
        await pair.over.wait()

    server = grpc.aio.server()
    service, method = EXCHANGE_METHOD.strip("/").split("/")
    handler = grpc.stream_stream_rpc_method_handler(serve)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    listener = LaneListener(f"127.0.0.1:{lanes_port}")
    try:
        async with Connection(f"127.0.0.1:{port}", "secret", "server") as client:
            client.send(Header(attempt=1))
            theirs = await pair.server
            await listener.start()
            if offer:
                theirs.offer_lane(listener)
            yield client, theirs, listener
            await theirs.close()
            pair.over.set()
    finally:
        listener.close()
        await server.stop(None)


def send_mixed(session: Session, numbers: range, draw: random.Random) -> None:
    """Frames of all kinds, numbered."""
    for number in numbers:
        header = Header(attempt=number, want=Want(version=number))
        match draw.randrange(4):
            case 0:
                session.send(header)
            case 1:
                session.send(header, beside=True)
            case 2:
                session.send_tensor(header, memoryview(bytes(draw.randrange(1, CHUNK_BYTES))))
            case _:
                session.send_frames([frame(header, bytes(draw.randrange(1, 1000)))])


async def numbers_of(session: Session, count: int, to: list[int]) -> None:
    async for header, _ in session.frames():
        if header.HasField("want"):
            to.append(header.attempt)
            if len(to) == count:
                return


@pytest.mark.parametrize("offered", ["at once", "in the middle", "never"])
def test_one_order_over_both_ways(offered: str) -> None:
    """Whenever the lane comes into being, and in both directions."""

    async def run() -> None:
        draw = random.Random(7)
        async with joined(free_port(), offered == "at once") as (client, server, listener):
            up: list[int] = []
            down: list[int] = []
            reading = asyncio.gather(numbers_of(server, 300, up), numbers_of(client, 300, down))
            for begin in range(0, 300, 20):
                send_mixed(client, range(begin, begin + 20), draw)
                send_mixed(server, range(begin, begin + 20), draw)
                if begin == 140 and offered == "in the middle":
                    server.offer_lane(listener)
                await asyncio.gather(client.flushed(), server.flushed())
            await reading
            assert up == down == list(range(300))
            lanes = [s.channel.lane is not None for s in (client, server)]
            assert lanes == [offered != "never"] * 2

    asyncio.run(asyncio.wait_for(run(), TIMEOUT_S))


def test_without_a_way_to_the_port_all_goes_over_the_stream() -> None:
    """As behind a firewall."""

    async def run() -> None:
        port = free_port()
        async with joined(port) as (client, server, listener):
            listener.close()
            up: list[int] = []
            reading = asyncio.create_task(numbers_of(server, 100, up))
            opened = asyncio.create_task(numbers_of(client, 1, []))  # which reads the offer
            send_mixed(client, range(100), random.Random(1))
            await reading
            opened.cancel()
            assert up == list(range(100))
            assert client.channel.lane is None

    asyncio.run(asyncio.wait_for(run(), TIMEOUT_S))


def test_a_lost_lane_ends_the_session() -> None:
    async def run() -> None:
        async with joined(free_port()) as (client, server, _):
            down: list[int] = []
            server.send_frames([frame(Header(attempt=1, want=Want(version=1)), b"x")])
            await numbers_of(client, 1, down)
            reading = asyncio.create_task(numbers_of(server, 2, []))
            client.send_frames([frame(Header(attempt=1, want=Want(version=1)), b"x")])
            await client.flushed()
            assert client.channel.lane is not None
            client.channel.lane.close()
            with pytest.raises(SessionClosed, match="broke"):
                await reading

    asyncio.run(asyncio.wait_for(run(), TIMEOUT_S))


def test_strangers_get_no_lane() -> None:
    """Whoever does not know a token is cut off, and nobody else is disturbed."""

    async def run() -> None:
        port = free_port()
        async with joined(port) as (client, server, _):
            loop = asyncio.get_running_loop()
            for sent in (b"GET / HTTP/1.1\r\n\r\n" + bytes(100), bytes_of(0, frame(Header(attempt=1)))):
                with socket.create_connection(("127.0.0.1", port)) as stranger:
                    stranger.setblocking(False)
                    await loop.sock_sendall(stranger, sent)
                    assert await loop.sock_recv(stranger, 1) == b""
            up: list[int] = []
            opened = asyncio.create_task(numbers_of(client, 1, []))
            send_mixed(client, range(50), random.Random(2))
            await numbers_of(server, 50, up)
            opened.cancel()
            assert up == list(range(50))

    asyncio.run(asyncio.wait_for(run(), TIMEOUT_S))


def test_payloads_are_received_where_they_belong_and_only_in_order() -> None:
    """Asked for the first frame that is taken alone, not for one that comes along with another."""
    home = bytearray(100)
    asked = []

    def place(after: int, header: Header, size: int) -> memoryview:
        asked.append((after, header.attempt, size))
        return memoryview(home)[:size]

    data = [bytes_of(3, frame(Header(attempt=k), bytes([k] * 50))) for k in (1, 2)]
    cutter = FrameCutter(place)
    found = fed(cutter, data[0], iter(lambda: 40, None)) + fed(cutter, data[0] + data[1], iter(lambda: 1000, None))
    assert asked == [(3, 1, 50), (3, 1, 50)]
    assert [bytes(each.payload) for each in found] == [bytes([1] * 50), bytes([1] * 50), bytes([2] * 50)]
    assert [each.payload.obj is home for each in found] == [True, True, False]


def test_a_lease_overtakes_parameters() -> None:
    """What is queued goes before what a source still has, and is read although tensors sent before have not come."""

    async def run() -> None:
        async with joined(free_port()) as (client, server, _):
            while server.channel.lane is None:
                server.send_frames([frame(Header(attempt=1, want=Want(version=1)), b"x")])
                await numbers_of(client, 1, [])
            left = 200

            def source() -> Frame | None:
                nonlocal left
                left -= 1
                return frame(Header(attempt=left + 1, want=Want(version=1)), bytes(CHUNK_BYTES)) if left >= 0 else None

            server.send_when_free(source)
            while left > 195:  # nobody reads: it goes on until the connection takes no more
                await asyncio.sleep(0)
            server.send(Header(attempt=1000, grant=Grant(step=1)), overtakes=True)
            order = [header.attempt async for header, _ in until(client, 201)]
            assert order.index(1000) < 100
            assert [number for number in order if number != 1000] == list(range(200, 0, -1))
            await server.flushed()

    asyncio.run(asyncio.wait_for(run(), TIMEOUT_S))


async def until(session: Session, count: int) -> AsyncIterator[tuple[Header, memoryview]]:
    """The first frames that come."""
    async for header, payload in session.frames():
        yield header, payload
        count -= 1
        if not count:
            return
