"""Frames that are not what they should be, from a caller who knows the secret, against a running server.

MESOGRAD_FUZZ_EXAMPLES sets how many; 100,000 take some minutes.
"""

import asyncio
import os
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from executor.data_lane import prefix
from proto import exchange_pb2 as pb
from proto.exchange_pb2 import Header
from proto.frames import CHUNK_BYTES, EXCHANGE_METHOD, SECRET_KEY, Frame, decode, encode, frame
from tests.data_files import write_subset
from tests.executor.harness import ScriptedDriver, training
from tests.executor.test_exchange_refusals import join, ready
from tests.executor.test_training_faults import make_spec

EXAMPLES = int(os.environ.get("MESOGRAD_FUZZ_EXAMPLES", "1500"))
SLICE_BYTES = 4 * 22278  # of LeNet-5, all of it on one server
STREAM_EXAMPLES = 50  # on one stream, unless the server ends it before
GROWTH_MB = 40.0
END_S = 60.0

numbers = st.one_of(st.integers(0, 5), st.integers(0, 2**32 - 1))
long_numbers = st.one_of(numbers, st.integers(0, 2**64 - 1))
steps = st.one_of(st.integers(2, 5), st.integers(2, 2**64 - 1))  # any but the one that the server waits for
payloads = st.one_of(st.just(b""), st.binary(max_size=40), st.just(bytes(SLICE_BYTES)))


def push(step: int, level: int, index: int, offset: int, size: int, want: int, last: bool, lease: bool) -> Header:
    body = pb.Push(
        step=step, level=level, index=index, offset=offset, bytes=size, want=want, last=last, lease=lease
    )  # fmt: skip
    return Header(push=body)


# Well-formed headers with senseless content; a push that would be in its place is not among them.
headers = st.one_of(
    st.builds(push, steps, numbers, numbers, long_numbers, long_numbers, long_numbers, st.booleans(), st.booleans()),
    st.builds(
        push, st.just(1), numbers, numbers, long_numbers, long_numbers.filter(lambda n: n != SLICE_BYTES), numbers,
        st.booleans(), st.booleans(),
    ),
    st.builds(lambda v: Header(want=pb.Want(version=v)), long_numbers),
    st.builds(lambda s, u: Header(commit=pb.Commit(step=s, checkpoint=u)), long_numbers, st.just("")),
    st.builds(lambda s, r: Header(rates=pb.Rates(step=s, rates=r)), long_numbers, st.lists(st.floats(), max_size=3)),
    st.builds(lambda s, t: Header(totals=pb.Totals(step=s, totals=t)), long_numbers, st.lists(st.floats(), max_size=3)),
    st.builds(lambda s, i, n: Header(scores=pb.Scores(step=s, index=i, samples=n)), long_numbers, numbers, numbers),
    st.builds(lambda s: Header(renew=pb.Renew(step=s)), long_numbers),
    st.builds(lambda i, n: Header(restore=pb.Restore(index=i, servers=n)), numbers, numbers),
    st.builds(
        lambda n, b, p, f, s: Header(segment=pb.Segment(number=n, boot_id=b, pid=p, fd=f, bytes=s, nonce=b"n" * 16)),
        numbers, st.sampled_from(["", "x", Path("/proc/sys/kernel/random/boot_id").read_text().strip()]),
        st.sampled_from([0, 1, os.getpid()]), numbers, long_numbers,
    ),
    st.builds(lambda n, r: Header(attached=pb.Attached(number=n, readable=r)), numbers, st.booleans()),
    st.builds(
        lambda n, o, s, i: Header(
            shared=pb.Shared(segment=n, offset=o, bytes=s, id=i), push=pb.Push(step=1, bytes=SLICE_BYTES)
        ),
        numbers, long_numbers, long_numbers, long_numbers,
    ),
    st.builds(lambda p, t: Header(lane=pb.Lane(port=p, token=t)), st.integers(0, 70_000), st.binary(max_size=20)),
    st.builds(lambda ids: Header(released=ids), st.lists(long_numbers, min_size=1, max_size=3)),
    st.builds(lambda t: Header(join=pb.Join(task_id="stranger", micro_batch_s=t)), st.floats(0, 1e300)),
    st.just(Header()),
)  # fmt: skip


