"""The whole driver on a real Mesos, with scripted tasks that train nothing (tests/scheduler/scripted)."""

import asyncio
import http.client
import json
import os
import pickle
import signal
import sys
from pathlib import Path

import psutil
import pytest

from proto import control_pb2 as pb
from scheduler import job_record
from scheduler.cluster import EmbeddedCluster
from scheduler.driver import drive, new_secret
from scheduler.job_record import JobRecord
from scheduler.phases import Phases
from scheduler.plan import JobPlan, Patience
from scheduler.resources import Need
from scheduler.state_store import StateError
from scheduler.state_store_sqlite import SqliteStore

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPTED = Path(__file__).resolve().parent / "scripted"
TIMEOUT_S = 60


@pytest.fixture(scope="module")
def cluster():
    with EmbeddedCluster(agents=2, cpus=4, mem_mb=8000, ephemeral=True) as cluster:
        yield cluster


class Watcher:
    """A reporter that remembers, and acts at a given step."""

    def __init__(self, at_step=0, act=None):
        self.steps, self.notes = [], []
        self._at_step, self._act = at_step, act

    def progress(self, progress):
        for report in progress.steps:
            self.steps.append((report.attempt, report.step))
            if report.step == self._at_step and self._act:
                act, self._act = self._act, None
                act()

    def note(self, text):
        self.notes.append(text)

    def flush(self):
        pass

    def finish(self, outcome):
        pass


class Unwritable(SqliteStore):
    """A state that cannot be written for a while, from the first launch on."""

    failures = 3

    def save(self, changes):
        if any("task" in (record or {}) for record in changes.values()) and self.failures:
            self.failures -= 1
            raise StateError("the disk is full")
        super().save(changes)


def run(cluster, script, tmp_path, watcher=None, patience=None, all_end=True, store_type=SqliteStore, **changes):
    """Drives a scripted job to its end; nothing of it may remain, whatever the end."""
    values = {
        "job_id": f"test-{os.urandom(4).hex()}",
        "workers": 2,
        "servers": 2,
        "control": "",
        "secret": new_secret(),
        "python": sys.executable,
        "spec": pickle.dumps(script),
        "executor_environment": {"PYTHONPATH": f"{SCRIPTED}:{ROOT}"},
        "worker_need": Need(1, 100),
    }
    plan = JobPlan(**{**values, **changes})
    store = store_type(tmp_path / "state" / plan.job_id)
    record = JobRecord(plan, cluster.master, embedded=False, driver_host="", samples_per_epoch=1, batch_size=1)
    job_record.create(store, record)
    watcher = watcher or Watcher()
    job = drive(plan, cluster.master, "127.0.0.1", watcher, store, Phases(), patience)
    try:
        outcome = asyncio.run(asyncio.wait_for(job, TIMEOUT_S))
    finally:
        records = store.load()
        assert set(records) == {job_record.JOB, job_record.FINISHED}
        assert job_record.load(records).plan.secret == ""
        store.close()
    assert job_record.finished(records).outcome == outcome
    assert [f["name"] for f in active_frameworks(cluster.master)] == []
    if all_end:
        _, left = psutil.wait_procs(tasks_of(plan.job_id), timeout=10)
        assert [process.cmdline() for process in left] == []
    return outcome


def active_frameworks(master):
    connection = http.client.HTTPConnection(master, timeout=10)
    connection.request("GET", "/frameworks")
    try:
        return json.loads(connection.getresponse().read())["frameworks"]
    finally:
        connection.close()


def tasks_of(job_id):
    """Processes of the job's executors and tasks, told apart from others by their sandboxes."""
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            if any(arg.startswith("executor") for arg in command) and job_id in process.cwd():
                found.append(process)
        except psutil.Error:
            continue
    return found


def kill_task(cluster, slot):
    """Kills the scripted task of a slot; each has named itself in a file of its sandbox."""

    def act():
        for file in cluster.directory.glob("agent-*/**/task-*"):
            pid = int(file.name.removeprefix("task-"))
            if f".{slot}." in file.read_text() and psutil.pid_exists(pid):
                assert "executor.task" in psutil.Process(pid).cmdline()
                os.kill(pid, signal.SIGKILL)
                return
        raise AssertionError(f"no {slot} to kill")

    return act


def test_success(cluster, tmp_path):
    watcher = Watcher()
    outcome = run(cluster, {"steps": 5}, tmp_path, watcher)
    assert (outcome.error, outcome.step, outcome.metrics) == ("", 5, {"Top1Accuracy": 0.875})
    assert watcher.steps == [(1, n) for n in range(1, 6)]


