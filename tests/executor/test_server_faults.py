"""Servers and replicas die at every point of the protocol, and the weights come out the same to the last bit.

Without replicas the training goes back to a checkpoint and replays; with them it goes on, and no committed step is
computed again.
"""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from compute import TrainingSpec, Validation, data, nn, optim, trigger
from scheduler.outcome import Outcome
from scheduler.summary import Summary
from tests.data_files import write_subset
from tests.executor.harness import ScriptedDriver, training
from tests.executor.slowed import Wait

SAMPLES = 630
STEPS_PER_EPOCH = 10
EPOCHS = 3
STEPS = EPOCHS * STEPS_PER_EPOCH
EVERY = 4  # steps between checkpoints

Fault = tuple[str, str, int]
"""Beginning of the task's id, point (faulty_task.py), first step in which it counts."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_subset(tmp_path_factory.mktemp("data"), train=SAMPLES, test=100)


def make_spec(folder: Path, **changes: Any) -> TrainingSpec:
    spec = TrainingSpec(
        model=nn.Sequential(
            nn.Reshape(784), nn.Linear(784, 20), nn.BatchNorm1d(20), nn.Tanh(), nn.Linear(20, 10), nn.LogSoftmax()
        ),
        criterion=nn.NLLLoss(),
        dataset=data.mnist(str(folder)) >> data.normalize(0.286, 0.353),
        optimizer=optim.SGD(learning_rate=0.05, momentum=0.9, weight_decay=1e-4),
        batch_size=64,
        end_when=trigger.max_epoch(EPOCHS),
        engine="numpy",
        validation=Validation(
            trigger.every_epoch(), data.mnist(str(folder), train=False) >> data.normalize(0.286, 0.353),
            [optim.Top1Accuracy()],
        ),
        checkpoint_when=trigger.several_iteration(EVERY),
    )  # fmt: skip
    for name, value in changes.items():
        setattr(spec, name, value)
    return spec


async def train(
    folder: Path, directory: Path, faults: list[Fault], replicas: bool, servers: int = 2, **changes: Any
) -> tuple[str, ScriptedDriver]:
    """Trains with two workers; digest of the weights. Every fault has fired."""
    marks = [directory / f"fault-{number}" for number in range(len(faults))]
    environment = {
        "MESOGRAD_TEST_FAULTS": json.dumps([
            {"task": task, "point": point, "step": step, "mark": str(mark)}
            for (task, point, step), mark in zip(faults, marks, strict=True)
        ]),
        "MESOGRAD_TEST_COMPUTED": str(directory / "computed"),
    }  # fmt: skip
    async with (
        training(
            make_spec(folder, **changes), directory, 0, servers, replicas, module="tests.executor.faulty_task",
            environment=environment, checkpoint_url=str(directory / "checkpoints"),
        ) as driver,
        driver.care(),
    ):  # fmt: skip
        if replicas:
            await driver.until(lambda: len(driver.in_step) >= servers)
        driver.add_worker()
        driver.add_worker()
        finished = await driver.until_finished()
        for (task, _, _), mark in zip(faults, marks, strict=True):
            assert mark.read_text().startswith(task), "the fault did not fire"
        check_reports(driver, directory)
        return finished.weights_sha256, driver


def check_reports(driver: ScriptedDriver, directory: Path) -> None:
    """The driver has heard of everything, and what it makes of it has each step once."""
    assert {e.epoch for e in driver.epochs} == set(range(1, EPOCHS + 1))
    assert all(e.exact and e.samples == SAMPLES for e in driver.epochs)
    assert {v.step for v in driver.validations} == {epoch * STEPS_PER_EPOCH for epoch in range(1, EPOCHS + 1)}
    summary = Summary(directory / "summary")
    for progress in driver.told:
        summary.progress(progress)
    summary.finish(Outcome())
    accumulator = EventAccumulator(str(directory / "summary" / "train"), size_guidance={"scalars": 0})
    accumulator.Reload()
    assert [point.step for point in accumulator.Scalars("Loss")] == list(range(1, STEPS + 1))
    for reports in driver.steps.values():  # a replayed step is the same step
        assert len({(r.loss, r.samples, r.learning_rate) for r in reports}) == 1


def check_no_replay(driver: ScriptedDriver, directory: Path) -> None:
    """No committed step was committed or computed again."""
    attempts = {step: sorted({r.attempt for r in reports}) for step, reports in driver.steps.items()}
    last = 0
    for step in sorted(attempts):
        assert attempts[step][0] >= last, f"step {step} was committed in attempts {attempts[step]}, after {last}"
        last = attempts[step][-1]
    again = [step for step in attempts if len(attempts[step]) > 1]
    assert len(again) < driver.attempt, f"more than the running steps were committed again: {again}"
    newest: dict[str, int] = {}  # of each worker; one may have begun the step after a running one
    for line in (directory / "computed").read_text().splitlines():
        step, _, worker = line.split()
        assert int(step) >= newest.get(worker, 0) - 1, f"step {step} was computed after step {newest[worker]}"
        newest[worker] = max(newest.get(worker, 0), int(step))


@pytest.fixture(scope="module")
def reference(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return asyncio.run(train(folder, tmp_path_factory.mktemp("reference"), [], replicas=False))[0]


POINTS: dict[str, list[Fault]] = {
    "during a push": [("server-0", "push", 5), ("server-1", "push", 14)],
    "between pushes to different servers": [("server-0", "between pushes", 6), ("server-1", "between pushes", 15)],
    "during the reduction": [("server-0", "reduction", 7), ("server-1", "reduction", 14)],
    "while a step is applied": [("server-0", "apply", 6), ("server-1", "apply", 15)],
    "during a commit": [("server-0", "commit", 7), ("server-1", "commit", 14)],
    "when some servers know of a commit": [("server-0", "commit told", 10)],
    "during a checkpoint": [("server-0", "checkpoint", 8), ("server-1", "checkpoint", 16)],
    "before a checkpoint is complete": [("server-0", "manifest", 12)],
    "during a pull": [("server-0", "pull", 5), ("server-1", "pull", 14)],
    "during the restart of another server": [("server-1", "push", 6), ("server-0", "restart", 2)],
}


@pytest.mark.parametrize("point", POINTS)
def test_a_server_dies_and_the_training_replays(folder: Path, tmp_path: Path, reference: str, point: str) -> None:
    digest, driver = asyncio.run(train(folder, tmp_path, POINTS[point], replicas=False))
    assert digest == reference
    assert 2 <= driver.attempt <= 1 + len(POINTS[point])


@pytest.mark.parametrize("point", POINTS)
def test_a_server_dies_and_its_replica_goes_on(folder: Path, tmp_path: Path, reference: str, point: str) -> None:
    digest, driver = asyncio.run(train(folder, tmp_path, POINTS[point], replicas=True))
    assert digest == reference
    assert 2 <= driver.attempt <= 1 + len(POINTS[point])
    check_no_replay(driver, tmp_path)


REPLICA_POINTS: dict[str, list[Fault]] = {
    "when it has received the state": [("replica-0", "state", 0), ("replica-1", "state", 0)],
    "when a step arrives": [("replica-0", "replicate", 5), ("replica-1", "replicate", 14)],
    "when it has applied a step": [("replica-0", "replicated", 6), ("replica-1", "replicated", 15)],
}


@pytest.mark.parametrize("point", REPLICA_POINTS)
def test_a_replica_dies_and_nothing_is_lost(folder: Path, tmp_path: Path, reference: str, point: str) -> None:
    digest, driver = asyncio.run(train(folder, tmp_path, REPLICA_POINTS[point], replicas=True))
    assert digest == reference
    assert driver.attempt == 1
    check_no_replay(driver, tmp_path)


def test_a_server_that_dies_while_its_new_replica_catches_up(folder: Path, tmp_path: Path, reference: str) -> None:
    """It dies as it copies its state: the replica cannot go on, and all begin again."""
    digest, driver = asyncio.run(train(folder, tmp_path, [("server-0", "catching up", 0)], replicas=True))
    assert digest == reference
    assert driver.attempt == 2


def test_a_server_that_was_given_up_but_still_runs_commits_nothing(
    folder: Path, tmp_path: Path, reference: str
) -> None:
    """The only server is stopped, its replica takes over, and the server runs on: it and its book are fenced off."""

    async def work() -> None:
        async with training(
            make_spec(folder), tmp_path, 0, 1, True, module="tests.executor.faulty_task"
        ) as driver:
            await driver.until(lambda: len(driver.in_step) == 1)
            driver.add_worker()
            driver.add_worker()
            await driver.until_step(5)
            old = driver.servers[0]
            old.signal(signal.SIGSTOP)
            driver.promote(0)
            await driver.until(lambda: any(r.attempt == 2 for reports in driver.steps.values() for r in reports))
            old.signal(signal.SIGCONT)
            finished = await driver.until_finished()
            assert finished.weights_sha256 == reference
            first, second = (
                [s for s, reports in driver.steps.items() if any(r.attempt == attempt for r in reports)]
                for attempt in (1, 2)
            )
            assert max(first) <= min(second), "the old server has committed after the new one"
            assert old.process.poll() is None, "the old server did not live to be refused"

    asyncio.run(work())


@pytest.mark.parametrize("replicas", [False, True])
def test_what_a_driver_missed_is_told_though_it_was_away_for_long_and_the_server_died(
    folder: Path, tmp_path: Path, replicas: bool
) -> None:
    """Longer than reports are kept for the case that they were on their way."""
    spec = make_spec(folder)
    spec.model = nn.Sequential(Wait(0.05), spec.model)
    late = tmp_path / "checkpoints" / "step-00000024" / "checkpoint.pb"

    async def work() -> None:
        async with (
            training(spec, tmp_path, 0, 1, replicas, checkpoint_url=str(tmp_path / "checkpoints")) as driver,
            driver.care(),
        ):
            if replicas:
                await driver.until(lambda: len(driver.in_step) == 1)
            driver.add_worker()
            driver.add_worker()
            await driver.until_step(3)
            driver.away = True
            async with asyncio.timeout(60):
                while not late.exists():
                    await asyncio.sleep(0.02)
            assert not driver.epochs, "the driver was not away"
            driver.servers[0].kill()
            driver.away = False
            await driver.until_finished()
            assert driver.attempt == 2
            check_reports(driver, tmp_path)

    asyncio.run(work())
