"""The driver is killed (SIGKILL) at any moment and started again: the job does not notice."""

import os
import re
import signal
import statistics
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scheduler.attach import known_jobs
from scheduler.cluster import EmbeddedCluster
from scheduler.outcome import EXIT_SUPERSEDED
from scheduler.state_store_sqlite import SqliteStates
from tests.cluster.waiting import wait_until
from tests.data_files import write_subset
from tests.integration.dying_driver import MOMENTS
from tests.integration.runs import CLI, LENET, STATE, WORK, Run, command, leftovers, tasks
from tests.zookeeper import running_zookeeper

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("nothing_remains")]

DYING = str(Path(__file__).with_name("dying_driver.py"))
EPOCHS, TRAIN = 4, 6400
CONTROL_S = 10.0  # from the start of a driver to its control

# A step takes about 0.2 s whatever else this machine does: each of its four micro-batches sleeps.
PACED = """
import sys, time
from compute import data, nn, optim, trigger
from scheduler import TrainingJob

class Pace(data.Transform):
    def apply(self, x, target, stream):
        time.sleep(0.05)
        return x, target

job = TrainingJob(
    model=nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.LogSoftmax()),
    criterion=nn.NLLLoss(),
    dataset=data.mnist(sys.argv[1]) >> data.normalize(0.3, 0.35) >> Pace(),
    optimizer=optim.SGD(0.1),
    batch_size=64, micro_batches=4, end_when=trigger.max_iteration(int(sys.argv[2])),
)
job.checkpoint(sys.argv[3], trigger.max_iteration(10**9))
job.summary(sys.argv[3] + "-summary")
job.run()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_subset(tmp_path_factory.mktemp("data"), train=TRAIN, test=1000)


@pytest.fixture(scope="module")
def paced(tmp_path_factory: pytest.TempPathFactory) -> str:
    script = tmp_path_factory.mktemp("script") / "paced.py"
    script.write_text(textwrap.dedent(PACED))
    return str(script)


class Runs:
    """All that a test starts; nothing of it may be left."""

    def __init__(self) -> None:
        self._runs: list[Run] = []

    def start(self, *arguments: str, program: tuple[str, ...] = CLI) -> Run:
        self._runs.append(Run.start(*arguments, program=program))
        return self._runs[-1]

    def attach(self, *options: str) -> Run:
        """Starts another driver for the job that lost its own; returns when it is in control, in time."""
        begun = time.monotonic()
        run = self.start("--attach", *options)
        run.until("in control of ")
        assert time.monotonic() - begun < CONTROL_S
        return run

    def clean_up(self) -> list[str]:
        """Ends what still runs; returns what that was."""
        running = [run for run in self._runs if run.process.poll() is None]
        for run in running:
            run.process.kill()
            run.finish()
        lost = [job.job_id for job in known_jobs(str(STATE)) if job.state == "driver lost"]
        for job_id in lost:
            command("kill", job_id)
        return lost


@pytest.fixture
def runs() -> Iterator[Runs]:
    started = Runs()
    yield started
    assert started.clean_up() == []


def job_of(run: Run) -> str:
    """Id of the job that it drives."""
    (job_id,) = (job.job_id for job in known_jobs(str(STATE)) if f"process {run.process.pid} on" in job.detail)
    return job_id


def reported(job_id: str) -> int:
    """The step up to which a job's progress is known to be safe."""
    store = SqliteStates(STATE).store(job_id)
    try:
        return int(store.load().get("progress", {}).get("step", 0))
    finally:
        store.close()


def arguments(cluster: EmbeddedCluster, *more: str, workers: int = 1) -> tuple[str, ...]:
    return ("--master", cluster.master, "--workers", str(workers), "--servers", "2", *more)


@pytest.fixture(scope="module")
def reference(cluster: EmbeddedCluster, folder: Path) -> str:
    return Run.start(*arguments(cluster, LENET, "-f", str(folder), "-e", str(EPOCHS))).weights()


def pids(job_id: str = "") -> dict[str, int]:
    return {task_id: process.pid for task_id, process in tasks().items() if task_id.startswith(job_id)}


# One job each: its driver dies at the first moment, the one that follows at the second, and so on; the last one lives.
CHAINS = [
    (
        "subscribed, and does not know it yet",
        "the launch is written, not sent",
        "the launch is sent",
        "the first task says hello",
        "validating",
        "finished, and has not written it",
        "closing tasks",
    ),
    ("before it subscribes", "the FrameworkID is saved", "the launch is sent", "closing executors"),
    ("validating", "torn down"),
]


def test_every_moment_is_tried() -> None:
    assert {moment for chain in CHAINS for moment in chain} | {"told to stop"} == set(MOMENTS)


