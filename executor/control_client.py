"""A task's end of the control channel (proto/control.proto): says hello, hears of the job, reports."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from proto.control_pb2 import DriverMessage, Hello, TaskMessage
from proto.frames import SECRET_KEY, grpc_options

ATTACH_METHOD = "/mesograd.Control/Attach"
CONNECT_TIMEOUT_S = 10.0
RETRY_S = (0.2, 0.5, 1.0, 2.0)  # pauses between attempts to reach a driver that is away; the last one repeats

logger = logging.getLogger(__name__)


class Dismissed(Exception):
    """The driver does not want this task: it is of an older incarnation, or does not know the secret."""


class ControlClient:
    """Keeps a stream to the driver as well as it can be kept. What is said while the driver is away waits."""

    def __init__(self, address: str, secret: str, hello: Hello, on_message: Callable[[DriverMessage], None]) -> None:
        """
        Args:
            address: host:port of the driver's control channel.
            secret: of the job.
            hello: said first, on every new stream.
            on_message: called in the event loop with each message of the driver.
        """
        self._address = address
        self._secret = secret
        self._hello = TaskMessage(hello=hello)
        self._on_message = on_message
        self._outbox: deque[TaskMessage] = deque()
        self._last_words: list[TaskMessage] = []
        self._news = asyncio.Event()
        self._closing = False
        self._closed = asyncio.Event()

    def send(self, message: TaskMessage) -> None:
        """Queues a message. Failure and Finished are repeated on each new stream, for nothing follows them."""
        if message.HasField("failure") or message.HasField("finished"):
            self._last_words.append(message)
        self._outbox.append(message)
        self._news.set()

    async def close(self, timeout_s: float) -> None:
        """Ends the channel once the driver has taken everything, or after `timeout_s`.

        Handing a message to the connection is not enough: what it holds is lost if the process ends. So this side of
        the stream is closed, and the driver closes its own when it has read all.
        """
        self._closing = True
        self._news.set()
        try:
            await asyncio.wait_for(self._closed.wait(), timeout_s)
        except TimeoutError:
            logger.warning("the driver did not take the last words within %g s", timeout_s)

    async def run(self) -> None:
        """Until cancelled or closed.

        Raises:
            Dismissed: the driver refuses this task.
        """
        failures = 0
        while True:
            try:
                await self._attach()
                if self._closing and not self._outbox:
                    self._closed.set()
                    return
                failures = 0
            except grpc.aio.AioRpcError as error:
                if error.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAUTHENTICATED):
                    raise Dismissed(error.details() or error.code().name) from None
                logger.info("the driver at %s is away: %s", self._address, error.code().name)
            except TimeoutError:
                logger.info("the driver at %s does not answer", self._address)
            await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
            failures += 1

    async def _attach(self) -> None:
        async with grpc.aio.insecure_channel(self._address, options=grpc_options()) as channel:
            await asyncio.wait_for(channel.channel_ready(), CONNECT_TIMEOUT_S)
            call: Any = channel.stream_stream(
                ATTACH_METHOD,
                request_serializer=TaskMessage.SerializeToString,
                response_deserializer=DriverMessage.FromString,
            )(metadata=((SECRET_KEY, self._secret),))
            await call.write(self._hello)
            for message in self._last_words:
                if message not in self._outbox:
                    await call.write(message)
            writer = asyncio.create_task(self._write(call))
            try:
                while (message := await call.read()) is not grpc.aio.EOF:
                    self._on_message(message)
            finally:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)

    async def _write(self, call: Any) -> None:
        while True:
            while self._outbox:
                await call.write(self._outbox[0])
                self._outbox.popleft()
            if self._closing:
                await call.done_writing()
                return
            self._news.clear()
            await self._news.wait()
