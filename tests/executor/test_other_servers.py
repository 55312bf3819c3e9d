"""Servers are added and removed while a job runs: slices are cut anew, no step is computed again, no bit changes."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from compute import TrainingSpec, data, nn, optim, schedule, trigger
from executor.slice_handover import parts_of
from executor.step_plan import slice_bounds
from tests.data_files import write_subset
from tests.executor.harness import ScriptedDriver, training

STEPS_PER_EPOCH = 8
EPOCHS = 6
STEPS = EPOCHS * STEPS_PER_EPOCH

Plan = Callable[[ScriptedDriver], Awaitable[None]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_subset(tmp_path_factory.mktemp("data"), train=500, test=100)


def make_spec(folder: Path, **changes: Any) -> TrainingSpec:
    spec = TrainingSpec(
        model=nn.Sequential(
            nn.Reshape(784), nn.Linear(784, 20), nn.BatchNorm1d(20), nn.Tanh(), nn.Linear(20, 10), nn.LogSoftmax()
        ),
        criterion=nn.NLLLoss(),
        dataset=data.mnist(str(folder)) >> data.normalize(0.286, 0.353),
        optimizer=optim.Adam(learning_rate=0.01),
        batch_size=64,
        end_when=trigger.max_epoch(EPOCHS),
        engine="numpy",
        checkpoint_when=trigger.several_iteration(3),
    )  # fmt: skip
    for name, value in changes.items():
        setattr(spec, name, value)
    return spec


async def train(
    folder: Path, directory: Path, servers: int, plan: Plan, replicas: bool = False, url: str = "",
    faults: list[dict[str, Any]] | None = None, **changes: Any,
) -> tuple[str, ScriptedDriver]:  # fmt: skip
    """Digest of the weights; every step has counted."""
    environment = {"MESOGRAD_TEST_FAULTS": json.dumps(faults or [])}
    async with training(
        make_spec(folder, **changes), directory, 2, servers, replicas, module="tests.executor.faulty_task",
        environment=environment, checkpoint_url=url,
    ) as driver:  # fmt: skip
        await plan(driver)
        finished = await driver.until_finished()
        assert set(driver.steps) == set(range(1, STEPS + 1))
        assert all(epoch.exact for epoch in driver.epochs)
        assert {epoch.epoch for epoch in driver.epochs} == set(range(1, EPOCHS + 1))
        return finished.weights_sha256, driver


async def nothing(_: ScriptedDriver) -> None:
    pass


def resizing(*stages: tuple[int, int]) -> Plan:
    """At step s, that many servers; more than one stage one after the other."""

    async def plan(driver: ScriptedDriver) -> None:
        for step, servers in stages:
            await driver.until_step(step)
            await driver.resize(servers)

    return plan


@pytest.fixture(scope="module")
def reference(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return asyncio.run(train(folder, tmp_path_factory.mktemp("reference"), 2, nothing))[0]


def test_more_and_fewer_servers_without_any_replay(folder: Path, tmp_path: Path, reference: str) -> None:
    digest, driver = asyncio.run(train(folder, tmp_path, 2, resizing((3, 4), (7, 1), (10, 3))))
    assert digest == reference
    assert driver.attempt == 4
    attempts = {step: {report.attempt for report in reports} for step, reports in driver.steps.items()}
    assert all(len(found) == 1 for found in attempts.values()), "a step was committed twice"
    assert set.union(*attempts.values()) == {1, 2, 3, 4}, "there were steps in every attempt"


def test_a_norm_over_all_servers_and_a_schedule_that_learns(folder: Path, tmp_path: Path) -> None:
    changes = {
        "clip": optim.ClipNorm(0.5),
        "optimizer": optim.SGD(learning_rate=0.05, momentum=0.9, schedule=schedule.Plateau("loss", patience=1)),
    }
    still, _ = asyncio.run(train(folder, tmp_path / "still", 1, nothing, **changes))
    moved, driver = asyncio.run(train(folder, tmp_path / "moved", 1, resizing((5, 3)), **changes))
    assert moved == still
    assert driver.attempt == 2


def test_replicas_follow_the_new_slices(folder: Path, tmp_path: Path, reference: str) -> None:
    """With replicas a server may be lost right after, without a replay."""

    async def plan(driver: ScriptedDriver) -> None:
        await driver.until(lambda: len(driver.in_step) == 2)
        await driver.until_step(3)
        driver.in_step.clear()
        await driver.resize(3, replicas=True)
        await driver.until(lambda: len(driver.in_step) == 3)
        lost = driver.servers[1]
        lost.kill()
        driver.replace_lost()

    digest, driver = asyncio.run(train(folder, tmp_path, 2, plan, replicas=True))
    assert digest == reference
    attempts = {step: {report.attempt for report in reports} for step, reports in driver.steps.items()}
    assert sum(len(found) > 1 for found in attempts.values()) <= 1, "more than the running step was committed again"


def test_a_new_server_that_dies_while_it_gathers_its_slice(folder: Path, tmp_path: Path, reference: str) -> None:
    """Then all go back to the checkpoint, with as many servers as were asked for."""
    mark = tmp_path / "fault"

    async def plan(driver: ScriptedDriver) -> None:
        await driver.until_step(5)
        await driver.resize(3)
        lost = driver.servers[2]
        await asyncio.to_thread(lost.process.wait)
        driver.replace_lost()

    fault = {"task": "server-2", "point": "gathered", "step": 0, "mark": str(mark)}
    digest, driver = asyncio.run(
        train(folder, tmp_path, 2, plan, url=str(tmp_path / "checkpoints"), faults=[fault])
    )
    assert mark.read_text().startswith("server-2"), "the fault did not fire"
    assert digest == reference
    assert driver.attempt == 3


@pytest.mark.parametrize("parameters", [1, 1000, 61_706, 14_990_922])
def test_parts_cover_every_slice_once(parameters: int) -> None:
    for before in (1, 2, 3, 7):
        for after in (1, 2, 5):
            for index in range(after):
                begin, end = slice_bounds(parameters, after, index)
                at = begin
                for former, first, last in parts_of(parameters, ["x"] * before, begin, end):
                    low, high = slice_bounds(parameters, before, former)
                    assert (first, low <= first < last <= high) == (at, True)
                    at = last
                assert at == end
