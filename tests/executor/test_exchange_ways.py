"""Tensors over gRPC, lanes and through shared memory: the same bits, and each way only where it was asked for."""

import asyncio
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from compute import checkpoint, trigger
from proto import control_pb2 as control
from tests.data_files import write_subset
from tests.executor.harness import TaskProcess, training
from tests.executor.test_partial_pushes import wide

STEPS = 100


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_subset(tmp_path_factory.mktemp("data"), train=640, test=100)


def shared_mappings(task: TaskProcess) -> int:
    """How many segments, of its own and of others, a process has mapped."""
    maps = Path(f"/proc/{task.process.pid}/maps").read_text()
    return len({line.split()[4] for line in maps.splitlines() if "/memfd:mesograd" in line})


def lanes_of(server: TaskProcess) -> int:
    """How many connections there are to a server's port for lanes."""
    port = int(server.lanes.rpartition(":")[2])
    connections = psutil.Process(server.process.pid).net_connections("tcp")
    # Each end of a lane has two descriptors; they are of one connection.
    return len({c.raddr for c in connections if c.status == psutil.CONN_ESTABLISHED and c.laddr.port == port})


def test_all_ways_give_the_same_bits(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of several pieces, two workers and two servers; with ways of their own, a worker is killed."""

    async def weights(way: str, kill: bool = False) -> str:
        monkeypatch.setenv("MESOGRAD_EXCHANGE", way)
        spec = wide(folder, STEPS)
        async with training(spec, tmp_path / f"{way}{kill}", workers=2, servers=2) as driver:
            tasks = [*driver.servers, *driver.workers()]
            if way == "shm":  # each has its own memory, and at least that of another process
                await driver.until(lambda: min(map(shared_mappings, tasks)) >= 2)
            if way != "grpc":
                await driver.until(lambda: [lanes_of(server) for server in driver.servers] == [2, 2])
            await driver.until_step(STEPS // 4)
            if way != "shm":
                assert not any(map(shared_mappings, tasks))
            if way == "grpc":
                assert not any(map(lanes_of, driver.servers))
            if kill:
                assert max(driver.steps) < STEPS, "the fault came too late"
                driver.workers()[0].kill()
            return (await driver.until_finished()).weights_sha256

    async def all_ways() -> set[str]:
        return {await weights("grpc"), await weights("tcp", kill=True), await weights("shm", kill=True)}

    assert len(asyncio.run(all_ways())) == 1


def test_rounded_parameters_are_the_same_whoever_computes_and_however_they_come(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the servers' own, which they update and save, are not rounded."""

    async def weights(way: str, compression: str, workers: int, servers: int, kill: bool = False) -> str:
        monkeypatch.setenv("MESOGRAD_EXCHANGE", way)
        spec = replace(wide(folder, STEPS), parameter_compression=compression, checkpoint_when=trigger.every_epoch())
        directory = tmp_path / f"{way}-{compression}-{workers}"
        checkpoints = directory / "checkpoints"
        async with training(spec, directory, workers, servers, checkpoint_url=str(checkpoints)) as driver:
            await driver.until_step(STEPS // 4)
            if kill:
                assert max(driver.steps) < STEPS, "the fault came too late"
                driver.workers()[0].kill()
            finished = await driver.until_finished()
        url = checkpoint.step_url(str(checkpoints), finished.step)
        manifest = checkpoint.read_manifest(url)
        saved = checkpoint.load_slice(url, manifest, 0, manifest.parameters)["parameters"]
        assert hashlib.sha256(saved.tobytes()).hexdigest() == finished.weights_sha256
        assert (saved.view(np.uint32) & 0xFFFF).any()
        return finished.weights_sha256

    async def all_ways() -> set[str]:
        return {
            await weights("tcp", "bf16", 2, 2, kill=True), await weights("shm", "bf16", 2, 2),
            await weights("grpc", "bf16", 1, 1),
        }  # fmt: skip

    assert len(found := asyncio.run(all_ways())) == 1
    assert asyncio.run(weights("auto", "none", 1, 1)) not in found


def test_insisting_on_shared_memory_where_there_is_none(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failure() -> control.Failure:
        monkeypatch.setenv("MESOGRAD_EXCHANGE", "tcp")
        async with training(wide(folder), tmp_path, workers=0, servers=1) as driver:
            os.environ["MESOGRAD_EXCHANGE"] = "shm"  # monkeypatch undoes it
            driver.add_worker()
            with pytest.raises(AssertionError, match="failed"):
                await driver.until_finished()
            return driver.failures[0]

    found = asyncio.run(failure())
    assert found.kind == control.Failure.INPUT
    assert found.summary == (
        "--exchange shm, but server 0 cannot share memory (it was told to use TCP): use auto or tcp"
    )
