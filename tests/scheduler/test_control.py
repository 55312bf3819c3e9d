"""The control server over real gRPC, with scripted tasks."""

import asyncio
import contextlib

import grpc
import grpc.aio
import pytest

from proto import control_pb2 as pb
from scheduler import events as ev
from scheduler.control import ControlServer
from scheduler.outcome import UsageError

TIMEOUT_S = 20


class Rig:
    """A server and its events."""

    def __init__(self):
        self.events = asyncio.Queue()
        self.server = ControlServer("secret", self.events.put_nowait)
        self.channels = []

    async def event(self, kind):
        event = await asyncio.wait_for(self.events.get(), TIMEOUT_S)
        assert isinstance(event, kind), event
        return event

    def attach(self, secret="secret"):
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.port}")
        self.channels.append(channel)
        method = channel.stream_stream(
            "/mesograd.Control/Attach",
            request_serializer=pb.TaskMessage.SerializeToString,
            response_deserializer=pb.DriverMessage.FromString,
        )
        return method(metadata=(("mesograd-secret", secret),) if secret is not None else (), timeout=TIMEOUT_S)

    async def hello(self, task_id="t1"):
        call = self.attach()
        await call.write(pb.TaskMessage(hello=pb.Hello(task_id=task_id, role=pb.WORKER)))
        assert (await self.event(ev.HelloReceived)).hello.task_id == task_id
        return call


@contextlib.asynccontextmanager
async def rig():
    r = Rig()
    r.port = await r.server.start("127.0.0.1")
    try:
        yield r
    finally:
        for channel in r.channels:
            await channel.close()
        await r.server.stop()


def run(coroutine):
    asyncio.run(asyncio.wait_for(coroutine, TIMEOUT_S))


async def status(call):
    """The code of a refused stream."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return await call.code()


def stop(reason):
    return pb.DriverMessage(stop=pb.Stop(reason=reason))


def test_messages_in_both_directions():
    async def scenario():
        async with rig() as r:
            call = await r.hello()
            r.server.send("t1", stop("one"))
            r.server.send("t1", stop("two"))
            r.server.send("nobody", stop("three"))
            assert [(await call.read()).stop.reason for _ in range(2)] == ["one", "two"]
            step = pb.Progress(steps=[pb.StepReport(step=7)])
            await call.write(pb.TaskMessage(progress=step))
            await call.write(pb.TaskMessage(failure=pb.Failure(summary="bad")))
            await call.write(pb.TaskMessage(finished=pb.Finished(step=9)))
            assert (await r.event(ev.ProgressReceived)).progress.steps[0].step == 7
            assert (await r.event(ev.FailureReceived)).failure.summary == "bad"
            finished = await r.event(ev.FinishedReceived)
            assert (finished.task_id, finished.finished.step) == ("t1", 9)
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            assert (await r.event(ev.StreamLost)).task_id == "t1"

    run(scenario())


@pytest.mark.parametrize("secret", ["wrong", "", None])
def test_without_the_secret_nobody_is_heard(secret):
    async def scenario():
        async with rig() as r:
            call = r.attach(secret)
            assert await status(call) == grpc.StatusCode.UNAUTHENTICATED
            assert r.events.empty()

    run(scenario())


@pytest.mark.parametrize("first", [pb.TaskMessage(), pb.TaskMessage(progress=pb.Progress()), pb.TaskMessage(hello={})])
def test_hello_comes_first(first):
    async def scenario():
        async with rig() as r:
            call = r.attach()
            await call.write(first)
            assert await status(call) == grpc.StatusCode.INVALID_ARGUMENT
            assert r.events.empty()

    run(scenario())


def test_a_refused_task_is_told_why():
    async def scenario():
        async with rig() as r:
            call = await r.hello()
            r.server.refuse("t1", "an older incarnation")
            assert await status(call) == grpc.StatusCode.FAILED_PRECONDITION
            assert call.details
            assert await call.details() == "an older incarnation"

    run(scenario())


def test_a_second_stream_takes_the_place_of_the_first_without_a_loss():
    async def scenario():
        async with rig() as r:
            first = await r.hello()
            second = await r.hello()
            assert await first.read() is grpc.aio.EOF
            r.server.send("t1", stop("for the second"))
            assert (await second.read()).stop.reason == "for the second"
            assert r.events.empty(), "the first stream's end is no loss"
            second.cancel()
            assert (await r.event(ev.StreamLost)).task_id == "t1"

    run(scenario())


def test_a_task_that_vanishes_is_reported():
    async def scenario():
        async with rig() as r:
            await r.hello()
            await r.channels[-1].close()
            assert (await r.event(ev.StreamLost)).task_id == "t1"

    run(scenario())


def test_a_large_job_fits():
    async def scenario():
        async with rig() as r:
            channel = grpc.aio.insecure_channel(
                f"127.0.0.1:{r.port}", options=[("grpc.max_receive_message_length", -1)]
            )
            r.channels.append(channel)
            call = channel.stream_stream(
                "/mesograd.Control/Attach",
                request_serializer=pb.TaskMessage.SerializeToString,
                response_deserializer=pb.DriverMessage.FromString,
            )(metadata=(("mesograd-secret", "secret"),))
            await call.write(pb.TaskMessage(hello=pb.Hello(task_id="t")))
            await r.event(ev.HelloReceived)
            r.server.send("t", pb.DriverMessage(job=pb.Job(spec=b"x" * 20_000_000)))
            assert len((await call.read()).job.spec) == 20_000_000

    run(scenario())


def test_an_address_of_another_machine_is_a_usage_error():
    async def scenario():
        with pytest.raises(UsageError, match="--driver-host"):
            await ControlServer("s", print).start("192.0.2.1")

    run(scenario())


def test_stop_ends_streams_after_delivering_what_was_said():
    async def scenario():
        async with rig() as r:
            call = await r.hello()
            r.server.send("t1", stop("last"))
            await r.server.stop()
            assert (await call.read()).stop.reason == "last"
            assert await call.read() is grpc.aio.EOF

    run(scenario())
