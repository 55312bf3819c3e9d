"""Updates that need sums over all servers, or rates that follow the training: however many servers hold the vector,
whichever of them dies, and at the moment when the others wait for it, the weights are the same to the last bit.
"""

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from compute import TrainingSpec, Validation, data, models, nn, optim, schedule, trigger
from proto import control_pb2 as control
from tests.data_files import write_subset
from tests.executor.harness import ScriptedDriver, training

STEPS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_subset(tmp_path_factory.mktemp("data"), train=640, test=100)


def plateau(monitor: str, mode: str) -> schedule.Plateau:
    """Reduces the rate at nearly every observation, so that one that is missed or counted twice shows."""
    return schedule.Plateau(monitor, factor=0.8, patience=0, mode=mode, threshold=0.02, cooldown=1)


def network() -> nn.Module:
    """Statistics that are averaged and some that are frozen, regularizers, rates of one's own."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, name="first").freeze(), nn.BatchNorm2d(6, name="still").freeze(), nn.ReLU(), nn.MaxPool2d(4),
        nn.Conv2d(6, 20, 3).regularize(nn.L1L2(1e-4, 1e-3)), nn.BatchNorm2d(20).scale_rate(0.5), nn.ReLU(),
        nn.Flatten(), nn.Linear(320, 10, name="head"), nn.LogSoftmax(),
    )  # fmt: skip


JOBS: dict[str, dict[str, Any]] = {
    "norms": {
        "optimizer": {
            "": optim.LARS(0.5, trust_coefficient=0.02, schedule=plateau("Top1Accuracy", "max")),
            "conv2_5x5": optim.Adam(1e-3, schedule=plateau("loss", "max")),
            "fc2.bias": optim.SGD(0.05, momentum=0.9),
        },
        "clip": optim.ClipNorm(0.5),
    },
    "layers": {
        "model": network(), "clip": optim.ClipNorm(1.0),
        "optimizer": {"": optim.Adam(0.01), "head": optim.SGD(0.1, 0.9, nesterov=True)},
    },
    "lbfgs": {"optimizer": optim.LBFGS(history_size=4), "batch_size": 640},
}  # fmt: skip


def make_spec(folder: Path, job: str, **changes: Any) -> TrainingSpec:
    normalize = data.normalize(0.286, 0.353)
    settings = {
        "model": models.lenet5(), "criterion": nn.NLLLoss(), "dataset": data.mnist(str(folder)) >> normalize,
        "batch_size": 64, "end_when": trigger.max_iteration(STEPS),
        "validation": Validation(
            trigger.several_iteration(5), data.mnist(str(folder), train=False) >> normalize, [optim.Top1Accuracy()]
        ),
        "checkpoint_when": trigger.several_iteration(8),
        **JOBS[job], **changes,
    }  # fmt: skip
    spec = TrainingSpec(**settings)
    spec.check()
    return spec


def rates(driver: ScriptedDriver) -> list[tuple[tuple[str, float], ...]]:
    """The learning rates of every step, by prefix; a replayed step had the same ones."""
    found = []
    for step in range(1, STEPS + 1):
        reports = driver.steps[step]
        said = {(r.loss, r.learning_rate, *sorted(r.learning_rates.items())) for r in reports}
        assert len(said) == 1, (step, said)
        found.append(tuple(sorted({**reports[0].learning_rates, "main": reports[0].learning_rate}.items())))
    return found


Outcome = tuple[str, list[tuple[tuple[str, float], ...]]]


async def undisturbed(folder: Path, directory: Path, job: str, workers: int, servers: int) -> Outcome:
    async with training(make_spec(folder, job), directory, workers, servers) as driver:
        finished = await driver.until_finished()
        return finished.weights_sha256, rates(driver)


@pytest.fixture(scope="module", params=JOBS)
def reference(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A job, and what comes out of it with one worker and one server."""
    job = request.param
    return job, asyncio.run(undisturbed(folder, tmp_path_factory.mktemp(job), job, 1, 1))


@pytest.mark.parametrize("servers", [2, 3])
def test_the_number_of_servers_does_not_show(folder: Path, tmp_path: Path, reference: Any, servers: int) -> None:
    job, outcome = reference
    assert asyncio.run(undisturbed(folder, tmp_path, job, 2, servers)) == outcome
    if job == "norms":
        assert len({dict(now)["main"] for now in outcome[1]}) > 3, "the schedule changed nothing"
        assert len({dict(now)["conv2_5x5"] for now in outcome[1]}) > 2
        assert {dict(now)["fc2.bias"] for now in outcome[1]} == {0.05}


async def disturbed(folder: Path, directory: Path, job: str, index: int) -> Outcome:
    async with training(
        make_spec(folder, job), directory, 2, 2, checkpoint_url=str(directory / "checkpoints")
    ) as driver:
        await driver.until_step(12)
        # Stopped, so that the other server is left waiting for it with its own tree complete; then killed.
        driver.servers[index].signal(signal.SIGSTOP)
        await asyncio.sleep(1.0)  # the length of the stop is the fault itself
        assert max(driver.steps) < STEPS
        driver.servers[index].kill()
        await driver.replace_server(index)
        finished = await driver.until_finished()
        assert driver.attempt == 2
        again = [step for step, reports in driver.steps.items() if any(r.attempt == 2 for r in reports)]
        assert min(again) > 1
        assert min(again) % 8 == 1
        return finished.weights_sha256, rates(driver)


@pytest.mark.parametrize("index", [0, 1])
def test_a_server_that_dies_while_the_other_waits_for_it_does_not_show(
    folder: Path, tmp_path: Path, reference: Any, index: int
) -> None:
    job, outcome = reference
    assert asyncio.run(disturbed(folder, tmp_path, job, index)) == outcome


def test_a_job_resumes_on_another_number_of_servers(folder: Path, tmp_path: Path, reference: Any) -> None:
    job, outcome = reference
    url = str(tmp_path / "checkpoints")

    async def both() -> Outcome:
        async with training(make_spec(folder, job), tmp_path / "first", 2, 2, checkpoint_url=url) as first:
            await first.until_step(10)
            first.stop(checkpoint=True)
            finished = await first.until_finished()
            assert finished.reason == control.Finished.STOPPED
            assert finished.step < STEPS
        async with training(
            make_spec(folder, job), tmp_path / "second", 1, 3, checkpoint_url=url, resume=True
        ) as second:
            done = await second.until_finished()
            assert min(second.steps) == finished.step + 1
            for step in range(1, finished.step + 1):
                second.steps[step] = first.steps[step]
            return done.weights_sha256, rates(second)

    assert asyncio.run(both()) == outcome
