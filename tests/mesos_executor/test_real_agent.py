"""The executor under a real Mesos agent: `python -m executor` in all but the command of its children."""

import base64
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from proto.mesos import Scheduler, SchedulerDriver
from tests.mesos_api.real_mesos import CHECKOUT, RealMesos
from tests.mesos_api.recorders import wait_until

pytestmark = pytest.mark.cluster

CHILD = Path(__file__).with_name("stand_in_task.py")
TERMINAL = ("TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_LOST", "TASK_GONE", "TASK_DROPPED")


class Framework(Scheduler):
    """Launches the tasks that the test asks for, all in one executor, and notes their updates."""

    def __init__(self, master: str, environment: dict[str, str] | None = None, **info: Any) -> None:
        """`environment` is for the executor; `info` goes over the FrameworkInfo."""
        self.changed = threading.Condition()
        self.waiting: list[dict[str, Any]] = []
        self.updates: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self.acknowledge = True
        framework = {
            "name": "executor test",
            "user": os.environ.get("USER", "root"),
            "roles": ["*"],
            "checkpoint": True,
            "capabilities": [{"type": "MULTI_ROLE"}, {"type": "TASK_KILLING_STATE"}, {"type": "PARTITION_AWARE"}],
            **info,
        }
        self.environment = {"PYTHONPATH": str(CHECKOUT), **(environment or {})}
        self.driver = SchedulerDriver(self, framework, master)
        self.driver.start()

    def launch(self, task_id: str, data: dict[str, Any], grace_s: float | None = None) -> None:
        task = {
            "name": task_id,
            "task_id": {"value": task_id},
            "resources": [_scalar("cpus", 0.1), _scalar("mem", 32)],
            "data": base64.b64encode(json.dumps(data).encode()).decode(),
            "executor": {
                "type": "CUSTOM",
                "executor_id": {"value": "executor-1"},
                "framework_id": {"value": self.driver.framework_id},
                "resources": [_scalar("cpus", 0.1), _scalar("mem", 64)],
                "shutdown_grace_period": {"nanoseconds": 4_000_000_000},
                "command": {
                    "shell": True,
                    "value": f"exec {sys.executable} -m tests.mesos_executor.run_executor",
                    "environment": {"variables": [{"name": k, "value": v} for k, v in self.environment.items()]},
                },
            },
        }
        if grace_s is not None:
            task["kill_policy"] = {"grace_period": {"nanoseconds": int(grace_s * 1e9)}}
        with self.changed:
            self.waiting.append(task)
        self.driver.reviveOffers()

    def resourceOffers(self, driver: Any, offers: list[Any]) -> None:
        with self.changed:
            tasks, self.waiting = self.waiting, []
        for task in tasks:
            task["agent_id"] = offers[0]["agent_id"]
            role = offers[0].get("allocation_info")
            for resource in [*task["resources"], *task["executor"]["resources"]]:
                resource["allocation_info"] = role
        driver.launchTasks([offers[0]["id"]], tasks, {"refuse_seconds": 0})
        if offers[1:]:
            driver.declineOffer([offer["id"] for offer in offers[1:]], {"refuse_seconds": 0})

    def statusUpdate(self, driver: Any, status: Any) -> None:
        with self.changed:
            self.updates.append(status)
            self.changed.notify_all()
        if self.acknowledge:
            driver.acknowledgeStatusUpdate(status)

    def error(self, driver: Any, message: str) -> None:
        self.errors.append(message)

    def wait(self, task_id: str, state: str, timeout_s: float = 20.0) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            return [s for s in self.updates if (s["task_id"]["value"], s["state"]) == (task_id, state)]

        with self.changed:
            assert self.changed.wait_for(found, timeout_s), (
                f"{task_id} is not {state} within {timeout_s} s; "
                f"updates: {[(s['task_id']['value'], s['state'], s.get('message')) for s in self.updates]}"
            )
            return found()[0]

    def states(self, task_id: str) -> list[str]:
        with self.changed:
            return [s["state"] for s in self.updates if s["task_id"]["value"] == task_id]


def _scalar(name: str, value: float) -> dict[str, Any]:
    return {"name": name, "type": "SCALAR", "scalar": {"value": value}}


