"""Point 26 of the checklist (docs/mesos.md), on a real agent that its operator drains."""

import http.client
import json
from pathlib import Path
from typing import Any

import pytest

from scheduler.cluster import EmbeddedCluster
from scheduler.plan import Patience
from tests.mesos_checklist.mesos_proxy import MesosProxy
from tests.mesos_checklist.recorded import Watcher, job_plan, run_job

pytestmark = pytest.mark.cluster


def operate(master: str, call: dict[str, Any]) -> Any:
    """A call of the operator API."""
    connection = http.client.HTTPConnection(master, timeout=10)
    try:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        connection.request("POST", "/api/v1", json.dumps(call), headers)
        response = connection.getresponse()
        body = response.read()
        assert response.status == http.client.OK, body
        return json.loads(body) if body else None
    finally:
        connection.close()


def test_point_26_drained_agents(tmp_path: Path) -> None:
    """Tasks of an agent that is drained go elsewhere; no failure is counted, for a single one would end this job."""
    with EmbeddedCluster(tmp_path / "cluster", agents=2, cpus=4, mem_mb=4000) as cluster:
        with MesosProxy(cluster.master) as proxy:
            drained: list[dict[str, Any]] = []

            def drain() -> None:
                """The agent of worker 0."""
                tasks = [
                    task
                    for call in proxy.of("ACCEPT")
                    for task in call.payload["operations"][0]["launch"]["task_infos"]
                ]
                (agent_id,) = (task["agent_id"] for task in tasks if task["name"] == "worker-0.1")
                config = {"agent_id": agent_id, "max_grace_period": {"nanoseconds": 2_000_000_000}}
                operate(cluster.master, {"type": "DRAIN_AGENT", "drain_agent": config})
                drained.append(agent_id)

            watcher = Watcher(step_10=drain)
            plan = job_plan({"steps": 120, "step_s": 0.05})
            outcome = run_job(proxy.address, plan, watcher, Patience(failures=1), tmp_path / "state")
            assert outcome.error == ""
            (agent_id,) = drained
            ends = [
                update
                for event in proxy.events_of("UPDATE")
                if (update := event.body["update"]["status"]).get("reason") == "REASON_AGENT_DRAINING"
            ]
            assert ends, "nothing was drained"
            relaunched = [
                task for call in proxy.of("ACCEPT")[1:]
                for task in call.payload["operations"][0]["launch"]["task_infos"] if not task["name"].endswith(".1")
            ]  # fmt: skip
            assert {task["agent_id"]["value"] for task in relaunched} == {
                agent["value"] for agent in _agents(proxy) if agent != agent_id
            }


def _agents(proxy: MesosProxy) -> list[dict[str, Any]]:
    offers = [offer for event in proxy.events_of("OFFERS") for offer in event.body["offers"]["offers"]]
    return [offer["agent_id"] for offer in offers]
