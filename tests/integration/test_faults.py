"""Faults on a real Mesos cluster, in the middle of an epoch: the weights come out the same to the last bit."""

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scheduler.cluster import EmbeddedCluster
from tests.data_files import FASHION_MNIST
from tests.integration.runs import LENET, WORK, Run, tasks

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("nothing_remains")]

EPOCHS = 2
STOP_S = 20
LONG_EPOCHS = 12  # so long that a worker that stops for STOP_S in epoch 2 works again before the end


def start(
    master: str, workers: int, servers: int, *script: str, epochs: int = EPOCHS, options: tuple[str, ...] = ()
) -> Run:
    return Run.start(
        "--master", master, "--workers", str(workers), "--servers", str(servers), *options,
        LENET, "-f", str(FASHION_MNIST), "-e", str(epochs), *script,
    )  # fmt: skip


def check_epochs(run: Run, epochs: int = EPOCHS, first: int = 1) -> None:
    """Each epoch was reported with each of its samples counted exactly once."""
    exact = re.compile(r"epoch (\d+) done .*: 60000 samples, each sample once")
    done = {int(match[1]) for line in run.lines if (match := exact.match(line))}
    assert done == set(range(first, epochs + 1)), run.output


@pytest.fixture(scope="module")
def reference(cluster: EmbeddedCluster) -> str:
    """Weights of two workers and two servers that nothing happens to."""
    run = start(cluster.master, 2, 2)
    digest = run.weights()
    check_epochs(run)
    return digest


@pytest.fixture(scope="module")
def long_reference(cluster: EmbeddedCluster) -> str:
    """The same for LONG_EPOCHS."""
    return start(cluster.master, 2, 2, epochs=LONG_EPOCHS).weights()


@pytest.mark.parametrize(("workers", "servers"), [(1, 2), (3, 2), (2, 1)])
def test_numbers_of_workers_and_servers(cluster: EmbeddedCluster, reference: str, workers: int, servers: int) -> None:
    run = start(cluster.master, workers, servers)
    run.until("epoch 1 done")
    assert (len(tasks("worker")), len(tasks("server"))) == (workers, servers)
    assert run.weights() == reference
    check_epochs(run)


def test_another_seed_gives_other_weights(cluster: EmbeddedCluster, reference: str) -> None:
    """Guards this file: the digest does depend on what was computed."""
    assert start(cluster.master, 2, 1, "--seed", "2").weights() != reference


def disturb(run: Run, role: str, fault: Callable[[str], None]) -> str:
    """Lets `fault` happen to one task of the role in epoch 2; returns the task's id."""
    run.until("validation at step 235")  # what follows are the steps of epoch 2
    victim = sorted(tasks(role))[0]
    fault(victim)
    assert not any(line.startswith(f"epoch {EPOCHS} done") for line in run.lines), "the fault came after the epoch"
    return victim


def test_a_worker_is_killed(cluster: EmbeddedCluster, reference: str) -> None:
    run = start(cluster.master, 2, 2)
    before: dict[str, int] = {}

    def kill(victim: str) -> None:
        before.update({name: process.pid for name, process in tasks().items()})
        tasks()[victim].kill()

    victim = disturb(run, "worker", kill)
    run.until("worker 0 lost")
    survivors = {name: process.pid for name, process in tasks().items() if name in before}
    assert survivors == {name: pid for name, pid in before.items() if name != victim}, "others were restarted, too"
    assert run.weights() == reference
    check_epochs(run)


@pytest.mark.parametrize("which", [0, 1])
def test_a_server_is_killed(cluster: EmbeddedCluster, reference: str, which: int) -> None:
    run = start(cluster.master, 2, 2)
    disturb(run, f"server-{which}", lambda victim: tasks()[victim].kill())
    run.until(f"server {which} lost")
    assert run.weights() == reference
    check_epochs(run)


def test_a_server_is_killed_and_a_checkpoint_exists(cluster: EmbeddedCluster, reference: str, tmp_path: Path) -> None:
    run = start(cluster.master, 2, 2, "--checkpoint", str(tmp_path / "c"))
    run.until("checkpoint at step 235")
    disturb_at = sorted(tasks("server-1"))[0]
    tasks()[disturb_at].kill()
    run.until("server 1 lost")
    assert run.weights() == reference
    check_epochs(run)


