"""The task's end of the control channel, against a real gRPC server."""

import asyncio
from collections.abc import AsyncIterator
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

    async def attach(self, requests: Any, context: Any) -> None:
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
        yield ControlClient(f"127.0.0.1:{port}", "secret", HELLO, lambda message: None)
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
