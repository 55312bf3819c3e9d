"""What a run leaves: results, TensorBoard files, and nothing else, however it ends."""

import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scheduler.cluster import EmbeddedCluster
from tests.data_files import FASHION_MNIST
from tests.integration.runs import LENET, WORK, Run, leftovers, processes, tasks

pytestmark = pytest.mark.cluster

FULL = (LENET, "-f", str(FASHION_MNIST))
LOCAL = ("--master", "local[2]", "--workers", "2", "--servers", "2")


def listening_ports() -> set[int]:
    """TCP ports that our processes listen on."""
    ports = set()
    for process, _ in processes().values():
        ports |= {c.laddr.port for c in process.net_connections("tcp") if c.status == "LISTEN"}
    return ports


def until_process(name: str) -> None:
    """Waits until a process of that name runs."""
    deadline = time.monotonic() + 30
    while not any(name in " ".join(command) for _, command in processes().values()):
        assert time.monotonic() < deadline, f"no {name} has been started"


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Neither processes (but a cluster's that was there before) nor clusters of `local[N]`."""
    before = set(leftovers())
    yield
    assert [line for line in leftovers() if line not in before] == []
    assert list(WORK.glob("mesograd-cluster-*")) == []


def test_first_light(tmp_path: Path) -> None:
    """Three epochs on an embedded cluster: the accuracy, and all that TensorBoard is to find."""
    run = Run.start(*LOCAL, *FULL, "-e", "3", "--summary", str(tmp_path / "summary"))
    run.until("epoch 1 done")
    hosts = {process.environ()["MESOS_SLAVE_ID"] for process in tasks().values()}
    assert len(hosts) == 2, "not both agents were used"
    assert len(listening_ports()) >= 3 + 2  # a master, two agents, two servers
    digest = run.weights()
    assert re.fullmatch(r"[0-9a-f]{64}", digest)
    (accuracy,) = (float(line.split()[-1]) for line in run.lines if line.startswith("test accuracy: "))
    assert accuracy >= 0.87, run.output
    assert processes() == {}

    train = EventAccumulator(str(tmp_path / "summary" / "train")).Reload()
    for tag in ("Loss", "Throughput", "LearningRate"):
        events = train.Scalars(tag)
        assert [event.step for event in events] == list(range(1, 3 * 235 + 1)), tag
        assert all(event.value > 0 for event in events)
    assert train.Scalars("Loss")[-1].value < 0.6 < train.Scalars("Loss")[0].value
    validation = EventAccumulator(str(tmp_path / "summary" / "validation")).Reload()
    events = validation.Scalars("Top1Accuracy")
    assert [event.step for event in events] == [235, 470, 705]
    assert events[-1].value == pytest.approx(accuracy, abs=1e-4)


def test_summaries_of_an_interrupted_and_resumed_run_have_one_point_per_step(tmp_path: Path) -> None:
    paths = ("--summary", str(tmp_path / "summary"), "--checkpoint", str(tmp_path / "checkpoints"))
    run = Run.start(*LOCAL, *FULL, "-e", "2", *paths)
    run.until("validation at step 235")
    run.interrupt()
    assert run.finish() == 130
    assert Run.start(*LOCAL, "--resume", *FULL, "-e", "2", *paths).finish() == 0
    train = EventAccumulator(str(tmp_path / "summary" / "train")).Reload()
    assert [event.step for event in train.Scalars("Loss")] == list(range(1, 2 * 235 + 1))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("moment", ["cluster starts", "tasks start", "mid-epoch"])
def test_signals(number: signal.Signals, code: int, moment: str, tmp_path: Path) -> None:
    run = Run.start(*LOCAL, *FULL, "-e", "5")
    if moment == "mid-epoch":
        run.until("validation at step 235")
    else:
        until_process("mesos-master" if moment == "cluster starts" else "executor.task")
    run.process.send_signal(number)
    assert run.finish(40) == code, run.output
    assert run.errors[-1].startswith("mesograd: stopped by") or "interrupted" in run.errors[-1]
    assert not any("Traceback" in line for line in run.errors), run.output
    assert processes() == {}


def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    run = Run.start(*LOCAL, *FULL, "-e", "50")
    run.until("epoch 1 done")
    for process in tasks("server").values():
        process.suspend()  # so that the first one's orderly stop cannot come to an end
    run.interrupt()
    with pytest.raises(AssertionError, match="did not end"):
        run.finish(2, kill=False)
    run.interrupt()
    assert run.finish(20) == 130, run.output
    assert processes() == {}


def test_a_driver_that_is_killed_leaves_no_embedded_cluster(tmp_path: Path) -> None:
    run = Run.start(*LOCAL, *FULL, "-e", "50")
    run.until("epoch 1 done")
    watched = [process for process, _ in processes().values()]
    assert len(watched) >= 3 + 2 + 4
    run.process.kill()
    run.finish()
    for process in watched:
        process.wait(20)
    assert processes() == {}
    for directory in WORK.glob("mesograd-cluster-*"):
        raise AssertionError(f"{directory} is left")


def test_success_failure_and_signals_leave_no_framework(
    cluster: EmbeddedCluster, nothing_remains: Callable[[], None], tmp_path: Path
) -> None:
    master = ("--master", cluster.master, "--workers", "2")
    assert Run.start(*master, *FULL, "-e", "1").finish() == 0
    nothing_remains()
    assert Run.start(*master, *FULL, "-e", "1", "--learning-rate", "1e30").finish() == 1
    nothing_remains()
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        run = Run.start(*master, *FULL, "-e", "5")
        run.until("epoch 1 done")
        run.process.send_signal(number)
        assert run.finish() == code
        nothing_remains()
