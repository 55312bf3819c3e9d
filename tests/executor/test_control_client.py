"""The task's end of the control channel, against a real gRPC server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from executor.control_client import ControlClient, Dismissed
from proto import control_pb2 as control
from proto.frames import grpc_options

HELLO = control.Hello(task_id="worker-0.1", role=control.WORKER)


class Driver:
    """Takes messages, slowly if told to; breaks a stream if told to."""

    def __init__(self) -> None:
        self.received: list[control.TaskMessage] = []
        self.streams = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.break_after = 0  # messages of the first stream
        self.refusal: grpc.StatusCode | None = None

        self.heard_by_task: list[control.DriverMessage] = []
        self._replies: asyncio.Queue[control.DriverMessage | None] = asyncio.Queue()

    def say(self, message: control.DriverMessage) -> None:
        """Says it on the stream there is, or on the next one."""
        self._replies.put_nowait(message)

    def hang_up(self) -> None:
        """Ends the stream."""
        self._replies.put_nowait(None)

    async def attach(self, requests: Any, context: Any) -> None:
        reader = asyncio.create_task(self._read(requests, context))
        writer = asyncio.create_task(self._write(context))
        try:
            done, _ = await asyncio.wait([reader, writer], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (reader, writer):
                task.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)

    async def _write(self, context: Any) -> None:
        while (message := await self._replies.get()) is not None:
            await context.write(message)

    async def _read(self, requests: Any, context: Any) -> None:
        self.streams += 1
        if self.refusal is not None:
            await context.abort(self.refusal, "not you")
        count = 0
        async for message in requests:
            await self.gate.wait()
            self.received.append(message)
            count += 1
            if self.streams == 1 and count == self.break_after:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "broken")


@asynccontextmanager
async def connected(driver: Driver) -> AsyncIterator[ControlClient]:
    server = grpc.aio.server(options=grpc_options())
    method = grpc.stream_stream_rpc_method_handler(
        driver.attach,
        request_deserializer=control.TaskMessage.FromString,
        response_serializer=control.DriverMessage.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("mesograd.Control", {"Attach": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield ControlClient(f"127.0.0.1:{port}", "secret", HELLO, driver.heard_by_task.append)
    finally:
        await server.stop(None)


def failure(words: str) -> control.TaskMessage:
    return control.TaskMessage(failure=control.Failure(kind=control.Failure.INPUT, summary=words))


def test_closing_waits_until_the_driver_has_read_everything() -> None:
    async def work() -> None:
        driver = Driver()
        async with connected(driver) as client:
            running = asyncio.create_task(client.run())
            driver.gate.clear()
            for number in range(200):
                client.send(control.TaskMessage(progress=control.Progress(steps=[control.StepReport(step=number)])))
            client.send(failure("last words"))
            closing = asyncio.create_task(client.close(10))
            done, _ = await asyncio.wait([closing], timeout=0.3)
            assert not done, "closed before the driver had read anything"
            driver.gate.set()
            await closing
            await running
            assert driver.received[-1].failure.summary == "last words"
            told = [report.step for message in driver.received for report in message.progress.steps]
            assert told == list(range(200))

    asyncio.run(work())


def test_last_words_are_said_again_on_the_next_stream() -> None:
    async def work() -> None:
        driver = Driver()
        driver.break_after = 2  # hello, and the failure is on its way
        async with connected(driver) as client:
            running = asyncio.create_task(client.run())
            client.send(failure("first"))
            async with asyncio.timeout(10):
                while driver.streams < 2 or driver.received[-1].failure.summary != "first":
                    await asyncio.sleep(0.01)
            await client.close(10)
            await running
            assert [m.WhichOneof("body") for m in driver.received] == ["hello", "failure", "hello", "failure"]

    asyncio.run(work())


def progress(step: int, epoch: int = 0) -> control.TaskMessage:
    told = control.Progress(steps=[control.StepReport(step=step)])
    if epoch:
        told.epochs.append(control.EpochReport(epoch=epoch))
    return control.TaskMessage(progress=told)


def steps(messages: list[control.TaskMessage]) -> list[int]:
    return [report.step for message in messages for report in message.progress.steps]


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not done():
            await asyncio.sleep(0.01)


def test_progress_is_told_again_until_it_is_acknowledged() -> None:
    """And the end is told behind it, however often the driver dies."""

    async def work() -> None:
        driver = Driver()
        async with connected(driver) as client:
            running = asyncio.create_task(client.run())
            for step in (1, 2, 3):
                client.send(progress(step))
                await until(lambda step=step: step in steps(driver.received))  # type: ignore[misc]
            driver.say(control.DriverMessage(acknowledged=control.Acknowledged(sequence=2)))
            driver.say(control.DriverMessage(stop=control.Stop()))  # has been heard: so was what came before
            await until(lambda: bool(driver.heard_by_task))
            client.send(control.TaskMessage(finished=control.Finished(step=3)))
            await until(lambda: driver.received[-1].HasField("finished"))
            driver.received.clear()
            driver.hang_up()
            await until(lambda: bool(driver.received) and driver.received[-1].HasField("finished"))
            assert [m.WhichOneof("body") for m in driver.received] == ["hello", "progress", "finished"]
            assert steps(driver.received) == [3]
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(work())


def test_what_is_not_acknowledged_is_known() -> None:
    async def work() -> None:
        driver = Driver()
        async with connected(driver) as client:
            running = asyncio.create_task(client.run())
            for step in range(1, 4):
                client.send(progress(step, epoch=step))
                await until(lambda step=step: step in steps(driver.received))  # type: ignore[misc]
            driver.say(control.DriverMessage(acknowledged=control.Acknowledged(sequence=1)))
            driver.say(control.DriverMessage(stop=control.Stop()))  # has been heard: so was what came before
            await until(lambda: bool(driver.heard_by_task))
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            for step in range(4, 3001):
                client.send(progress(step, epoch=step if step % 1000 == 0 else 0))
            untold = client.unacknowledged(10_000)
            assert [report.step for report in untold.steps] == list(range(2, 3001))
            assert [report.epoch for report in untold.epochs] == [2, 3, 1000, 2000, 3000]
            last = client.unacknowledged(1500)
            assert [report.step for report in last.steps] == list(range(1501, 3001))
            assert last.epochs == untold.epochs

    asyncio.run(work())


def test_while_the_driver_is_away_progress_grows_into_few_messages() -> None:
    async def work() -> None:
        driver = Driver()
        async with connected(driver) as client:
            for step in range(1, 2501):
                client.send(progress(step, epoch=step // 1200 if step % 1200 == 0 else 0))
            running = asyncio.create_task(client.run())
            await until(lambda: len(steps(driver.received)) == 2500)
            assert steps(driver.received) == list(range(1, 2501))
            messages = driver.received[1:]
            assert len(messages) <= 6
            assert [m.sequence for m in messages] == list(range(1, len(messages) + 1))
            last = [m.progress.steps[-1].step for m in messages if m.progress.epochs]
            assert last == [1200, 2400], "an epoch's end is told behind its last step, before the next one's first"
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(work())


def test_a_driver_that_moved_is_followed_even_if_the_old_one_hangs() -> None:
    async def work() -> None:
        old, new = Driver(), Driver()
        async with connected(old) as client, connected(new) as other:
            running = asyncio.create_task(client.run())
            client.send(progress(1))
            await until(lambda: steps(old.received) == [1])
            client.move(other._address)
            await until(lambda: steps(new.received) == [1])
            assert new.received[0].hello == HELLO
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(work())


def test_another_jobs_driver_at_the_old_address_dismisses_nobody() -> None:
    async def work() -> None:
        driver = Driver()
        async with connected(driver) as client:
            running = asyncio.create_task(client.run())
            driver.say(control.DriverMessage(stop=control.Stop()))
            await until(lambda: bool(driver.heard_by_task))
            driver.refusal = grpc.StatusCode.UNAUTHENTICATED
            driver.hang_up()
            await until(lambda: driver.streams >= 3)
            assert not running.done()
            driver.refusal = None
            driver.received.clear()
            await until(lambda: bool(driver.received))
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(work())


@pytest.mark.parametrize("code", [grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAUTHENTICATED])
def test_a_refused_task_is_dismissed(code: grpc.StatusCode) -> None:
    async def work() -> None:
        driver = Driver()
        driver.refusal = code
        async with connected(driver) as client:
            with pytest.raises(Dismissed, match="not you"):
                await client.run()

    asyncio.run(work())


def test_closing_without_a_driver_does_not_wait_for_ever() -> None:
    async def work() -> None:
        client = ControlClient("127.0.0.1:1", "secret", HELLO, lambda message: None)
        running = asyncio.create_task(client.run())
        client.send(failure("nobody hears it"))
        await client.close(0.5)
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(work())
