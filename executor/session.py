"""One stream of frames between two of our processes, the same on both of its ends."""

import asyncio
import hmac
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
import grpc.aio

from proto.exchange_pb2 import Header, Refusal
from proto.frames import EXCHANGE_METHOD, SECRET_KEY, decode, encode, grpc_options

CONNECT_TIMEOUT_S = 10.0
MAX_QUEUED_BYTES = 1 << 30  # a peer that lets more than this pile up is cut off


class SessionClosed(ConnectionError):
    """The stream ended, by the other side's will or by a fault."""


class Session:
    """Sends frames in order without waiting, receives them one by one.

    Attributes:
        peer: who is at the other end, for logs and for the lease book.
    """

    def __init__(self, stream: Any, peer: str) -> None:
        """
        Args:
            stream: grpc.aio's ServicerContext or StreamStreamCall: both have read() and write().
            peer: name of the other end.
        """
        self.peer = peer
        self._stream = stream
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._queued_bytes = 0
        self._writer = asyncio.create_task(self._write())
        self.closed = False

    def send(self, header: Header, payload: bytes | memoryview = b"") -> None:
        """Queues one frame."""
        self.send_frames((encode(header, payload),))

    def send_frames(self, frames: Iterable[bytes]) -> None:
        """Queues frames; after the stream broke they are dropped, for the receiver learns of that by itself."""
        if self.closed:
            return
        for frame in frames:
            self._queued_bytes += len(frame)
            self._queue.put_nowait(frame)
        if self._queued_bytes > MAX_QUEUED_BYTES:
            self.abort()

    def refuse(self, attempt: int, code: Refusal.Code, step: int = 0, reason: str = "") -> None:
        """Says that a frame was not taken."""
        self.send(Header(attempt=attempt, refusal=Refusal(code=code, step=step, reason=reason)))

    async def frames(self) -> AsyncIterator[tuple[Header, memoryview]]:
        """What arrives, until the stream ends.

        Raises:
            SessionClosed: the connection broke.
            FrameError: the other side does not speak the protocol.
        """
        while True:
            try:
                frame = await self._stream.read()
            except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError) as error:
                raise SessionClosed(str(error)) from None
            if frame is grpc.aio.EOF or self.closed:
                return
            yield decode(frame)

    async def drain(self, timeout_s: float) -> None:
        """Waits until what is queued has been handed to the connection, for `timeout_s` at the most."""
        if not self.closed:
            self._queue.put_nowait(None)
            await asyncio.wait([self._writer], timeout=timeout_s)
        await self.close()

    def stop_writer(self) -> None:
        """Sends nothing more."""
        self.closed = True
        self._writer.cancel()

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

    async def _write(self) -> None:
        try:
            while (frame := await self._queue.get()) is not None:
                self._queued_bytes -= len(frame)
                await self._stream.write(frame)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            self.closed = True  # the reading side sees the same fault and tells


class Connection:
    """A client's channel to one server and the session on it, as an async context manager."""

    def __init__(self, address: str, secret: str, peer: str) -> None:
        self._address = address
        self._secret = secret
        self._peer = peer
        self._channel: grpc.aio.Channel | None = None
        self._session: Session | None = None

    async def __aenter__(self) -> Session:
        self._channel = grpc.aio.insecure_channel(self._address, options=grpc_options())
        try:
            await asyncio.wait_for(self._channel.channel_ready(), CONNECT_TIMEOUT_S)
        except TimeoutError:
            await self._channel.close()
            raise SessionClosed(f"no connection to {self._address} within {CONNECT_TIMEOUT_S:g} s") from None
        except asyncio.CancelledError:
            await self._channel.close()
            raise
        call: Any = self._channel.stream_stream(EXCHANGE_METHOD)(metadata=((SECRET_KEY, self._secret),))
        self._session = Session(call, self._peer)
        return self._session

    async def __aexit__(self, *exc: object) -> None:
        if self._session is not None:
            await self._session.close()
        if self._channel is not None:
            await self._channel.close()


async def authenticate(context: Any, secret: str) -> None:
    """Ends a call that does not carry the job's secret (UNAUTHENTICATED)."""
    given = dict(context.invocation_metadata() or ()).get(SECRET_KEY, "")
    if not isinstance(given, str) or not hmac.compare_digest(given.encode(), secret.encode()):
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "this call needs the job's secret")