def test_nothing_is_launched_before_it_was_written(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("scheduler.driver.STATE_RETRY_S", 0.1)
    watcher = Watcher()
    outcome = run(cluster, {"steps": 5}, tmp_path, watcher, store_type=Unwritable)
    assert outcome.error == ""
    told = [note for note in watcher.notes if "cannot be written" in note]
    assert told == ["the job's state cannot be written (the disk is full); training goes on, launches wait"]


def test_a_killed_worker_is_replaced(cluster, tmp_path):
    watcher = Watcher(5, kill_task(cluster, "worker-0"))
    outcome = run(cluster, {"steps": 60, "step_s": 0.05}, tmp_path, watcher)
    assert outcome.error == ""
    assert {attempt for attempt, _ in watcher.steps} == {1}
    assert any("worker" in note and "SIGKILL" in note for note in watcher.notes)
    assert any("runs again" in note for note in watcher.notes)


def test_a_killed_server_begins_a_new_attempt(cluster, tmp_path):
    watcher = Watcher(5, kill_task(cluster, "server-1"))
    outcome = run(cluster, {"steps": 60, "step_s": 0.05}, tmp_path, watcher)
    assert outcome.error == ""
    assert {attempt for attempt, _ in watcher.steps} == {1, 2}
    assert any("replay from step 1" in note for note in watcher.notes)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_end_the_job_in_order(cluster, tmp_path, number, code):
    before = signal.getsignal(number)
    watcher = Watcher(5, lambda: os.kill(os.getpid(), number))
    outcome = run(cluster, {"steps": 10**6}, tmp_path, watcher, checkpoint_url="/somewhere")
    assert (outcome.exit_code, outcome.checkpointed) == (code, True)
    assert outcome.step >= 5
    assert signal.getsignal(number) is before


def test_a_second_signal_ends_it_at_once(cluster, tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)

    outcome = run(cluster, {"steps": 10**6, "deaf": True}, tmp_path, Watcher(5, twice))
    assert (outcome.exit_code, outcome.checkpointed) == (130, False)


def test_a_job_that_does_not_obey_is_ended_all_the_same(cluster, tmp_path):
    watcher = Watcher(5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    outcome = run(cluster, {"steps": 10**6, "deaf": True}, tmp_path, watcher, Patience(stop_s=1))
    assert (outcome.exit_code, outcome.checkpointed) == (143, False)


def test_the_users_failure(cluster, tmp_path):
    fail = {"role": "worker", "kind": pb.Failure.USER, "summary": "ValueError: no", "detail": "Traceback: line 3"}
    outcome = run(cluster, {"steps": 10**6, "fail": fail}, tmp_path)
    assert "the job's own code failed in worker" in outcome.error
    assert outcome.error.endswith("ValueError: no")
    assert outcome.detail == "Traceback: line 3"
    assert outcome.exit_code == 1


def test_tasks_that_always_fail(cluster, tmp_path):
    watcher = Watcher()
    script = {"steps": 1, "step_s": 3600, "exit": {"worker": 3}}
    outcome = run(cluster, script, tmp_path, watcher, Patience(backoff_first_s=0.1))
    assert "failed 5 times in a row" in outcome.error
    assert "exit code 3" in outcome.error
    assert outcome.worn_out


def test_an_executor_that_cannot_start(cluster, tmp_path):
    outcome = run(cluster, {}, tmp_path, patience=Patience(backoff_first_s=0.1), python="/no/such/python")
    assert "failed 5 times in a row" in outcome.error
    assert "see stderr in the sandbox" in outcome.error


def test_resources_no_agent_has(cluster, tmp_path):
    outcome = run(cluster, {}, tmp_path, patience=Patience(starving_s=1), worker_need=Need(500, 100))
    assert "no agent can ever offer what a worker asks for (500 cpus, 100 MB" in outcome.error
    assert "the largest offer seen is 4 cpus" in outcome.error


def test_a_driver_that_fails_itself_leaves_no_framework(cluster, tmp_path):
    def fail():
        raise BrokenPipeError("nobody reads what I print")

    with pytest.raises(BrokenPipeError):
        run(cluster, {"steps": 10**6}, tmp_path, Watcher(5, fail))
    assert active_frameworks(cluster.master) == []


def test_an_agent_that_dies_with_its_tasks(tmp_path):
    with EmbeddedCluster(agents=2, cpus=4, mem_mb=8000, ephemeral=True) as own:
        watcher = Watcher(5, lambda: own.kill("agent-1"))
        # Executors outlive their agent: the job does not notice. They end when the agent is back, or gives them up.
        outcome = run(own, {"steps": 60, "step_s": 0.05}, tmp_path, watcher, Patience(close_s=2), all_end=False)
        assert outcome.error == ""
        assert {attempt for attempt, _ in watcher.steps} == {1}


def test_a_master_that_is_restarted(tmp_path):
    with EmbeddedCluster(agents=1, cpus=8, mem_mb=8000, ephemeral=True) as own:

        def restart():
            own.kill("master-1")
            own.start("master-1")

        watcher = Watcher(5, restart)
        # The agent comes back to the new master some 20 s later, and hears then that the framework has ended.
        outcome = run(own, {"steps": 60, "step_s": 0.05}, tmp_path, watcher, Patience(close_s=1), all_end=False)
        assert outcome.error == ""
        assert {attempt for attempt, _ in watcher.steps} == {1}
        assert "lost the Mesos master; training goes on" in watcher.notes
        assert not any("runs again" in note for note in watcher.notes)
