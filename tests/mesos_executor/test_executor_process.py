"""The executor as a process, with a fake agent: what a real one cannot be made to do at will."""

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.mesos_api.fake_mesos import fake_agent
from tests.mesos_api.real_mesos import CHECKOUT
from tests.mesos_api.recorders import wait_until


class ExecutorProcess:
    """`python -m executor` (with the stand-in task), and the agent it belongs to."""

    def __init__(self, sandbox: Path, **variables: str) -> None:
        self.sandbox = sandbox
        self.agent = fake_agent()
        environ = {
            **os.environ,
            "PYTHONPATH": str(CHECKOUT),
            "MESOS_AGENT_ENDPOINT": self.agent.address,
            "MESOS_FRAMEWORK_ID": "framework-1",
            "MESOS_EXECUTOR_ID": "executor-1",
            "MESOS_SANDBOX": str(sandbox),
            "MESOS_CHECKPOINT": "1",
            "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD": "3secs",
            **variables,
        }
        with (sandbox / "stderr").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.mesos_executor.run_executor"], env=environ, stderr=log
            )
        self.agent.wait_stream()

    def launch(self, task_id: str, data: Any) -> None:
        text = base64.b64encode(json.dumps(data).encode()).decode()
        task = {"task_id": {"value": task_id}, "data": text}
        self.agent.streams[-1].send({"type": "LAUNCH", "launch": {"task": task}})

    def statuses(self) -> list[dict[str, Any]]:
        """Of all updates, the newest last, each once."""
        seen = {}
        for call in list(self.agent.calls):
            told = call.body.get("subscribe", {}).get("unacknowledged_updates", [])
            for update in [*told, *([call.body["update"]] if "update" in call.body else [])]:
                seen[update["status"]["uuid"]] = update["status"]
        return list(seen.values())

    def wait_status(self, task_id: str, state: str) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            return [s for s in self.statuses() if (s["task_id"]["value"], s["state"]) == (task_id, state)]

        wait_until(found, 10, f"{task_id} is not {state}")
        return found()[0]

    def acknowledge_all(self) -> None:
        for status in self.statuses():
            acknowledged = {"task_id": status["task_id"], "uuid": status["uuid"]}
            self.agent.streams[-1].send({"type": "ACKNOWLEDGED", "acknowledged": acknowledged})

    def note(self, task_id: str) -> dict[str, Any]:
        path = self.sandbox / f"{task_id}.json"
        wait_until(path.exists, 10, f"no note of {task_id}")
        return dict(json.loads(path.read_text()))

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.agent.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ExecutorProcess]]:
    started: list[ExecutorProcess] = []

    def start(**variables: str) -> ExecutorProcess:
        started.append(ExecutorProcess(tmp_path, **variables))
        return started[-1]

    yield start
    for executor in started:
        executor.stop()


def is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_request_larger_than_a_pipe(start: Callable[..., ExecutorProcess]) -> None:
    executor = start()
    executor.launch("t", {"do": "exit", "code": 0, "filler": "x" * 300_000})
    executor.wait_status("t", "TASK_FINISHED")
    assert len(executor.note("t")["request"]["filler"]) == 300_000


def test_a_child_that_ends_without_reading_a_large_request(start: Callable[..., ExecutorProcess]) -> None:
    executor = start()
    # The stand-in never starts: Python itself fails on this variable, its standard input unread.
    executor.launch("t", {"do": "exit", "filler": "x" * 300_000, "env": {"PYTHONHOME": "/nowhere"}})
    status = executor.wait_status("t", "TASK_FAILED")
    assert "exit code 1" in status["message"]
    executor.launch("next", {"do": "exit", "code": 0})
    executor.wait_status("next", "TASK_FINISHED")


def test_a_task_that_cannot_be_started(start: Callable[..., ExecutorProcess]) -> None:
    executor = start()
    executor.launch("n" * 300, {})  # no file may have such a name
    assert "could not be started" in executor.wait_status("n" * 300, "TASK_FAILED")["message"]
    executor.launch("null", {"env": {"A": "\0"}})
    assert "null" in executor.wait_status("null", "TASK_FAILED")["message"]


@pytest.mark.parametrize("checkpoint", ["0", "1"])
def test_it_ends_when_the_agent_is_gone(start: Callable[..., ExecutorProcess], checkpoint: str) -> None:
    executor = start(
        MESOS_CHECKPOINT=checkpoint, MESOS_RECOVERY_TIMEOUT="1secs", MESOS_SUBSCRIPTION_BACKOFF_MAX="300ms"
    )
    executor.launch("t", {"do": "sleep"})
    pid = executor.note("t")["pid"]
    executor.agent.stop()
    assert executor.process.wait(10) == 0
    wait_until(lambda: not is_alive(pid), 5, "the child lives")


def test_sigterm_ends_it_in_order(start: Callable[..., ExecutorProcess]) -> None:
    executor = start()
    executor.launch("t", {"do": "sleep"})
    executor.note("t")
    executor.process.send_signal(signal.SIGTERM)
    status = executor.wait_status("t", "TASK_KILLED")
    assert status["message"] == "the executor got SIGTERM: exit code 0"
    executor.acknowledge_all()
    assert executor.process.wait(5) == 0


def test_it_waits_for_the_last_acknowledgement(start: Callable[..., ExecutorProcess]) -> None:
    executor = start(MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD="20secs")
    executor.launch("t", {"do": "sleep"})
    executor.note("t")
    executor.agent.streams[-1].send({"type": "SHUTDOWN"})
    executor.wait_status("t", "TASK_KILLED")
    with pytest.raises(subprocess.TimeoutExpired):
        executor.process.wait(0.5)
    executor.acknowledge_all()
    assert executor.process.wait(5) == 0


def test_a_launch_after_the_agent_restarted(start: Callable[..., ExecutorProcess]) -> None:
    executor = start(MESOS_SUBSCRIPTION_BACKOFF_MAX="300ms")
    executor.launch("t", {"do": "sleep"})
    executor.wait_status("t", "TASK_RUNNING")
    old, port = executor.agent, executor.agent.port
    old.stop()
    executor.agent = fake_agent(port)
    call = executor.agent.wait_call("SUBSCRIBE")
    told = call.body["subscribe"]
    assert [task["task_id"]["value"] for task in told["unacknowledged_tasks"]] == ["t"]
    states = [update["status"]["state"] for update in told["unacknowledged_updates"]]
    assert states == ["TASK_STARTING", "TASK_RUNNING"]
    executor.agent.wait_stream()
    executor.launch("t", {"do": "sleep"})  # an agent that did not know it yet
    executor.launch("u", {"do": "exit", "code": 0})
    executor.wait_status("u", "TASK_FINISHED")
    assert (executor.sandbox / "stderr").read_text().count("task t started") == 1


def test_by_hand_it_says_what_it_is() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MESOS_")}
    done = subprocess.run(
        [sys.executable, "-m", "executor"],
        env={**environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "MESOS_FRAMEWORK_ID is not set: an executor is started by a Mesos agent, not by hand\n"


def test_it_imports_nothing_large() -> None:
    large = ("numpy", "scipy", "grpc", "google.protobuf", "kazoo")
    code = f"import sys, executor.mesos_executor; print([name for name in sys.modules if name in {large}])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.strip() == "[]"


