"""Frames between two processes, in one order, over a gRPC stream and the lane beside it once there is one.

The stream authenticates, finds vanished peers and carries control; the lane carries what is said to go `beside`.
On either way a frame says how many of its sender's frames went the other way before it, so that whatever is written is
read in the order of writing, but for what may overtake tensors.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from executor.data_lane import IDENTIFY_S, Lane, LaneListener, open_lane
from proto import exchange_pb2 as exchange
from proto.exchange_pb2 import Header
from proto.frames import Frame, decode, frame

LAST_WORDS_S = 1.0  # that the stream may go on after its lane ended

logger = logging.getLogger(__name__)

STREAM_FAULTS = (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError)


class ChannelClosed(ConnectionError):
    """It ended by a fault."""


class Channel:
    """See the module. One task may write, one may read.

    Attributes:
        lane: None until there is one.
        place: says where the payload of a frame, of so many bytes, is to be put that comes over a lane opened from
            here; None: anywhere. It is asked in order: all frames before have been read.
    """

    def __init__(self, stream: Any, peer: str, host: str = "") -> None:
        """
        Args:
            stream: grpc.aio's ServicerContext or StreamStreamCall: both have read() and write().
            peer: name of the other end, for logs.
            host: where the other end may open lanes; empty: none are wanted.
        """
        self.lane: Lane | None = None
        self.place: Callable[[Header, int], memoryview | None] | None = None
        self._stream = stream
        self._peer = peer
        self._host = host
        self._opening: asyncio.Task[None] | None = None
        self._offered: tuple[LaneListener, exchange.Lane] | None = None
        self._news = asyncio.Event()
        self._reading: asyncio.Task[Any] | None = None
        self._held: tuple[Header, memoryview] | None = None  # from the stream; frames on the lane come before it
        self._sent = [0, 0]  # frames over the stream, over the lane
        self._taken = [0, 0]

    # --- the lane ---------------------------------------------------------------------------------------------------

    def offer_lane(self, listener: LaneListener) -> Header:
        """What to send to the other end for it to open a lane. For servers; once."""
        announcement = listener.announce(self._opened)
        self._offered = (listener, announcement)
        return Header(lane=announcement)

    def lane_offered(self, announcement: exchange.Lane) -> None:
        """The other end has offered one: opens it, if that goes."""
        if self._host and self._opening is None:
            self._opening = asyncio.create_task(self._open(announcement))

    async def _open(self, announcement: exchange.Lane) -> None:
        try:
            self._opened(await open_lane(self._host, announcement, self._news.set, self._place))
        except OSError as error:
            logger.info("no lane to %s, tensors go over gRPC: %s", self._peer, error)

    def _place(self, after: int, header: Header, size: int) -> memoryview | None:
        return self.place(header, size) if self.place is not None and after <= self._taken[0] else None

    def _opened(self, lane: Lane) -> None:
        lane.changed = self._news.set
        self.lane = lane
        self._news.set()

    # --- writing ----------------------------------------------------------------------------------------------------

    async def write(
        self, header: Header, payload: bytes | memoryview, beside: bool = False, overtakes: bool = False
    ) -> None:
        """Sends one frame.

        Args:
            beside: over the lane, if there is one.
            overtakes: it need not be read after what was written to the lane before it.

        Raises:
            ChannelClosed: the connection broke; the reader will hear of it, too.
        """
        if not overtakes and (not beside or self.lane is None):
            header.after = self._sent[1]
        await self.write_frame(frame(header, payload), beside)

    async def write_frame(self, made: Frame, beside: bool = True) -> None:
        """Sends a frame that was made before. Raises as `write`."""
        lane = self.lane if beside else None  # another may come to be while this is sent
        try:
            if lane is not None:
                await lane.send(self._sent[0], made)
            else:
                await self._stream.write(made.message())
        except (*STREAM_FAULTS, OSError) as error:
            raise ChannelClosed(str(error)) from None
        self._sent[lane is not None] += 1

    # --- reading ----------------------------------------------------------------------------------------------------

    async def read(self) -> tuple[Header, memoryview] | None:
        """The next frame in the order of writing; None at the end.

        Raises:
            ChannelClosed: the connection broke.
            FrameError: the other side does not speak the protocol.
        """
        while True:
            lane = self.lane
            if lane is not None:
                first = lane.first
                if first is not None and first.after <= self._taken[0]:
                    self._taken[1] += 1
                    lane.take()
                    return first.header, first.payload
                if lane.fault is not None:
                    raise lane.fault
            if self._held is not None and self._held[0].after <= self._taken[1]:
                held, self._held = self._held, None
                self._taken[0] += 1
                return held
            if self._held is None:
                if self._reading is None:
                    self._reading = asyncio.create_task(self._read_stream())
                    self._reading.add_done_callback(self._read_ended)
                elif self._reading.done():
                    message, self._reading = self._reading.result(), None
                    if message is grpc.aio.EOF:
                        return None
                    self._held = decode(message)
                    continue
            await self._wait_for_news()

    async def _wait_for_news(self) -> None:
        """Waits for what may come on either way; raises ChannelClosed if what has to come cannot."""
        self._news.clear()
        limit_s = None  # the stream's keep-alive and the lane's time limit tell of a peer that is gone
        if self.lane is None and self._held is not None:
            limit_s = IDENTIFY_S  # a lane that the other end uses already is about to be known here
        elif self.lane is not None and self.lane.lost:
            limit_s = LAST_WORDS_S if self._held is None else 0.0
        try:
            await asyncio.wait_for(self._news.wait(), limit_s)
        except TimeoutError:
            raise ChannelClosed(f"the lane to {self._peer} broke") from None

    async def _read_stream(self) -> Any:
        try:
            return await self._stream.read()
        except STREAM_FAULTS as error:
            raise ChannelClosed(str(error)) from None

    def _read_ended(self, reading: "asyncio.Task[Any]") -> None:
        if not reading.cancelled():
            reading.exception()  # `read` raises it, if anybody still reads
        self._news.set()

    # --- the end ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends the lane and the reading; the stream is its owner's to end."""
        if self._offered is not None:
            listener, announcement = self._offered
            listener.withdraw(announcement)
        for task in (self._opening, self._reading):
            if task is not None:
                task.cancel()
        if self.lane is not None:
            self.lane.close()
            self.lane = None
