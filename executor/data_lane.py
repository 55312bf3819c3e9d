"""The lane: a socket beside a session's gRPC stream, for frames with tensors.

gRPC's Python copies a message several times on the way out and in, and wakes the event loop for every part of it; over
the lane the kernel reads a payload where it lies and writes it where it is used. A server announces a port and a token
over the stream, which has proved to know the job's secret; whoever connects and sends the token has the lane.

A frame on the lane: 32 bytes of prefix (little-endian: how many frames of the sender went over the stream before it, 8
bytes; lengths of header and payload; checksum of both as in proto/frames.py; XXH3 of the prefix so far), header,
payload.
"""

import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from proto import exchange_pb2 as exchange
from proto.exchange_pb2 import Header
from proto.frames import CHUNK_BYTES, MAX_HEADER_BYTES, Frame, FrameError, checksum, frame, parsed, xxh3

TOKEN_BYTES = 16
IDENTIFY_S = 10.0  # in which a connection has to send its token
CONNECT_S = 5.0
STALLED_MS = 30_000  # that sent bytes may stay unacknowledged before the connection counts as broken (tcp(7))
MAX_UNSENT_BYTES = 256 << 10  # that the kernel takes ahead of sending them: nothing more urgent can overtake those
AHEAD_BYTES = 1 << 14  # that are read before it is known where they belong
MAX_WAITING_BYTES = 64 << 20  # of received frames before no more are read

_PREFIX = struct.Struct("<QIIQ")
_CHECK = struct.Struct("<Q")
PREFIX_BYTES = _PREFIX.size + _CHECK.size


Place = Callable[[int, Header, int], memoryview | None]
"""Where the payload of a frame that begins is to be put; None: anywhere. Takes how many frames went over the stream
before it, its header, and the payload's bytes. Not asked while frames before it on the lane are still to be taken."""


class Arrived(NamedTuple):
    """A received frame.

    Attributes:
        after: how many frames of the sender went over the stream before it.
        payload: writable; memory of its own, unless it was given another place.
    """

    after: int
    header: Header
    payload: memoryview


def prefix(after: int, frame: Frame) -> bytes:
    """What goes before a frame's header on the lane."""
    begin = _PREFIX.pack(after, len(frame.head), len(frame.payload), frame.checksum)
    return begin + _CHECK.pack(xxh3(begin))


class FrameCutter:
    """Cuts what arrives into frames. A pure state machine; a payload is received where it stays, but for its begin."""

    def __init__(self, place: Place | None = None) -> None:
        self._place = place
        self._scratch = memoryview(bytearray(PREFIX_BYTES + MAX_HEADER_BYTES + AHEAD_BYTES))
        self._filled = 0  # bytes of the scratch buffer, where frames begin
        self._frame: tuple[int, Header, int] | None = None  # whose payload is being received: after, header, checksum
        self._head = b""
        self._payload = memoryview(b"")
        self._received = 0

    def buffer(self) -> memoryview:
        """Where the next bytes are wanted."""
        if self._frame is not None:
            return self._payload[self._received :]
        return self._scratch[self._filled : self._filled + AHEAD_BYTES]

    def received(self, count: int) -> list[Arrived]:
        """So many bytes were put there; the frames that they complete.

        Raises:
            FrameError: this is no frame.
        """
        if self._frame is not None:
            self._received += count
            return [self._end()] if self._received == len(self._payload) else []
        self._filled += count
        found: list[Arrived] = []
        position = 0
        while self._frame is None and (size := self._begin(position, not found)):
            position += size
            if self._received == len(self._payload):
                found.append(self._end())
        rest = self._filled - position
        if position and rest:
            self._scratch[:rest] = bytes(self._scratch[position : self._filled])
        self._filled = rest
        return found

    def _begin(self, position: int, first_one: bool) -> int:
        """Begins the frame at a position of the scratch buffer; how many bytes of it are there, 0: too few."""
        there = self._filled - position
        if there < PREFIX_BYTES:
            return 0
        begin = bytes(self._scratch[position : position + PREFIX_BYTES])
        after, head_bytes, payload_bytes, told = _PREFIX.unpack_from(begin)
        if _CHECK.unpack_from(begin, _PREFIX.size)[0] != xxh3(begin[: _PREFIX.size]):
            raise FrameError("the checksum of a frame's prefix differs")
        if head_bytes > MAX_HEADER_BYTES or payload_bytes > CHUNK_BYTES:
            raise FrameError(f"a frame with {head_bytes} bytes of header and {payload_bytes} of payload")
        if there < PREFIX_BYTES + head_bytes:
            return 0
        first = position + PREFIX_BYTES
        self._head = bytes(self._scratch[first : first + head_bytes])
        first += head_bytes
        header = parsed(memoryview(self._head))
        asked = self._place is not None and first_one and payload_bytes > 0
        wanted = self._place(after, header, payload_bytes) if asked and self._place is not None else None
        self._payload = np.empty(payload_bytes, dtype=np.uint8).data if wanted is None else wanted
        self._received = min(payload_bytes, self._filled - first)
        self._payload[: self._received] = self._scratch[first : first + self._received]
        self._frame = (after, header, told)
        return PREFIX_BYTES + int(head_bytes) + self._received

    def _end(self) -> Arrived:
        assert self._frame is not None
        (after, header, told), payload = self._frame, self._payload
        if checksum(len(self._head), self._head, payload) != told:
            raise FrameError("the checksum differs")
        self._frame, self._payload = None, memoryview(b"")
        return Arrived(after, header, payload)


