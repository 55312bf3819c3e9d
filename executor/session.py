"""One stream of frames between two of our processes, the same on both of its ends."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from executor.channel import Channel, ChannelClosed
from executor.data_lane import LaneListener
from executor.shared_memory import Block, CannotShare, MappedSegment, SharedPool
from proto.exchange_pb2 import Attached, Header, Refusal, Segment, Shared
from proto.frames import CHUNK_BYTES, Frame, FrameError

MAX_QUEUED_BYTES = 1 << 30  # a peer that lets more than this pile up is cut off
RELEASE_S = 0.005  # that a payload's release may wait for a frame to travel with
MAX_SEGMENTS = 3  # of the other side that are kept open: the present one, and those whose payloads are on their way

logger = logging.getLogger(__name__)


class SessionClosed(ConnectionError):
    """The stream ended, by the other side's will or by a fault."""


class _Made(NamedTuple):
    """A frame that is made when its turn comes: see Channel.write."""

    header: Header
    payload: bytes | memoryview
    beside: bool = False
    overtakes: bool = False


_Queued = Frame | _Made


class Session:
    """Sends frames in order without waiting, receives them one by one.

    Blocks travel in shared memory if a pool was offered and the other side could open it; they and tensors go over the
    lane beside the stream, where there is one.

    Attributes:
        peer: who is at the other end, for logs and for the lease book.
        closed: nothing more will be sent.
        channel: what frames go over.
    """

    def __init__(self, stream: Any, peer: str, lane_host: str = "") -> None:
        """
        Args:
            stream: grpc.aio's ServicerContext or StreamStreamCall.
            peer: name of the other end.
            lane_host: where the other end may open lanes; empty: none are wanted.
        """
        self.peer = peer
        self.closed = False
        self._stream = stream
        self.channel = Channel(stream, peer, lane_host)
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Queued] = deque()
        self._queued_bytes = 0
        self._source: Callable[[], Frame | None] | None = None
        self._filled = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._last = False
        self._writer = asyncio.create_task(self._write())
        # Shared memory: this side's,
        self._pool: SharedPool | None = None
        self._reciprocal: SharedPool | None = None
        self._announced = 0
        self._readable = 0
        self._answered = asyncio.Event()
        self._refused = ""
        self._blocks: dict[int, Block] = {}
        self._payloads = 0
        # and the other side's.
        self._mapped: dict[int, MappedSegment] = {}
        self._released: deque[int] = deque()
        self._releasing = False

    # --- sending ----------------------------------------------------------------------------------------------------

    def offer_lane(self, listener: LaneListener) -> None:
        """Lets the other end open a lane."""
        self.send(self.channel.offer_lane(listener))

    def send(
        self, header: Header, payload: bytes | memoryview = b"", beside: bool = False, overtakes: bool = False
    ) -> None:
        """Queues one frame, which says along the way what has been released.

        Args:
            beside: it has to do with tensors, and goes over the lane if there is one.
            overtakes: it may arrive before tensors that were sent before it.
        """
        if len(payload) > CHUNK_BYTES:
            raise ValueError(f"payload of {len(payload)} bytes exceeds the chunk size {CHUNK_BYTES}")
        header.released.extend(self._released.popleft() for _ in range(len(self._released)))
        self._enqueue(_Made(header, payload, beside, overtakes), len(payload))

    def send_when_free(self, source: Callable[[], Frame | None]) -> None:
        """Asks `source` for a frame with tensors whenever nothing is queued, until it has none; the last one given."""
        if not self.closed:
            self._source = source
            self._empty.clear()
            self._filled.set()

    def send_frames(self, frames: Iterable[Frame]) -> None:
        """Queues frames with tensors; once the stream broke they are dropped: the receiver learns of that by itself."""
        for frame in frames:
            self._enqueue(frame, len(frame.payload))

    def send_tensor(self, header: Header, payload: memoryview) -> None:
        """Queues a frame of at most CHUNK_BYTES that is made when its turn comes: see `flushed`."""
        self._enqueue(_Made(header, payload, beside=True), len(payload))

    def send_block(self, header: Header, block: Block, begin: int, end: int) -> None:
        """Queues a frame whose payload is bytes [begin, end) of a block; only while `shares`."""
        if self.closed:
            return
        self._payloads += 1
        self._blocks[self._payloads] = block
        block.sent(self)
        header.shared.CopyFrom(
            Shared(segment=self._readable, offset=block.offset + begin, bytes=end - begin, id=self._payloads)
        )
        self.send(header, beside=True)

    def refuse(self, attempt: int, code: Refusal.Code, step: int = 0, reason: str = "") -> None:
        """Says that a frame was not taken."""
        self.send(Header(attempt=attempt, refusal=Refusal(code=code, step=step, reason=reason)))

    async def flushed(self) -> None:
        """Waits until everything queued was handed to the connection, or the stream broke: memory may be reused."""
        await self._empty.wait()

    def _enqueue(self, item: _Queued, size: int) -> None:
        if self.closed:
            return
        self._queued_bytes += size
        self._queue.append(item)
        self._empty.clear()
        self._filled.set()
        if self._queued_bytes > MAX_QUEUED_BYTES:
            self.abort()

    async def _write(self) -> None:
        try:
            while True:
                item = self._next()
                if item is None:
                    self._empty.set()
                    if self._last:
                        return
                    self._filled.clear()
                    await self._filled.wait()
                elif isinstance(item, Frame):
                    await self.channel.write_frame(item)
                else:
                    await self.channel.write(*item)
        except ChannelClosed:
            self.closed = True  # the reading side sees the same fault and tells
        finally:
            self._empty.set()

    def _next(self) -> _Queued | None:
        if self._queue:
            item = self._queue.popleft()
            self._queued_bytes -= len(item.payload)
            return item
        frame = self._source() if self._source is not None else None
        if frame is None:
            self._source = None
        return frame

    # --- shared memory ----------------------------------------------------------------------------------------------

    def offer(self, pool: SharedPool) -> None:
        """Lets payloads of this side travel in the pool's memory, if the other side can open it."""
        self._pool = pool
        self._announce()

    def reciprocate(self, pool: SharedPool) -> None:
        """Offers the pool once the other side's memory could be opened here, which so proves to be the same host."""
        self._reciprocal = pool
        if self._mapped and self._pool is None:
            self.offer(pool)

    def shares(self, block: Block | None = None) -> bool:
        """Whether payloads may travel in the pool's memory; with a block, whether it may."""
        if self._pool is None or self.closed:
            return False
        self._announce()
        return bool(self._readable) and self._readable == (
            self._announced if block is None else block.segment.announcement.number
        )

    async def sharing_known(self, timeout_s: float) -> str:
        """Waits for the other side's answer to `offer`; why it cannot share memory, or empty.

        Raises:
            SessionClosed: there was none within `timeout_s`.
        """
        try:
            await asyncio.wait_for(self._answered.wait(), timeout_s)
        except TimeoutError:
            raise SessionClosed(f"no answer from {self.peer} within {timeout_s:g} s") from None
        return self._refused

    def _announce(self) -> None:
        """Tells of the pool's present segment, once."""
        if self._pool is None or self._refused:
            return
        announcement = self._pool.announcement
        if announcement is None:
            self._refused = "this process got no memory to share"
            self._answered.set()
        elif announcement.number != self._announced:
            self._announced = announcement.number
            self.send(Header(segment=announcement))

    def _attach(self, announcement: Segment) -> None:
        answer = Attached(number=announcement.number, readable=True)
        try:
            if self._pool is None and self._reciprocal is None:
                raise CannotShare("it was told to use TCP")
            self._mapped[announcement.number] = MappedSegment(announcement)
        except CannotShare as error:
            answer = Attached(number=announcement.number, readable=False, reason=str(error))
        for number in sorted(self._mapped)[:-MAX_SEGMENTS]:
            del self._mapped[number]
        self.send(Header(attached=answer))
        if answer.readable and self._pool is None and self._reciprocal is not None:
            self.offer(self._reciprocal)

    def _was_attached(self, answer: Attached) -> None:
        if answer.readable:
            self._readable = answer.number
        elif answer.number == self._announced:
            self._refused = answer.reason or "it refused"
            logger.info("%s cannot read this process's memory: %s", self.peer, self._refused)
        self._answered.set()

    def _shared_payload(self, shared: Shared) -> memoryview:
        segment = self._mapped.get(shared.segment)
        if segment is None:
            raise FrameError(f"a payload in segment {shared.segment}, which is not known")
        try:
            return segment.payload(shared, self._gone)
        except ValueError as error:
            raise FrameError(str(error)) from None

    def _gone(self, number: int) -> None:
        """A payload is not read any more. Called in any thread, whenever its last view goes."""
        self._released.append(number)
        if not self._releasing and not self.closed:
            self._releasing = True
            with suppress(RuntimeError):  # the loop has ended, and so has all that could be released for
                self._loop.call_soon_threadsafe(self._loop.call_later, RELEASE_S, self._say_released)

    def _say_released(self) -> None:
        """Says it in a frame of its own, if none has left meanwhile."""
        self._releasing = False
        if self._released:
            self.send(Header(), beside=True)

    # --- receiving --------------------------------------------------------------------------------------------------

    async def frames(self) -> AsyncIterator[tuple[Header, memoryview]]:
        """What arrives, until the stream ends. A payload in shared memory is released when the last view of it goes.

        Raises:
            SessionClosed: the connection broke.
            FrameError: the other side does not speak the protocol.
        """
        while True:
            try:
                frame = await self.channel.read()
            except ChannelClosed as error:
                raise SessionClosed(str(error)) from None
            if frame is None or self.closed:
                return
            header, payload = frame
            del frame
            for number in header.released:
                block = self._blocks.pop(number, None)
                if block is None:
                    raise FrameError(f"payload {number} was not sent or is released already")
                block.released(self)
            if header.HasField("shared"):
                payload = self._shared_payload(header.shared)
            match header.WhichOneof("body"):
                case "segment":
                    self._attach(header.segment)
                case "attached":
                    self._was_attached(header.attached)
                case "lane":
                    self.channel.lane_offered(header.lane)
                case None if header.released:
                    pass
                case _:
                    yield header, payload
            del header, payload  # or the last payload would stay in use until the next frame comes

    # --- the end ----------------------------------------------------------------------------------------------------

    async def drain(self, timeout_s: float) -> None:
        """Waits until what is queued has been handed to the connection, for `timeout_s` at the most."""
        if not self.closed:
            self._last = True
            self._filled.set()
            await asyncio.wait([self._writer], timeout=timeout_s)
        await self.close()

    def stop_writer(self) -> None:
        """Sends nothing more."""
        self.closed = True
        self._writer.cancel()
        self.channel.close()
        if self._pool is not None:
            self._pool.reader_left(self)
        self._mapped.clear()
        self._queue.clear()
        self._source = None

    def abort(self) -> None:
        """Ends the stream now."""
        self.stop_writer()
        cancel = getattr(self._stream, "cancel", None)
        if cancel is not None:
            cancel()

    async def close(self) -> None:
        """Ends the stream and waits for its writer."""
        self.abort()
        await asyncio.gather(self._writer, return_exceptions=True)