@pytest.fixture(scope="module")
def mesos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealMesos]:
    mesos = RealMesos(tmp_path_factory.mktemp("mesos"))
    yield mesos
    mesos.stop()


@contextlib.contextmanager
def running(framework: Framework) -> Iterator[Framework]:
    """Connected meanwhile, then torn down with all its executors."""
    try:
        wait_until(lambda: framework.driver.connected, 20, "not connected")
        yield framework
    finally:
        executors = executor_processes(framework)
        if framework.driver.connected:
            framework.driver.teardown()
        framework.driver.stop()
        assert framework.driver.join(10)
        _, alive = psutil.wait_procs(executors, timeout=15)
        for process in alive:
            process.kill()
        assert not alive, "the executor outlived its framework"
    assert framework.errors == []


@pytest.fixture
def framework(mesos: RealMesos) -> Iterator[Framework]:
    with running(Framework(mesos.master)) as framework:
        yield framework


def executor_processes(framework: Framework) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            of_framework = process.environ().get("MESOS_FRAMEWORK_ID") == framework.driver.framework_id
            if of_framework and "tests.mesos_executor.run_executor" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


def sandbox_file(framework: Framework, mesos: RealMesos, name: str) -> str | None:
    """The text of a file in the executor's sandbox, if it is there."""
    pattern = f"slaves/*/frameworks/{framework.driver.framework_id}/executors/*/runs/latest/{name}"
    paths = list(mesos.agent_work.glob(pattern))
    assert len(paths) <= 1
    return paths[0].read_text() if paths else None


def note_of(framework: Framework, mesos: RealMesos, task_id: str) -> dict[str, Any]:
    """What a stand-in task wrote about itself; waits until it has."""
    wait_until(lambda: sandbox_file(framework, mesos, f"{task_id}.json"), 10, f"no note of {task_id}")
    return dict(json.loads(sandbox_file(framework, mesos, f"{task_id}.json") or ""))


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody reaps does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def label(status: dict[str, Any], key: str) -> str | None:
    labels = {item["key"]: item["value"] for item in status.get("labels", {}).get("labels", [])}
    return labels.get(key)


def test_a_task_from_launch_to_finish(framework: Framework, mesos: RealMesos) -> None:
    framework.launch("good", {"do": "exit", "code": 0, "threads": 3, "env": {"KMP_BLOCKTIME": "7"}})
    status = framework.wait("good", "TASK_FINISHED")
    assert framework.states("good") == ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"]
    assert label(status, "exit_code") == "0"
    assert sandbox_file(framework, mesos, "good.stdout") == "hello from good\n"
    note = note_of(framework, mesos, "good")
    assert note["env"]["OMP_NUM_THREADS"] == "3"
    assert note["env"]["KMP_BLOCKTIME"] == "7"
    assert note["env"]["OMP_WAIT_POLICY"] == "passive"
    assert note["request"]["do"] == "exit"
    assert note["session"] == note["pid"]


def test_failures_are_told_truthfully(framework: Framework) -> None:
    framework.launch("bad", {"do": "exit", "code": 3})
    framework.launch("dead", {"do": "signal", "signal": signal.SIGSEGV})
    framework.launch("odd", {"threads": 0})
    status = framework.wait("bad", "TASK_FAILED")
    assert status["message"].startswith("exit code 3; last words:")
    assert "the reason of it all" in status["message"]
    assert label(status, "exit_code") == "3"
    status = framework.wait("dead", "TASK_FAILED")
    assert status["message"].startswith("ended by SIGSEGV")
    assert label(status, "signal") == "SIGSEGV"
    status = framework.wait("odd", "TASK_FAILED")
    assert "threads must be a positive integer" in status["message"]