class Lane(asyncio.BufferedProtocol):
    """One end of a lane.

    Attributes:
        changed: called whenever a frame has come, or the end.
        fault: what was wrong with what arrived.
        lost: nothing more will come or go.
    """

    def __init__(self, changed: Callable[[], None], place: Place | None = None) -> None:
        """
        Args:
            place: of payloads.
        """
        self.changed = changed
        self.fault: FrameError | None = None
        self.lost = False
        self._cutter = FrameCutter(lambda *frame: place(*frame) if place and not self._waiting else None)
        self._waiting: deque[Arrived] = deque()
        self._waiting_bytes = 0
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None

    # --- receiving --------------------------------------------------------------------------------------------------

    @property
    def first(self) -> Arrived | None:
        """The frame that `take` would give."""
        return self._waiting[0] if self._waiting else None

    def take(self) -> Arrived:
        """The first frame that waits."""
        frame = self._waiting.popleft()
        if self._waiting_bytes > MAX_WAITING_BYTES >= self._waiting_bytes - len(frame.payload) and self._transport:
            self._transport.resume_reading()
        self._waiting_bytes -= len(frame.payload)
        return frame

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio."""
        return self._cutter.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio."""
        try:
            frames = self._cutter.received(nbytes)
        except FrameError as error:
            self.fault = error
            self.close()
            return
        if not frames:
            return
        before = self._waiting_bytes
        self._waiting.extend(frames)
        self._waiting_bytes += sum(len(frame.payload) for frame in frames)
        if before <= MAX_WAITING_BYTES < self._waiting_bytes and self._transport:
            self._transport.pause_reading()
        self.changed()

    # --- sending ----------------------------------------------------------------------------------------------------

    async def send(self, after: int, frame: Frame) -> None:
        """Sends a frame; its payload is read until this returns.

        Raises:
            OSError: the connection broke.
        """
        if self._socket is None:
            raise ConnectionResetError("the lane is closed")
        head = prefix(after, frame) + frame.head
        loop = asyncio.get_running_loop()
        try:
            sent = self._socket.sendmsg((head, frame.payload))
        except BlockingIOError:
            sent = 0
        if sent < len(head):
            await loop.sock_sendall(self._socket, head[sent:])
            sent = len(head)
        rest = memoryview(frame.payload)[sent - len(head) :]
        if rest:
            await loop.sock_sendall(self._socket, rest)

    # --- life -------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        # The transport would copy what it cannot send at once: it only receives, and sending has its own descriptor.
        self._socket = transport.get_extra_info("socket").dup()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_USER_TIMEOUT", STALLED_MS), ("TCP_NOTSENT_LOWAT", MAX_UNSENT_BYTES)):
            if hasattr(socket, name):
                self._socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self.close()

    def close(self) -> None:
        """Ends it."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_writer(self._socket)
            self._socket.close()
            self._socket = None
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        if not self.lost:
            self.lost = True
            self.changed()


class LaneListener:
    """A server's port for lanes."""

    def __init__(self, bind: str) -> None:
        """
        Args:
            bind: host:port.
        """
        host, _, port = bind.rpartition(":")
        self._host, self._port = host, int(port)
        self._server: asyncio.Server | None = None
        self._claims: dict[bytes, Callable[[Lane], None]] = {}

    async def start(self) -> None:
        """Listens. Raises OSError if the port cannot be had."""
        self._server = await asyncio.get_running_loop().create_server(self._accepted, self._host, self._port)

    def close(self) -> None:
        """Accepts nobody any more."""
        if self._server is not None:
            self._server.close()

    def announce(self, claim: Callable[[Lane], None]) -> exchange.Lane:
        """What to tell the other end of a stream; `claim` is called with the lane that it opens."""
        token = os.urandom(TOKEN_BYTES)
        self._claims[token] = claim
        return exchange.Lane(port=self._port, token=token)

    def withdraw(self, announcement: exchange.Lane) -> None:
        """It must not be used any more."""
        self._claims.pop(announcement.token, None)

    def _accepted(self) -> Lane:
        lane = Lane(lambda: self._identify(lane, deadline))
        deadline = asyncio.get_running_loop().call_later(IDENTIFY_S, lane.close)
        return lane

    def _identify(self, lane: Lane, deadline: asyncio.TimerHandle) -> None:
        deadline.cancel()
        if lane.lost:
            return
        claim = self._claims.pop(lane.take().header.lane.token, None)
        if claim is None:
            lane.close()
        else:
            claim(lane)


async def open_lane(
    host: str, announcement: exchange.Lane, changed: Callable[[], None], place: Place | None = None
) -> Lane:
    """Connects to where a server has announced a lane.

    Raises:
        OSError: nobody is there, or not within CONNECT_S.
    """
    loop = asyncio.get_running_loop()
    connecting = loop.create_connection(lambda: Lane(changed, place), host, announcement.port)
    try:
        _, lane = await asyncio.wait_for(connecting, CONNECT_S)
    except TimeoutError:
        raise OSError(f"no connection to port {announcement.port} within {CONNECT_S:g} s") from None
    try:
        await lane.send(0, frame(Header(lane=exchange.Lane(token=announcement.token))))
    except (OSError, asyncio.CancelledError):
        lane.close()
        raise
    return lane
