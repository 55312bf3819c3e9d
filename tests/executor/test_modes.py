"""Real workers and servers in every mode and with every compression: what is promised to the last bit, and what not."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from compute import TrainingSpec, Validation, data, models, nn, optim, trigger
from tests.data_files import write_subset
from tests.executor.harness import ScriptedDriver, training

SAMPLES, EPOCHS = 6_430, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_subset(tmp_path_factory.mktemp("data"), train=SAMPLES, test=500)


def make_spec(folder: Path, **changes: Any) -> TrainingSpec:
    settings: dict[str, Any] = {"batch_size": 64, "optimizer": optim.SGD(learning_rate=0.05, momentum=0.9)}
    return TrainingSpec(
        model=models.lenet5(),
        criterion=nn.NLLLoss(),
        dataset=data.mnist(str(folder)) >> data.normalize(0.286, 0.353),
        end_when=trigger.max_epoch(EPOCHS),
        validation=Validation(
            trigger.every_epoch(), data.mnist(str(folder), train=False) >> data.normalize(0.286, 0.353),
            [optim.Top1Accuracy()],
        ),
        **(settings | changes),
    )  # fmt: skip


def accuracy(driver: ScriptedDriver) -> float:
    return driver.validations[-1].metrics["Top1Accuracy"]


async def train(spec: TrainingSpec, directory: Path, workers: int, servers: int) -> tuple[str, float]:
    async with training(spec, directory, workers, servers) as driver:
        finished = await driver.until_finished()
        assert all(e.exact and e.samples == SAMPLES for e in driver.epochs)
        assert [e.epoch for e in driver.epochs] == list(range(1, EPOCHS + 1))
        return finished.weights_sha256, accuracy(driver)


@pytest.mark.parametrize("compression", ["bf16", "fp16"])
def test_rounded_gradients_give_the_same_bits_whoever_computes(folder: Path, tmp_path: Path, compression: str) -> None:
    one, _ = asyncio.run(train(make_spec(folder, compression=compression), tmp_path / "one", 1, 1))
    several, reached = asyncio.run(train(make_spec(folder, compression=compression), tmp_path / "several", 3, 2))
    plain, _ = asyncio.run(train(make_spec(folder), tmp_path / "plain", 1, 1))
    assert one == several
    assert one != plain  # it did round
    assert reached > 0.7


@pytest.mark.parametrize("compression", ["topk:0.05", "8bit", "1bit"])
def test_compression_with_error_feedback_learns(folder: Path, tmp_path: Path, compression: str) -> None:
    _, reached = asyncio.run(train(make_spec(folder, compression=compression), tmp_path, 2, 2))
    assert reached > 0.65


def test_accumulated_batches_are_one_large_one(folder: Path, tmp_path: Path) -> None:
    accumulated = make_spec(folder, batch_size=16, micro_batches=2, accumulate=3)
    one, _ = asyncio.run(train(accumulated, tmp_path / "accumulated", 2, 1))
    large = make_spec(folder, batch_size=48, micro_batches=6)  # six is no power of two, which only users are asked for
    other, _ = asyncio.run(train(large, tmp_path / "large", 1, 1))
    assert one == other


@pytest.mark.parametrize("sync", ["async", "ssp:2"])
def test_each_gradient_on_its_own(folder: Path, tmp_path: Path, sync: str) -> None:
    async def work() -> None:
        spec = make_spec(folder, sync=sync, optimizer=optim.SGD(learning_rate=0.03))
        async with training(spec, tmp_path, 3, 2, checkpoint_url=str(tmp_path / "checkpoints")) as driver:
            await driver.until_step(20)
            assert max(driver.steps) < EPOCHS * SAMPLES / 64 / 2, "too late to kill a worker"
            driver.workers()[0].kill()
            driver.add_worker()
            await driver.until_finished()
            assert [(e.exact, e.samples) for e in driver.epochs] == [(True, SAMPLES)] * EPOCHS
            assert sorted(driver.steps) == list(range(1, EPOCHS * (SAMPLES // 64 + 1) + 1))
            assert accuracy(driver) > 0.65
            assert driver.checkpoints[-1].step == max(driver.steps)

    asyncio.run(work())


def test_a_lost_server_costs_an_asynchronous_job_what_came_after_the_checkpoint(folder: Path, tmp_path: Path) -> None:
    async def work() -> None:
        spec = make_spec(folder, sync="async", optimizer=optim.SGD(learning_rate=0.03))
        spec.checkpoint_when = trigger.several_iteration(25)
        async with training(spec, tmp_path, 2, 2, checkpoint_url=str(tmp_path / "checkpoints")) as driver:
            await driver.until(lambda: bool(driver.checkpoints))
            driver.servers[1].kill()
            await driver.replace_server(1)
            await driver.until_finished()
            assert driver.attempt == 2
            assert {(e.epoch, e.exact, e.samples) for e in driver.epochs} == {(1, True, SAMPLES), (2, True, SAMPLES)}

    asyncio.run(work())