def test_kill(framework: Framework, mesos: RealMesos) -> None:
    framework.launch("sleeper", {"do": "sleep"})
    framework.launch("killed from outside", {"do": "sleep"})
    framework.launch("stubborn", {"do": "sleep", "ignore": True, "fork": True}, grace_s=0.5)
    for task_id in ("sleeper", "killed from outside", "stubborn"):
        framework.wait(task_id, "TASK_RUNNING")
        note_of(framework, mesos, task_id)  # from then on it handles SIGTERM as it was told

    framework.driver.killTask({"value": "sleeper"})
    status = framework.wait("sleeper", "TASK_KILLED")
    assert "TASK_KILLING" in framework.states("sleeper")
    assert status["message"] == "killed on request: exit code 0"

    os.kill(note_of(framework, mesos, "killed from outside")["pid"], signal.SIGKILL)
    status = framework.wait("killed from outside", "TASK_FAILED")
    assert label(status, "signal") == "SIGKILL"

    note = note_of(framework, mesos, "stubborn")
    assert is_alive(note["grandchild"])
    framework.driver.killTask({"value": "stubborn"})
    status = framework.wait("stubborn", "TASK_KILLED")
    assert "SIGTERM did not end it" in status["message"]
    assert label(status, "signal") == "SIGKILL"
    wait_until(lambda: not is_alive(note["grandchild"]), 5, "the grandchild lives")

    (executor,) = executor_processes(framework)
    assert executor.memory_info().rss < 60e6, f"{executor.memory_info().rss / 1e6:.0f} MB"
    before = executor.cpu_times()
    threading.Event().wait(1.0)
    after = executor.cpu_times()
    assert after.user + after.system - before.user - before.system < 0.05, "an idle executor computes"


@pytest.mark.parametrize("stopped", [False, True])
def test_no_child_outlives_its_executor(framework: Framework, mesos: RealMesos, stopped: bool) -> None:
    framework.launch("orphan", {"do": "sleep", "ignore": True})
    framework.wait("orphan", "TASK_RUNNING")
    pid = note_of(framework, mesos, "orphan")["pid"]
    if stopped:  # it cannot see the end of its standard input; the kernel's death signal takes it
        os.kill(pid, signal.SIGSTOP)
    (executor,) = executor_processes(framework)
    executor.kill()
    wait_until(lambda: not is_alive(pid), 5, "the child lives")
    wait_until(lambda: set(framework.states("orphan")) & set(TERMINAL), 20, "nothing was told")
    assert "TASK_FINISHED" not in framework.states("orphan")


def test_the_agent_restarts(framework: Framework, mesos: RealMesos) -> None:
    framework.launch("survivor", {"do": "sleep"})
    framework.launch("ends meanwhile", {"do": "sleep"})
    framework.wait("survivor", "TASK_RUNNING")
    framework.wait("ends meanwhile", "TASK_RUNNING")
    (executor,) = executor_processes(framework)
    note = note_of(framework, mesos, "ends meanwhile")
    mesos.kill_agent()
    os.kill(note["pid"], signal.SIGTERM)
    wait_until(
        lambda: "task ends meanwhile ended" in (sandbox_file(framework, mesos, "stderr") or ""), 10, "it does not end"
    )
    mesos.start_agent()
    framework.wait("ends meanwhile", "TASK_FINISHED", timeout_s=30)
    assert executor.is_running()
    framework.driver.killTask({"value": "survivor"})
    framework.wait("survivor", "TASK_KILLED")
    assert set(framework.states("survivor")) <= {"TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_KILLED"}


def test_shutdown_ends_all_children_in_time(framework: Framework, mesos: RealMesos) -> None:
    framework.launch("polite", {"do": "sleep"})
    framework.launch("rude", {"do": "sleep", "ignore": True, "fork": True})
    pids = []
    for task_id in ("polite", "rude"):
        framework.wait(task_id, "TASK_RUNNING")
        note = note_of(framework, mesos, task_id)
        pids += [note[key] for key in ("pid", "grandchild") if key in note]
    agent_id = framework.updates[0]["agent_id"]
    (executor,) = executor_processes(framework)
    framework.driver.shutdownExecutor({"value": "executor-1"}, agent_id)
    for task_id in ("polite", "rude"):
        status = framework.wait(task_id, "TASK_KILLED", timeout_s=8)
        assert status["source"] == "SOURCE_EXECUTOR"
    executor.wait(5)
    wait_until(lambda: not any(map(is_alive, pids)), 5, "children live")
