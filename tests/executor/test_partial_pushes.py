"""A worker that dies after it pushed to some of the servers only, or in the middle of a push: nothing of it shows."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from compute import TrainingSpec, nn, optim, trigger
from executor import step_plan
from executor.job import LoadedJob
from executor.lease_computer import LeaseComputer
from executor.pieces import PIECE
from executor.step_plan import StepPlan
from proto import control_pb2 as control
from proto.exchange_pb2 import Grant, Header, LeaseRequest, Push, Want
from proto.frames import EXCHANGE_METHOD, SECRET_KEY, decode, encode, grpc_options
from tests.data_files import write_subset
from tests.executor.harness import training
from tests.executor.test_exchange_refusals import join
from tests.executor.test_training_faults import make_spec

STEPS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_subset(tmp_path_factory.mktemp("data"), train=640, test=100)


def wide(folder: Path, steps: int = STEPS) -> TrainingSpec:
    """Slices of several pieces."""
    model = nn.Sequential(nn.Reshape(784), nn.Linear(784, 2000), nn.ReLU(), nn.Linear(2000, 10), nn.LogSoftmax())
    optimizer = optim.SGD(0.05, momentum=0.9)
    return make_spec(folder, model=model, optimizer=optimizer, end_when=trigger.max_iteration(steps), validation=None)


async def push_to_server_0(address: str, secret: str, spec: TrainingSpec, pieces: int | None) -> int:
    """Plays a worker that takes the first lease and pushes the true gradient: all of server 0's slice, or some pieces.

    Returns the version of the parameters that server 0 has then.
    """
    job = LoadedJob(control.Job(), spec, StepPlan(len(spec.dataset), spec.batch_size, spec.micro_batches))
    computer = LeaseComputer(job, 1)
    await asyncio.to_thread(computer.warm_up)  # at the initial parameters
    async with grpc.aio.insecure_channel(address, options=grpc_options()) as channel:
        call: Any = channel.stream_stream(EXCHANGE_METHOD)(metadata=((SECRET_KEY, secret),))
        await call.write(join())
        await call.write(encode(Header(attempt=1, lease_request=LeaseRequest())))
        assert decode(await call.read())[0].HasField("lane")
        grant = decode(await call.read())[0].grant
        assert (grant.kind, grant.step, grant.first, grant.last) == (Grant.TRAIN, 1, 0, job.plan.leaves(1))
        value = await asyncio.to_thread(computer.train, grant, lambda: None)
        begin, end = step_plan.slice_bounds(job.parameters, 2, 0)
        data = np.array(value.gradient[begin:end]).data.cast("B")
        offsets = list(range(0, len(data), 4 * PIECE))
        assert len(offsets) > 1
        for offset in offsets[:pieces]:
            push = Push(step=1, level=grant.level, index=grant.index, offset=offset, bytes=len(data))
            if offset == offsets[-1]:
                push.last, push.loss, push.samples, push.digest = True, value.loss, value.samples, value.digest
            await call.write(encode(Header(attempt=1, push=push), data[offset : offset + 4 * PIECE]))
        # The answer to this comes when all that is before it was taken.
        await call.write(encode(Header(attempt=1, want=Want(version=0))))
        version = int(decode(await call.read())[0].parameters.version)
        call.cancel()
    computer.close()
    return version


@pytest.mark.parametrize("pieces", [None, 1], ids=["between two servers", "in the middle of a slice"])
def test_a_worker_that_dies_between_pushes_does_not_show(folder: Path, tmp_path: Path, pieces: int | None) -> None:
    """Who takes the lease over gets the parameters that it was computed with, though server 0 has gone on."""

    async def weights(dies: bool) -> str:
        spec = wide(folder)
        async with training(spec, tmp_path / str(dies), workers=0, servers=2) as driver:
            await driver.until(lambda: driver.attempt == 1)
            if dies:
                assert await push_to_server_0(driver.servers[0].address, driver._secret, spec, pieces) == 0
            worker = driver.add_worker()
            finished = await driver.until_finished()
            if dies:
                log = worker.log.read_text()
                assert "is past" not in log
                assert ("was done by another worker" in log) == (pieces is None), "the fault did not fall there"
            return finished.weights_sha256

    async def both() -> None:
        assert await weights(True) == await weights(False)

    asyncio.run(both())