@pytest.mark.parametrize("chain", CHAINS, ids=[chain[0] for chain in CHAINS])
def test_killed_when(
    runs: Runs, cluster: EmbeddedCluster, folder: Path, reference: str, tmp_path: Path, chain: tuple[str, ...]
) -> None:
    lines: list[str] = []
    alive: dict[str, int] = {}
    start = arguments(cluster, LENET, "-f", str(folder), "-e", str(EPOCHS), "--summary", str(tmp_path))
    for moment in chain:
        run = runs.start(*start, program=(DYING, moment))
        assert run.finish() == -signal.SIGKILL, (moment, run.output)
        lines += run.lines
        now = pids()
        assert {task_id: now.get(task_id, pid) for task_id, pid in alive.items()} == alive, moment
        if not moment.startswith(("finished", "closing", "torn down")):
            assert alive.keys() <= now.keys(), f"a task died with the driver: {moment}"
        alive = now
        assert "driver lost" in command("jobs")
        start = ("--attach",)
    last = runs.start(*start)
    assert last.weights() == reference
    assert last.errors == []
    job_id = max(known_jobs(str(STATE)), key=lambda job: job.begun_s).job_id
    ran = {path.stem for path in (WORK / "cluster").rglob(f"{job_id}.*.stdout")}
    slots = [task_id.rsplit(".", 1)[0] for task_id in ran]
    assert len(slots) == len(set(slots)) == 3, f"a task was replaced, or launched twice: {ran}"
    # Each step has one point, though several drivers wrote them; each epoch is told, and no driver saw it otherwise.
    train = EventAccumulator(str(tmp_path / "train")).Reload()
    assert [event.step for event in train.Scalars("Loss")] == list(range(1, EPOCHS * TRAIN // 256 + 1))
    validation = EventAccumulator(str(tmp_path / "validation")).Reload()
    assert [event.step for event in validation.Scalars("Top1Accuracy")] == [25 * (n + 1) for n in range(EPOCHS)]
    told = [line for line in lines + last.lines if re.match(r"epoch \d+ done", line)]
    assert len(set(told)) == EPOCHS


def test_training_does_not_wait_for_its_driver(
    runs: Runs, cluster: EmbeddedCluster, folder: Path, paced: str, tmp_path: Path
) -> None:
    """Two deaths in one run; no task is replaced, and the steps around a death take no longer than others."""
    steps = 110
    undisturbed = runs.start(*arguments(cluster, paced, str(folder), str(steps), str(tmp_path / "a")))
    run = runs.start(*arguments(cluster, paced, str(folder), str(steps), str(tmp_path / "b")))
    run.until("epoch 1  step")
    job_id = job_of(run)
    before = pids(job_id)
    assert len(before) == 3
    deaths = []
    for _ in range(2):
        run.until(r"epoch \d  step")  # the next line comes some 25 steps after the first
        if deaths:
            run.until(r"epoch \d  step")
        run.process.kill()
        run.finish()
        deaths.append(reported(job_id))
        run = runs.attach(job_id)
        assert pids(job_id) == before
    assert run.weights() == undisturbed.weights()
    train = EventAccumulator(str(tmp_path / "b-summary" / "train")).Reload()
    seconds = [64 / event.value for event in train.Scalars("Throughput")]
    assert len(seconds) == steps
    usual = statistics.median(seconds)
    assert usual > 0.15, "the pace is not what this test means"
    # Around each death; other processes of a busy machine may disturb one of them, but a step that waits shows in all.
    assert 5 < deaths[0] < deaths[0] + 20 < deaths[1] < deaths[1] + 20 < steps, deaths
    longest = [max(seconds[step : step + 20]) for step in deaths]
    assert min(longest) < 2 * usual, (usual, longest)


def test_attached_while_there_is_no_master(
    runs: Runs, cluster: EmbeddedCluster, folder: Path, paced: str, tmp_path: Path
) -> None:
    """The new driver has its tasks at once, and shows their steps; the master gets the job back when it comes."""
    steps = 60
    undisturbed = runs.start(*arguments(cluster, paced, str(folder), str(steps), str(tmp_path / "u"))).weights()
    run = runs.start(*arguments(cluster, paced, str(folder), str(steps), str(tmp_path / "m")))
    run.until("epoch 1  step")
    job_id, before = job_of(run), pids()
    cluster.kill("master-1")
    try:
        run.process.kill()
        run.finish()
        run = runs.start("--attach", job_id)
        run.until(r"epoch \d  step")
        assert cluster.pid("master-1") is None
        assert pids() == before
    finally:
        cluster.start("master-1")
    assert run.weights() == undisturbed
    assert run.errors == []


def test_killed_while_it_stops_the_job(
    runs: Runs, cluster: EmbeddedCluster, folder: Path, paced: str, tmp_path: Path
) -> None:
    """The order is carried on: a checkpoint is written, and the exit code is that of the signal."""
    script = (paced, str(folder), "10000", str(tmp_path / "c"))
    first = runs.start(*arguments(cluster, *script), program=(DYING, "told to stop"))
    first.until("epoch 1  step")
    first.process.send_signal(signal.SIGTERM)
    assert first.finish() == -signal.SIGKILL, first.output
    again = runs.start("--attach")
    assert again.finish() == 128 + signal.SIGTERM, again.output
    assert "a checkpoint was written to" in again.errors[-1], again.output
    assert list((tmp_path / "c").iterdir())


def test_of_two_that_attach_one_wins(
    runs: Runs, cluster: EmbeddedCluster, folder: Path, paced: str, tmp_path: Path
) -> None:
    first = runs.start(*arguments(cluster, paced, str(folder), "40", str(tmp_path / "d")))
    first.until("epoch 1  step")
    job_id = job_of(first)
    refused = runs.start("--attach", job_id)
    assert refused.finish() == 2
    assert f"process {first.process.pid} on " in refused.errors[0]
    before = pids()
    first.process.kill()
    first.finish()
    both = [runs.start("--attach", job_id) for _ in range(2)]
    codes = [run.finish() for run in both]
    assert sorted(codes) == [0, 2], [run.output for run in both]
    loser = both[codes.index(2)]
    assert len(loser.errors) == 1
    assert f"job {job_id} has a driver" in loser.errors[0]
    assert pids().items() <= before.items()
    # Who comes when it is all over is told how it ended.
    late = runs.start("--attach", job_id)
    assert late.weights() == both[codes.index(0)].weights()


def test_a_driver_that_hung_is_fenced(
    runs: Runs, cluster: EmbeddedCluster, folder: Path, paced: str, tmp_path: Path
) -> None:
    """It is stopped, its job taken over by another at another address; when it goes on it leaves all alone."""
    first = runs.start(*arguments(cluster, paced, str(folder), "60", str(tmp_path / "e")))
    first.until("epoch 1  step")
    before = pids()
    job_id = job_of(first)
    os.kill(first.process.pid, signal.SIGSTOP)
    second = runs.attach(job_id, "--take-over")
    os.kill(first.process.pid, signal.SIGCONT)
    assert first.finish(20) == EXIT_SUPERSEDED, first.output
    (line,) = first.errors
    assert re.fullmatch(rf"mesograd: another driver.* has taken over job {job_id}; this one leaves it alone", line)
    assert pids() == before
    assert second.process.poll() is None
    assert re.search(rf"{job_id} .* running: driver: process {second.process.pid} on ", command("jobs"))
    second.weights()
    train = EventAccumulator(str(tmp_path / "e-summary" / "train")).Reload()
    assert [event.step for event in train.Scalars("Loss")] == list(range(1, 61))


def test_state_in_zookeeper(runs: Runs, cluster: EmbeddedCluster, folder: Path, reference: str, tmp_path: Path) -> None:
    with running_zookeeper(tmp_path) as address:
        state = ("--state", f"zk://user:word@{address}/mesograd/jobs")
        first = runs.start(*arguments(cluster, *state, LENET, "-f", str(folder), "-e", str(EPOCHS)))
        first.until("epoch 1 done")
        first.process.kill()
        first.finish()
        assert "driver lost" in command("jobs", *state)
        assert "driver lost" not in command("jobs")
        assert runs.start("--attach", *state).weights() == reference
        assert "finished" in command("jobs", *state)


def test_a_lost_job_is_killed(runs: Runs, cluster: EmbeddedCluster, folder: Path, paced: str, tmp_path: Path) -> None:
    run = runs.start(*arguments(cluster, paced, str(folder), "10000", str(tmp_path / "f")))
    run.until("epoch 1  step")
    job_id = job_of(run)
    with pytest.raises(AssertionError, match=f"job {job_id} has a driver: process {run.process.pid}"):
        command("kill", job_id)
    run.process.kill()
    run.finish()
    assert len(tasks()) == 3
    assert "framework and tasks are gone" in command("kill", job_id)
    assert "has ended already" in command("kill", job_id)
    assert re.search(f"{job_id} .* stopped", command("jobs"))
    wait_until(lambda: not any(line.endswith("-m executor") for line in leftovers()), "executors end by themselves")


def test_jobs_that_cannot_be_attached(runs: Runs, cluster: EmbeddedCluster, folder: Path) -> None:
    none = runs.start("--attach")
    assert none.finish() == 2
    assert "no job has lost its driver" in none.errors[0]
    unknown = runs.start("--attach", "nobody")
    assert unknown.finish() == 1
    assert "nobody" in unknown.errors[0]
    local = runs.start("--master", "local[1]", LENET, "-f", str(folder), "-e", "100")
    local.until("epoch 1 done")
    job_id = job_of(local)
    local.process.kill()
    local.finish()
    refused = runs.start("--attach", job_id)
    assert refused.finish() == 2
    assert "embedded cluster, which ended with its driver" in refused.errors[0]
    assert re.search(f"{job_id} .* cluster lost", command("jobs"))
    assert "nothing was left" in command("kill", job_id)