@st.composite
def senseless(draw: st.DrawFn) -> bytes:
    """A frame whose checksum is right."""
    header = draw(headers)
    header.attempt = draw(st.sampled_from([1, 1, 1, 0, 2, 2**64 - 1]))
    return encode(header, draw(payloads))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A frame with flipped, cut, added or exchanged bytes."""
    sound = encode(push(1, 0, 0, 0, SLICE_BYTES, 0, True, False), bytes(SLICE_BYTES))
    whole = draw(st.one_of(senseless(), st.just(sound)))
    frame = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, min(len(frame), 80)))
        match draw(st.integers(0, 3)):
            case 0 if position < len(frame):
                frame[position] ^= 1 << draw(st.integers(0, 7))
            case 1:
                del frame[position:]
            case 2:
                frame[position:position] = draw(st.binary(min_size=1, max_size=5))
            case _:
                frame[position : position + 8] = draw(st.binary(min_size=8, max_size=8))
    return bytes(frame) if bytes(frame) != whole else bytes(frame) + b"x"


class Attacker:
    """Sends frames on a stream for as long as the server keeps it, then on the next one."""

    def __init__(self, channel: grpc.aio.Channel, secret: str) -> None:
        self._channel = channel
        self._secret = secret
        self._call: Any = None
        self._sent: list[bytes] = []
        self.streams = 0

    async def send(self, frame: bytes) -> None:
        if self._call is None or len(self._sent) >= STREAM_EXAMPLES or self._call.done():
            await self.end()
            self._call = self._channel.stream_stream(EXCHANGE_METHOD)(metadata=((SECRET_KEY, self._secret),))
            self.streams += 1
            await self._call.write(join())
        self._sent.append(frame)
        try:
            await self._call.write(frame)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self.end()

    async def end(self) -> None:
        """Reads what was answered, until the server ends the stream or nothing more comes."""
        if self._call is None:
            return
        call, self._call, sent, self._sent = self._call, None, self._sent, []
        try:
            await call.done_writing()
            async with asyncio.timeout(END_S):
                while (answer := await call.read()) is not grpc.aio.EOF:
                    decode(answer)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass
        except TimeoutError:
            shown = "\n".join(f"{len(frame)} bytes: {frame[:60].hex()}" for frame in sent)
            raise AssertionError(f"the server did not end a stream within {END_S:g} s after\n{shown}") from None
        call.cancel()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_subset(tmp_path_factory.mktemp("data"), train=640, test=100)


async def weights(folder: Path, directory: Path, attack: Any) -> str:
    """Of a job whose server was attacked before its worker came."""
    async with training(make_spec(folder), directory, workers=0, servers=1) as driver:
        await attack(driver)
        driver.add_worker()
        return str((await driver.until_finished()).weights_sha256)


async def assert_harmless(folder: Path, directory: Path, attack: Any) -> None:
    """The weights are those of a job that nobody attacked."""

    async def nothing(driver: ScriptedDriver) -> None:
        await ready(driver)

    assert await weights(folder, directory / "a", attack) == await weights(folder, directory / "b", nothing)


@pytest.mark.timeout(3600)
def test_whatever_is_sent_changes_nothing(folder: Path, tmp_path: Path) -> None:
    async def attack(driver: ScriptedDriver) -> None:
        address, secret = await ready(driver)
        server = psutil.Process(driver.servers[0].process.pid)
        async with grpc.aio.insecure_channel(address) as channel:
            attacker = Attacker(channel, secret)
            frames: list[bytes] = []

            # hypothesis calls plain functions: it makes the frames, in portions, and the loop here sends them.
            def portion(count: int) -> None:
                @settings(
                    max_examples=count, deadline=None, database=None, phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )  # fmt: skip
                @given(st.one_of(senseless(), damaged()))
                def collect(frame: bytes) -> None:
                    frames.append(frame)

                collect()

            sent, before = 0, None
            while sent < EXAMPLES:
                frames.clear()
                portion(min(500, EXAMPLES - sent + 1))
                for frame in frames:
                    await attacker.send(frame)
                sent += len(frames)
                await attacker.end()
                assert driver.servers[0].process.poll() is None, driver.servers[0].log.read_text()[-2000:]
                if before is None:  # what is needed once, as buffers, is there
                    before = (server.memory_info().rss, server.num_fds(), server.num_threads())
            after = (server.memory_info().rss, server.num_fds(), server.num_threads())
            assert before is not None
            assert after[0] - before[0] < GROWTH_MB * 1e6, (before, after)
            assert after[1] <= before[1] + 4
            assert after[2] <= before[2] + 4
            refused = driver.servers[0].log.read_text().count("WARNING executor.server")
            assert refused > attacker.streams / 4  # each ends its stream
            print(f"{sent} frames, {attacker.streams} streams, {refused} refusals, {before} -> {after}")
        assert not driver.failures

    asyncio.run(assert_harmless(folder, tmp_path, attack))


@st.composite
def damaged_on_a_lane(draw: st.DrawFn) -> bytes:
    """Bytes that are no frame, or one that has no place."""
    header, payload = draw(headers), draw(payloads)
    header.attempt = 1
    sound = frame(header, payload)
    after = draw(st.sampled_from([0, 1, 2**63]))
    whole = bytearray(prefix(after, sound) + sound.head + bytes(sound.payload))
    match draw(st.integers(0, 3)):
        case 0:
            whole[draw(st.integers(0, min(len(whole), 120) - 1))] ^= 1 << draw(st.integers(0, 7))
        case 1:
            return prefix(0, Frame(bytes(draw(st.integers(1 << 17, 1 << 20))), b"", 0)) + bytes(100)
        case 2:
            return prefix(0, Frame(b"", bytes(draw(st.integers(CHUNK_BYTES + 1, 4 * CHUNK_BYTES))), 0)) + bytes(100)
        case _:
            whole[:0] = draw(st.binary(min_size=1, max_size=30))
    return bytes(whole)


def test_whatever_is_sent_on_a_lane_changes_nothing(folder: Path, tmp_path: Path) -> None:
    """By somebody who knows the secret and the token, too: the server ends the lane."""

    async def talk(channel: grpc.aio.Channel, host: str, secret: str, data: bytes) -> None:
        call: Any = channel.stream_stream(EXCHANGE_METHOD)(metadata=((SECRET_KEY, secret),))
        await call.write(join())
        offer = decode(await call.read())[0].lane
        reader, writer = await asyncio.open_connection(host, offer.port)
        token = frame(Header(lane=pb.Lane(token=offer.token)))
        writer.write(prefix(0, token) + token.head + data)
        try:
            writer.write_eof()  # what looks like the begin of a frame gets no end
            assert await reader.read() == b""
        except OSError:
            pass  # it was refused before all of it was sent
        writer.close()
        call.cancel()

    async def attack(driver: ScriptedDriver) -> None:
        address, secret = await ready(driver)
        examples: list[bytes] = []

        @settings(
            max_examples=EXAMPLES // 15, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(damaged_on_a_lane())
        def collect(data: bytes) -> None:
            examples.append(data)

        collect()
        server, before = psutil.Process(driver.servers[0].process.pid), (0, 0)
        async with grpc.aio.insecure_channel(address) as channel:
            for number, data in enumerate(examples):
                async with asyncio.timeout(END_S):
                    await talk(channel, address.rpartition(":")[0], secret, data)
                if number == len(examples) // 2:
                    before = (server.memory_info().rss, server.num_fds())
        after = (server.memory_info().rss, server.num_fds())
        assert after[0] - before[0] < GROWTH_MB * 1e6, (before, after)
        assert after[1] <= before[1] + 4
        assert driver.servers[0].process.poll() is None
        assert not driver.failures

    asyncio.run(assert_harmless(folder, tmp_path, attack))
