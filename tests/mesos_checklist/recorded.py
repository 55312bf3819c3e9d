"""One eventful job on a real cluster, with all that passed between driver and master: most points are read off it.

What happens to it: the first ACCEPT is lost although it was answered with 202; the second one is held up until its
offers are gone; an acknowledgement is lost; a worker is killed; the master is killed and comes back. It ends well.
"""

import asyncio
import contextlib
import os
import pickle
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from scheduler import job_record
from scheduler.cluster import ClusterOptions, EmbeddedCluster
from scheduler.driver import drive, new_secret
from scheduler.job_record import JobRecord
from scheduler.outcome import Outcome
from scheduler.phases import Phases
from scheduler.plan import JobPlan, Patience
from scheduler.resources import Need
from scheduler.state_store_sqlite import FILE_NAME, SqliteStates
from tests.mesos_checklist.mesos_proxy import FORWARD, SWALLOW, Call, MesosProxy, Verdict

ROOT = Path(__file__).resolve().parents[2]
SCRIPTED = ROOT / "tests" / "scheduler" / "scripted"
TIMEOUT_S = 90.0
OFFER_TIMEOUT_S = 2.0
ROLE = "science"
STEP_S = 0.05
KILL_AT, MASTER_AT, STEPS = 20, 40, 200

#: One agent, so that every offer's fate is that of all; half of it is reserved for the role.
RESOURCES = f"cpus({ROLE}):2;mem({ROLE}):1000;cpus(*):2;mem(*):3000;disk(*):1000;ports(*):[31000-31009]"


class Watcher:
    """A reporter that acts when a step is reported."""

    def __init__(self, **at_step: Callable[[], None]) -> None:
        self.steps: list[tuple[int, int]] = []
        self.notes: list[str] = []
        self.at = {int(name.removeprefix("step_")): act for name, act in at_step.items()}

    def progress(self, progress: Any) -> None:
        for report in progress.steps:
            self.steps.append((report.attempt, report.step))
            for step in [step for step in self.at if report.step >= step]:
                self.at.pop(step)()

    def note(self, text: str) -> None:
        self.notes.append(text)

    def flush(self) -> None:
        pass

    def finish(self, outcome: Outcome) -> None:
        pass


@dataclass
class Recording:
    """What happened. `saved` is the text of the job's state as it was on disk when each ACCEPT was sent."""

    proxy: MesosProxy
    plan: JobPlan
    watcher: Watcher
    outcome: Outcome
    fired: list[str]
    saved: list[str]
    master_at: float  # when the master was killed, of the monotonic clock
    left: list[list[str]] = field(default_factory=list)  # command lines of what outlived the job
    with_secret: list[str] = field(default_factory=list)  # files of cluster and driver that hold the job's secret

    def launched(self) -> list[dict[str, Any]]:
        """TaskInfos of all ACCEPT calls, in order."""
        return [
            task
            for call in self.proxy.of("ACCEPT")
            for operation in call.payload["operations"]
            for task in operation["launch"]["task_infos"]
        ]

    def updates(self) -> list[dict[str, Any]]:
        """Statuses of all UPDATE events, in order."""
        return [event.body["update"]["status"] for event in self.proxy.events_of("UPDATE")]


def job_plan(script: dict[str, Any], **changes: Any) -> JobPlan:
    """A job of scripted tasks (tests/scheduler/scripted)."""
    values = {
        "job_id": f"checklist-{os.urandom(4).hex()}",
        "workers": 2,
        "servers": 1,
        "control": "",
        "secret": new_secret(),
        "python": sys.executable,
        "spec": pickle.dumps(script),
        "executor_environment": {"PYTHONPATH": f"{SCRIPTED}:{ROOT}"},
        "worker_need": Need(1, 100),
        "server_need": Need(0.5, 100, ports=1),
    }
    return JobPlan(**{**values, **changes})


def run_job(master: str, plan: JobPlan, watcher: Watcher, patience: Patience, state: Path, **options: Any) -> Outcome:
    """Drives a job to its end, in this thread."""
    store = SqliteStates(state).store(plan.job_id)
    record = JobRecord(plan, master, embedded=False, driver_host="", samples_per_epoch=1, batch_size=1)
    job_record.create(store, record)
    try:
        job = drive(plan, master, "127.0.0.1", watcher, store, Phases(), patience, **options)
        return asyncio.run(asyncio.wait_for(job, TIMEOUT_S))
    finally:
        store.close()


def records_on_disk(state: Path) -> str:
    """The job's state as another process would find it, as text."""
    (path,) = state.rglob(FILE_NAME)
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return "\n".join(f"{key} {value}" for key, value in connection.execute("SELECT key, value FROM record"))
    finally:
        connection.close()


def task_processes(job_id: str) -> list[psutil.Process]:
    """Executors and tasks of a job, told apart by their sandboxes."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(part.startswith("executor") for part in process.cmdline()) and job_id in process.cwd():
                found.append(process)
    return found


def process_of(directory: Path, slot: str) -> psutil.Process:
    """The scripted task of a slot: each has named itself in a file of its sandbox."""
    for file in directory.glob("agent-*/**/task-*"):
        pid = int(file.name.removeprefix("task-"))
        if f".{slot}." in file.read_text() and psutil.pid_exists(pid):
            return psutil.Process(pid)
    raise AssertionError(f"no {slot} runs")


def record(directory: Path) -> Recording:
    """Runs the job."""
    options = ClusterOptions(
        agents=1,
        master_flags={
            "offer_timeout": f"{OFFER_TIMEOUT_S:g}secs",
            "agent_ping_timeout": "2secs",
            "max_agent_ping_timeouts": "2",
        },
        agent_flags={"resources": RESOURCES},
    )
    plan = job_plan({"steps": STEPS, "step_s": STEP_S}, role=ROLE)
    patience = Patience(launch_s=1, reconcile_first_s=1, reconcile_max_s=4, reconcile_all_s=3, kill_grace_s=1.5)
    fired: list[str] = []
    saved: list[str] = []
    times: list[float] = []
    state = directory / "state"

    def rule(call: Call) -> Verdict:
        if call.kind == "ACCEPT":
            saved.append(records_on_disk(state))
            if len(saved) == 1:
                fired.append("a launch was lost")
                return SWALLOW
            if len(saved) == 2:
                fired.append("a launch came late")
                return OFFER_TIMEOUT_S + 1.0
        if call.kind == "ACKNOWLEDGE" and "an acknowledgement was lost" not in fired:
            fired.append("an acknowledgement was lost")
            return SWALLOW
        return FORWARD

    with EmbeddedCluster(directory / "cluster", options=options, ephemeral=True) as cluster:
        with MesosProxy(cluster.master, rule) as proxy:

            def kill_worker() -> None:
                process_of(cluster.directory, "worker-0").send_signal(signal.SIGKILL)
                fired.append("a worker was killed")

            def restart_master() -> None:
                times.append(time.monotonic())
                cluster.kill("master-1")
                cluster.start("master-1")
                fired.append("the master was restarted")

            watcher = Watcher(**{f"step_{KILL_AT}": kill_worker, f"step_{MASTER_AT}": restart_master})
            outcome = run_job(proxy.address, plan, watcher, patience, state)
            _, left = psutil.wait_procs(task_processes(plan.job_id), timeout=10)
            commands = [process.cmdline() for process in left]
            secret = plan.secret.encode()
            files = [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
            told = [str(path.relative_to(directory)) for path in files if secret in path.read_bytes()]
            return Recording(proxy, plan, watcher, outcome, fired, saved, times[0], commands, told)
