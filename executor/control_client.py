"""A task's end of the control channel (proto/control.proto): says hello, hears of the job, reports.

The driver may be away for long, and come back as another process at another address: nothing that was said gets lost.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from proto.control_pb2 import DriverMessage, Hello, Progress, StepReport, TaskMessage
from proto.frames import SECRET_KEY, grpc_options

ATTACH_METHOD = "/mesograd.Control/Attach"
CONNECT_TIMEOUT_S = 10.0
RETRY_S = (0.2, 0.5, 1.0, 2.0)  # pauses between attempts to reach a driver that is away; the last one repeats

logger = logging.getLogger(__name__)


class Dismissed(Exception):
    """The driver does not want this task: it is of an older incarnation, or does not know the secret."""


ABANDONED_S = 7 * 24 * 3600.0  # without a driver, before a task ends: the framework's failover_timeout, which a master
# that takes over does not know (MESOS-4659), so that tasks would stay for ever
MERGED_STEPS = 1000  # a message of progress grows no longer while the driver is away


def _can_grow(progress: Progress) -> bool:
    """Steps may follow in the same message; what they lead to (an epoch's end, a validation) stays behind them."""
    milestones = len(progress.epochs) + len(progress.validations) + len(progress.checkpoints)
    return not milestones and len(progress.steps) < MERGED_STEPS


class ControlClient:
    """Keeps a stream to the driver as well as it can be kept. What is said while the driver is away waits."""

    def __init__(
        self,
        address: str,
        secret: str,
        hello: Hello,
        on_message: Callable[[DriverMessage], None],
        abandoned_s: float = ABANDONED_S,
    ) -> None:
        """
        Args:
            address: host:port of the driver's control channel.
            secret: of the job.
            hello: said first, on every new stream.
            on_message: called in the event loop with each message of the driver.
            abandoned_s: seconds without a driver after which none is waited for any more.
        """
        self._address = address
        self._secret = secret
        self._hello = TaskMessage(hello=hello)
        self._on_message = on_message
        self._abandoned_s = abandoned_s
        self._heard_at = time.monotonic()  # when the driver last said something, or left after that
        self._outbox: deque[TaskMessage] = deque()
        self._unacknowledged: deque[TaskMessage] = deque()  # progress that was sent
        self._sequence = 0  # of the last progress
        self._accepted = False  # the driver has answered once
        self._moved = asyncio.Event()
        self._last_words: list[TaskMessage] = []
        self._news = asyncio.Event()
        self._closing = False
        self._closed = asyncio.Event()

    def send(self, message: TaskMessage) -> None:
        """Queues a message.

        Progress is kept, and sent again on each new stream, until it is acknowledged. Failure and Finished are repeated
        on each, for nothing follows them.
        """
        if message.HasField("progress"):
            last = self._outbox[-1] if self._outbox else None
            if last is not None and last.HasField("progress") and _can_grow(last.progress):
                last.progress.MergeFrom(message.progress)
                return
            self._sequence += 1
            message.sequence = self._sequence
        if message.HasField("failure") or message.HasField("finished"):
            self._last_words.append(message)
        self._outbox.append(message)
        self._news.set()

    def unacknowledged(self, steps: int) -> Progress:
        """Progress that was said and that the driver may not know of, with the last so many steps of it. A copy."""
        messages = [message.progress for message in (*self._unacknowledged, *self._outbox)]
        progress = Progress()
        for message in messages:
            progress.epochs.extend(message.epochs)
            progress.validations.extend(message.validations)
            progress.checkpoints.extend(message.checkpoints)
        newest: list[StepReport] = []
        for message in reversed(messages):
            newest[:0] = message.steps[max(0, len(message.steps) - (steps - len(newest))) :]
            if len(newest) >= steps:
                break
        progress.steps.extend(newest)
        return progress

    def move(self, address: str) -> None:
        """The driver is at another address now (host:port)."""
        if address != self._address:
            logger.info("the driver is now at %s", address)
            self._address = address
            self._moved.set()

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
            Dismissed: the driver refuses this task, or has been gone for too long.
        """
        failures = 0
        while True:
            self._moved.clear()
            try:
                await self._attach_until_moved()
                if self._closing and not self._outbox:
                    self._closed.set()
                    return
                failures = 0
            except grpc.aio.AioRpcError as error:
                # Another job's driver may have got the port of ours, which has died: that one does not know our secret.
                stranger = error.code() == grpc.StatusCode.UNAUTHENTICATED and self._accepted
                codes = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAUTHENTICATED)
                if error.code() in codes and not stranger:
                    raise Dismissed(error.details() or error.code().name) from None
                logger.info("the driver at %s is away: %s", self._address, error.code().name)
            except TimeoutError:
                logger.info("the driver at %s does not answer", self._address)
            if time.monotonic() - self._heard_at > self._abandoned_s:
                raise Dismissed(f"no driver has been heard of for {self._abandoned_s:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), RETRY_S[min(failures, len(RETRY_S) - 1)])
            failures += 1

    async def _attach_until_moved(self) -> None:
        """One stream, until it ends or the driver is elsewhere."""
        attached = asyncio.create_task(self._attach())
        moved = asyncio.create_task(self._moved.wait())
        try:
            await asyncio.wait([attached, moved], return_when=asyncio.FIRST_COMPLETED)
            if attached.done():
                attached.result()
        finally:
            for task in (attached, moved):
                task.cancel()
            await asyncio.gather(attached, moved, return_exceptions=True)

    async def _attach(self) -> None:
        async with grpc.aio.insecure_channel(self._address, options=grpc_options()) as channel:
            await asyncio.wait_for(channel.channel_ready(), CONNECT_TIMEOUT_S)
            call: Any = channel.stream_stream(
                ATTACH_METHOD,
                request_serializer=TaskMessage.SerializeToString,
                response_deserializer=DriverMessage.FromString,
            )(metadata=((SECRET_KEY, self._secret),))
            await call.write(self._hello)
            self._outbox.extendleft(reversed(self._unacknowledged))
            self._unacknowledged.clear()
            self._outbox.extend([words for words in self._last_words if words not in self._outbox])
            writer = asyncio.create_task(self._write(call))
            heard = False
            try:
                while (message := await call.read()) is not grpc.aio.EOF:
                    self._accepted = heard = True
                    if message.HasField("acknowledged"):
                        self._forget(message.acknowledged.sequence)
                    else:
                        self._on_message(message)
            finally:
                if heard:
                    self._heard_at = time.monotonic()
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)

    def _forget(self, sequence: int) -> None:
        """Progress up to this number is safe."""
        while self._unacknowledged and self._unacknowledged[0].sequence <= sequence:
            self._unacknowledged.popleft()

    async def _write(self, call: Any) -> None:
        while True:
            while self._outbox:
                message = self._outbox[0]
                if message.HasField("progress"):
                    # From now on it may be acknowledged, which may be heard of before write() returns.
                    self._unacknowledged.append(message)
                    self._outbox.popleft()
                    await call.write(message)
                else:
                    await call.write(message)
                    self._outbox.popleft()
            if self._closing:
                await call.done_writing()
                return
            self._news.clear()
            await self._news.wait()
