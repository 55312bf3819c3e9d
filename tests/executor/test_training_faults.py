"""Real workers and servers, killed, stopped and resumed: the weights come out the same to the last bit.

The driver is scripted here (harness.py); tests/integration does the same through Mesos.
"""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from compute import TrainingSpec, Validation, data, models, nn, optim, trigger
from compute.retention import Retention
from executor.leases import MIN_LEASE_S
from proto import control_pb2 as control
from tests.cluster.waiting import wait_until
from tests.data_files import write_subset
from tests.executor.harness import ScriptedDriver, training

SAMPLES = 19_230
STEPS_PER_EPOCH = 301  # of 64 samples, but for the last
EPOCHS = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_subset(tmp_path_factory.mktemp("data"), train=SAMPLES, test=500)


def make_spec(folder: Path, **changes: Any) -> TrainingSpec:
    spec = TrainingSpec(
        model=models.lenet5(),
        criterion=nn.NLLLoss(),
        dataset=data.mnist(str(folder)) >> data.normalize(0.286, 0.353),
        optimizer=optim.SGD(learning_rate=0.05, momentum=0.9, weight_decay=1e-4),
        batch_size=64,
        end_when=trigger.max_epoch(EPOCHS),
        validation=Validation(
            trigger.every_epoch(), data.mnist(str(folder), train=False) >> data.normalize(0.286, 0.353),
            [optim.Top1Accuracy()],
        ),
    )  # fmt: skip
    for name, value in changes.items():
        setattr(spec, name, value)
    return spec


def check_epochs(driver: ScriptedDriver) -> None:
    """Every epoch was committed with every sample exactly once, however often it had to be replayed."""
    assert {e.epoch for e in driver.epochs} == set(range(1, EPOCHS + 1))
    assert all(e.exact and e.samples == SAMPLES for e in driver.epochs)
    assert set(driver.steps) == set(range(1, EPOCHS * STEPS_PER_EPOCH + 1))
    for reports in driver.steps.values():  # a replayed step is the same step
        assert len({(r.loss, r.samples, r.learning_rate) for r in reports}) == 1
    assert len({v.metrics["Top1Accuracy"] for v in driver.validations if v.epoch == EPOCHS}) == 1


def run(work: Coroutine[Any, Any, str]) -> str:
    return asyncio.run(work)


async def undisturbed(folder: Path, directory: Path, workers: int, servers: int, **changes: Any) -> str:
    async with training(make_spec(folder, **changes), directory, workers, servers) as driver:
        finished = await driver.until_finished()
        check_epochs(driver)
        return finished.weights_sha256