PAUSE_S = 2.0


def test_servers_are_killed_and_their_replicas_go_on(cluster: EmbeddedCluster, reference: str) -> None:
    run = start(cluster.master, 2, 2, options=("--server-replicas", "1"))
    run.until("validation at step 235")
    for which in (0, 1):
        victim = sorted(tasks(f"server-{which}"))[0]
        begun = time.monotonic()
        tasks()[victim].kill()
        run.until(f"server {which} lost .* its replica goes on")
        run.until(f"servers complete again .attempt {which + 2}.: going on with step")
        pause_s = time.monotonic() - begun
        assert pause_s < PAUSE_S, f"{pause_s:.2f} s passed before the next step was committed"
        assert not any(line.startswith(f"epoch {EPOCHS} done") for line in run.lines), "the fault came after the epoch"
    assert run.weights() == reference
    assert not any("replay" in line for line in run.lines)
    check_epochs(run)


def test_an_executor_is_killed_with_all_its_tasks(cluster: EmbeddedCluster, reference: str) -> None:
    run = start(cluster.master, 2, 2)
    disturb(run, "worker-1", lambda victim: tasks()[victim].parent().kill())
    run.until("worker 1 lost")
    assert run.weights() == reference
    check_epochs(run)


def test_a_worker_is_stopped_for_20_s(cluster: EmbeddedCluster, long_reference: str) -> None:
    run = start(cluster.master, 2, 2, epochs=LONG_EPOCHS)
    run.until("validation at step 235")
    victim, process = sorted(tasks("worker").items())[0]
    process.send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    run.until("epoch 2 done")  # by the other worker
    time.sleep(max(STOP_S - (time.monotonic() - begun), 0))  # the length of the stop is the fault itself
    assert process.status() == "stopped"
    cpu = sum(process.cpu_times()[:2])
    process.send_signal(signal.SIGCONT)
    assert run.process.poll() is None, "the training ended before the worker went on"
    run.until(f"epoch {LONG_EPOCHS - 1} done")
    assert tasks()[victim].pid == process.pid, "the worker was replaced"
    assert sum(process.cpu_times()[:2]) > cpu + 0.2, "the worker did not work again"
    assert run.weights() == long_reference
    check_epochs(run, LONG_EPOCHS)


def test_interrupted_and_resumed(cluster: EmbeddedCluster, reference: str, tmp_path: Path) -> None:
    checkpoint = ("--checkpoint", str(tmp_path / "checkpoints"))
    first = start(cluster.master, 2, 2, *checkpoint)
    first.until("validation at step 235")
    first.interrupt()
    assert first.finish() == 130
    step = int(re.findall(r"stopped by SIGINT after step (\d+)", first.output)[0])
    assert 235 <= step < 470, first.output
    (line,) = first.errors
    assert f"a checkpoint was written to {checkpoint[1]}, continue with --resume" in line
    again = start(cluster.master, 2, 2, *checkpoint)
    assert again.finish() in (1, 2)
    assert len(again.errors) == 1
    assert "continue it with --resume" in again.errors[0]
    second = start(cluster.master, 1, 1, *checkpoint, options=("--resume",))
    assert second.weights() == reference
    check_epochs(second, first=1 if step == 235 else 2)


def test_the_leading_master_is_killed(long_reference: str) -> None:
    with EmbeddedCluster(WORK / "three", agents=2, masters=3, ephemeral=True) as cluster:
        run = start(cluster.master, 2, 2, epochs=LONG_EPOCHS)
        run.until("validation at step 235")
        before = {name: process.pid for name, process in tasks().items()}
        leader = next(daemon.name for daemon in cluster.status() if daemon.leading)
        cluster.kill(leader)
        run.until("epoch 2 done")
        assert {name: process.pid for name, process in tasks().items()} == before
        run.until(f"epoch {LONG_EPOCHS - 1} done")
        assert {name: process.pid for name, process in tasks().items()} == before, "something was restarted"
        assert run.weights() == long_reference
        check_epochs(run, LONG_EPOCHS)
        leaders = [daemon.name for daemon in cluster.status() if daemon.leading]
        assert leaders
        assert leader not in leaders
