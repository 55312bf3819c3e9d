"""One of four real workers at a quarter of its speed: training goes on at nearly the speed of the other 3.25."""

import asyncio
import statistics
from pathlib import Path

import pytest

from compute import TrainingSpec, data, nn, optim, trigger
from tests.data_files import write_subset
from tests.executor.harness import ScriptedDriver, training
from tests.executor.slowed import Wait, slowed

WORKERS, MICRO_BATCHES, BATCH = 4, 64, 64
MICRO_BATCH_S = 0.04
STEPS, FULL_SPEED_STEPS = 32, 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_subset(tmp_path_factory.mktemp("data"), train=BATCH * STEPS, test=10)


def make_spec(folder: Path, wait_s: float) -> TrainingSpec:
    model = nn.Sequential(nn.Flatten(), Wait(wait_s), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10), nn.LogSoftmax())
    return TrainingSpec(
        model=model,
        criterion=nn.NLLLoss(),
        dataset=data.mnist(str(folder)) >> data.normalize(0.286, 0.353),
        optimizer=optim.SGD(learning_rate=0.05, momentum=0.9),
        batch_size=BATCH,
        end_when=trigger.max_epoch(1),
        micro_batches=MICRO_BATCHES,
        engine="numpy",
    )


def step_s(driver: ScriptedDriver, first: int, last: int) -> float:
    """Seconds of a step; the lower quartile, since other processes of the machine disturb some steps."""
    seconds = [report.seconds for step in range(first, last + 1) for report in driver.steps[step]]
    return statistics.quantiles(seconds, n=4)[0]


async def undisturbed(folder: Path, directory: Path) -> str:
    async with training(make_spec(folder, 0.0), directory, 1, 1) as driver:
        return (await driver.until_finished()).weights_sha256


async def with_a_slow_worker(folder: Path, directory: Path) -> str:
    async with training(make_spec(folder, MICRO_BATCH_S), directory, WORKERS, 2) as driver:
        await driver.until(lambda: any(r.workers == WORKERS for reports in driver.steps.values() for r in reports))
        complete = max(driver.steps)
        await driver.until_step(complete + FULL_SPEED_STEPS)
        full = step_s(driver, complete + 2, max(driver.steps))
        with slowed(driver.workers()[0], 0.25) as slowing:
            begun = max(driver.steps)
            finished = await driver.until_finished()
        assert slowing.cycles > 20
        assert slowing.share == pytest.approx(0.25, abs=0.05)
        assert all(r.workers == WORKERS for step in range(begun, STEPS + 1) for r in driver.steps[step])
        with_slow = step_s(driver, begun + 4, STEPS)
        assert full > MICRO_BATCH_S * MICRO_BATCHES / WORKERS
        assert full / with_slow >= 0.9 * 3.25 / 4, (full, with_slow)
        assert driver.epochs[-1].exact
        return finished.weights_sha256


def test_a_quarter_of_one_workers_speed_costs_no_more_than_that(folder: Path, tmp_path: Path) -> None:
    slow = asyncio.run(with_a_slow_worker(folder, tmp_path / "slow"))
    assert slow == asyncio.run(undisturbed(folder, tmp_path / "whole"))