@pytest.fixture(scope="module")
def reference(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights of one worker and one server that nothing happened to."""
    return run(undisturbed(folder, tmp_path_factory.mktemp("reference"), 1, 1))


@pytest.mark.parametrize(("workers", "servers"), [(2, 2), (3, 1), (3, 3)])
def test_the_number_of_workers_and_servers_does_not_show(
    folder: Path, tmp_path: Path, reference: str, workers: int, servers: int
) -> None:
    assert run(undisturbed(folder, tmp_path, workers, servers)) == reference


def test_another_seed_shows(folder: Path, tmp_path: Path, reference: str) -> None:
    """Guards the tests of this file: the digest is not the same for everything."""
    assert run(undisturbed(folder, tmp_path, 1, 1, seed=2)) != reference


Fault = Callable[[ScriptedDriver], Coroutine[Any, Any, None]]


async def kill_worker(driver: ScriptedDriver) -> None:
    driver.workers()[0].kill()
    driver.add_worker()


async def kill_every_worker(driver: ScriptedDriver) -> None:
    for worker in driver.workers():
        worker.kill()
    driver.add_worker()


async def stop_worker_until_its_lease_is_lost(driver: ScriptedDriver) -> None:
    worker = driver.workers()[0]
    worker.signal(signal.SIGSTOP)
    before = max(driver.steps)
    await driver.until(lambda: max(driver.steps) >= before + 5)  # the other has taken it over
    worker.signal(signal.SIGCONT)  # and now comes the late push


async def worker_joins(driver: ScriptedDriver) -> None:
    driver.add_worker()


async def kill_server_0(driver: ScriptedDriver) -> None:
    driver.servers[0].kill()
    await driver.replace_server(0)


async def kill_server_1(driver: ScriptedDriver) -> None:
    driver.servers[1].kill()
    await driver.replace_server(1)


async def stop_server_briefly(driver: ScriptedDriver) -> None:
    driver.servers[1].signal(signal.SIGSTOP)
    await asyncio.sleep(3)  # the length of the stop is the fault itself
    driver.servers[1].signal(signal.SIGCONT)


FAULTS = [kill_worker, kill_every_worker, stop_worker_until_its_lease_is_lost, worker_joins, kill_server_0,
          kill_server_1, stop_server_briefly]  # fmt: skip


async def disturbed(folder: Path, directory: Path, fault: Fault, checkpoint_url: str) -> str:
    spec = make_spec(folder, checkpoint_when=trigger.several_iteration(20))
    async with training(spec, directory, 2, 2, checkpoint_url=checkpoint_url) as driver:
        await driver.until_step(25)
        before = max(driver.steps)
        assert before < EPOCHS * STEPS_PER_EPOCH / 2, "the fault came too late to fall into an epoch"
        await fault(driver)
        finished = await driver.until_finished()
        check_epochs(driver)
        if fault is kill_worker:  # no longer than until its lease would have been lost without a word
            assert max(r.seconds for reports in driver.steps.values() for r in reports) < MIN_LEASE_S + 2
        again = [step for step, reports in driver.steps.items() if any(r.attempt == 2 for r in reports)]
        assert bool(again) == (driver.attempt == 2) == (fault in (kill_server_0, kill_server_1))
        if again:  # without a checkpoint from step 1, with one from the step after it
            assert min(again) % 20 == 1
            assert (min(again) > 1) == bool(checkpoint_url)
        return finished.weights_sha256


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_a_fault_does_not_show(folder: Path, tmp_path: Path, reference: str, fault: Fault) -> None:
    assert run(disturbed(folder, tmp_path, fault, "")) == reference


@pytest.mark.parametrize("fault", [kill_server_0, kill_server_1], ids=lambda f: f.__name__)
def test_a_lost_server_goes_on_from_the_newest_checkpoint(
    folder: Path, tmp_path: Path, reference: str, fault: Fault
) -> None:
    assert run(disturbed(folder, tmp_path, fault, str(tmp_path / "checkpoints"))) == reference


def test_what_a_lost_server_was_told_is_not_for_the_next_one_at_its_address(
    folder: Path, tmp_path: Path, reference: str
) -> None:
    """It listens before the lease book knows of it, and the checkpoint that its predecessor began with is gone."""

    async def train() -> str:
        spec = make_spec(folder, checkpoint_when=trigger.several_iteration(20), retention=Retention(keep=1))
        checkpoints = tmp_path / "checkpoints"
        async with training(spec, tmp_path, 2, 2, checkpoint_url=str(checkpoints)) as driver:
            await driver.until(lambda: any(c.step >= 20 for c in driver.checkpoints))
            await kill_server_1(driver)
            await driver.until(lambda: driver.attempt == 2)
            begun = max(c.step for c in driver.checkpoints)
            await driver.until(lambda: any(c.step >= begun + 60 for c in driver.checkpoints))
            assert not driver.finished, "too late"
            lost = driver.servers[1]
            lost.kill()
            assert not (checkpoints / f"step-{begun:08d}").exists()
            task = driver.launch("server", 1, lost.address)  # nobody is told of it yet
            refused = f"this is {task.task_id}, not {lost.task_id}"
            await asyncio.to_thread(wait_until, lambda: refused in driver.servers[0].log.read_text(), "a refusal")
            driver.servers[1] = task
            driver.attend()
            finished = await driver.until_finished()
            check_epochs(driver)
            return finished.weights_sha256

    assert run(train()) == reference


@pytest.mark.parametrize("servers_after", [1, 2, 3])
def test_an_interrupted_job_resumes_to_the_same_weights(
    folder: Path, tmp_path: Path, reference: str, servers_after: int
) -> None:
    url = str(tmp_path / "checkpoints")

    async def both() -> str:
        async with training(make_spec(folder), tmp_path / "first", 2, 2, checkpoint_url=url) as first:
            await first.until_step(30)
            first.stop(checkpoint=True)
            finished = await first.until_finished()
            assert finished.reason == control.Finished.STOPPED
            assert 30 <= finished.step < STEPS_PER_EPOCH, "it was not interrupted in mid-epoch"
            assert [c.step for c in first.checkpoints] == [finished.step]
        async with training(
            make_spec(folder), tmp_path / "second", 1, servers_after, checkpoint_url=url, resume=True
        ) as second:
            done = await second.until_finished()
            assert min(second.steps) == finished.step + 1
            assert all(e.exact and e.samples == SAMPLES for e in second.epochs)
            assert {e.epoch for e in second.epochs} == {1, 2}
            return done.weights_sha256

    assert run(both()) == reference


def expect_failure(
    directory: Path, spec: TrainingSpec, kind: int, workers: int = 1, sources: dict[str, str] | None = None,
    **options: Any,
) -> control.Failure:  # fmt: skip
    """Runs until a task reports a failure of this kind."""

    async def work() -> control.Failure:
        async with training(spec, directory, workers, 2, sources=sources or {}, **options) as driver:
            with pytest.raises(AssertionError, match="failed"):
                await driver.until_finished()
            return driver.failures[0]

    failure = asyncio.run(work())
    assert failure.kind == kind, failure
    assert "\n" not in failure.summary
    return failure


def leave_checkpoint(folder: Path, directory: Path, url: str) -> None:
    """A finished job of four steps with a checkpoint."""

    async def work() -> None:
        spec = make_spec(folder, end_when=trigger.max_iteration(4))
        async with training(spec, directory, 1, 2, checkpoint_url=url) as driver:
            await driver.until_finished()
            assert [c.step for c in driver.checkpoints] == [4]

    asyncio.run(work())


def test_checkpoints_that_cannot_be_resumed(folder: Path, tmp_path: Path) -> None:
    url = str(tmp_path / "checkpoints")
    nothing = expect_failure(
        tmp_path / "a", make_spec(folder), control.Failure.INPUT, checkpoint_url=url, resume=True
    )
    assert "nothing to resume" in nothing.summary
    leave_checkpoint(folder, tmp_path / "b", url)
    held = expect_failure(tmp_path / "c", make_spec(folder), control.Failure.INPUT, checkpoint_url=url)
    assert "holds a checkpoint of step 4 already: continue it with --resume" in held.summary
    other = expect_failure(
        tmp_path / "d", make_spec(folder, batch_size=32), control.Failure.INPUT, checkpoint_url=url, resume=True
    )
    assert "batch_size=64, now it is 32" in other.summary
    plain = make_spec(folder, optimizer=optim.SGD(learning_rate=0.1))
    optimizer = expect_failure(tmp_path / "e", plain, control.Failure.INPUT, checkpoint_url=url, resume=True)
    assert "another optimizer" in optimizer.summary
    deeper = make_spec(folder, model=models.lenet5(classes=11))
    model = expect_failure(tmp_path / "f", deeper, control.Failure.INPUT, checkpoint_url=url, resume=True)
    assert "another model" in model.summary
    part = sorted((tmp_path / "checkpoints" / "step-00000004").glob("slice-*"))[1]
    whole = part.read_bytes()
    part.write_bytes(whole[:-5])
    cut = expect_failure(tmp_path / "g", make_spec(folder), control.Failure.INPUT, checkpoint_url=url, resume=True)
    assert "damaged" in cut.summary
    part.write_bytes(whole)  # nothing else was harmed by all this

    async def resumes() -> int:
        spec = make_spec(folder, end_when=trigger.max_iteration(6))
        async with training(spec, tmp_path / "h", 1, 2, checkpoint_url=url, resume=True) as driver:
            return int((await driver.until_finished()).step)

    assert asyncio.run(resumes()) == 6


def test_a_diverging_loss_ends_the_job(folder: Path, tmp_path: Path) -> None:
    spec = make_spec(folder, optimizer=optim.SGD(learning_rate=1e30), model=nn.Sequential(
        nn.Reshape(784), nn.Linear(784, 10), nn.ReLU(), nn.Linear(10, 10), nn.LogSoftmax()))  # fmt: skip
    failure = expect_failure(tmp_path, spec, control.Failure.DIVERGED)
    assert "lower the learning rate (1e+30)" in failure.summary
