"""Point 10 of the checklist (docs/mesos.md), on a real agent that the master loses sight of and finds again."""

import os
import signal
import threading
from pathlib import Path

import psutil
import pytest

from scheduler import events as ev
from scheduler.cluster import ClusterOptions, EmbeddedCluster
from scheduler.plan import Patience
from scheduler.requests import CAPABILITIES
from tests.mesos_api.recorders import wait_until
from tests.mesos_checklist.mesos_proxy import MesosProxy
from tests.mesos_checklist.recorded import Watcher, job_plan, process_of, run_job

pytestmark = pytest.mark.cluster

DOUBT_S = 2.0


class Partition(threading.Thread):
    """Stops the agent that has no server, then silences its worker, then lets the agent go on, then ends the job."""

    def __init__(self, cluster: EmbeddedCluster, proxy: MesosProxy) -> None:
        super().__init__(daemon=True)
        self.cluster = cluster
        self.proxy = proxy
        self.happened: list[str] = []

    def run(self) -> None:
        agents = {slot: self.agent_of(slot) for slot in ("server-0", "worker-0", "worker-1")}
        slot = next(slot for slot in ("worker-0", "worker-1") if agents[slot] != agents["server-0"])
        agent = self.cluster.pid(agents[slot])
        task = process_of(self.cluster.directory, slot)
        executor = task.parent()
        assert agent is not None
        assert executor is not None
        try:
            self.act(slot, agent, task, executor)
        finally:
            os.kill(agent, signal.SIGCONT)
            executor.resume()
            os.kill(os.getpid(), signal.SIGTERM)  # which ends the job

    def act(self, slot: str, agent: int, task: psutil.Process, executor: psutil.Process) -> None:
        os.kill(agent, signal.SIGSTOP)
        wait_until(lambda: f"{slot} TASK_UNREACHABLE" in self.states(), 20, "it stays reachable")
        threading.Event().wait(2 * DOUBT_S)
        if len(self.launches(slot)) == 1:
            self.happened.append("kept while it talks")
        executor.suspend()  # so that the task's end is not told
        task.kill()
        threading.Event().wait(2 * DOUBT_S)
        (old,) = self.launches(slot)
        os.kill(agent, signal.SIGCONT)
        wait_until(lambda: old in self.killed(), 20, "it is not killed when it is back")
        self.happened.append("killed when it is back")
        executor.resume()
        wait_until(lambda: len(self.launches(slot)) == 2, 20, "it is not replaced")
        self.happened.append("replaced")

    def agent_of(self, slot: str) -> str:
        for file in self.cluster.directory.glob("agent-*/**/task-*"):
            if f".{slot}." in file.read_text():
                return file.relative_to(self.cluster.directory).parts[0]
        raise AssertionError(f"no {slot} runs")

    def states(self) -> list[str]:
        updates = [event.body["update"]["status"] for event in self.proxy.events_of("UPDATE")]
        return [f"{update['task_id']['value'].split('.')[1]} {update['state']}" for update in updates]

    def launches(self, slot: str) -> list[str]:
        tasks = [
            task["task_id"]["value"]
            for call in self.proxy.of("ACCEPT")
            for task in call.payload["operations"][0]["launch"]["task_infos"]
        ]
        return [task_id for task_id in tasks if f".{slot}." in task_id]

    def killed(self) -> list[str]:
        return [call.payload["task_id"]["value"] for call in self.proxy.of("KILL")]


def test_point_10_partition_aware(tmp_path: Path) -> None:
    """A task that the master lost sight of is kept while it talks, given up when silent, killed when it returns."""
    assert "PARTITION_AWARE" in CAPABILITIES
    assert {"TASK_DROPPED", "TASK_GONE", "TASK_GONE_BY_OPERATOR"} <= ev.TERMINAL_STATES
    assert {"TASK_UNREACHABLE", "TASK_UNKNOWN"} <= ev.DOUBTFUL_STATES
    flags = {"agent_ping_timeout": "1secs", "max_agent_ping_timeouts": "2"}
    # A second worker does not fit beside the server: its replacement has to wait for its agent.
    options = ClusterOptions(agents=2, cpus=1.7, mem_mb=2000, master_flags=flags)
    with EmbeddedCluster(tmp_path / "cluster", options=options) as cluster, MesosProxy(cluster.master) as proxy:
        partition = Partition(cluster, proxy)
        patience = Patience(doubt_s=DOUBT_S, stop_s=2, close_s=3)
        watcher = Watcher(step_5=partition.start)
        outcome = run_job(
            proxy.address, job_plan({"steps": 10**6, "step_s": 0.05}), watcher, patience, tmp_path / "state"
        )
        assert partition.happened == ["kept while it talks", "killed when it is back", "replaced"], watcher.notes
        assert outcome.signal == signal.SIGTERM
