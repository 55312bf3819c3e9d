"""A job that grows, shrinks and loses an agent to a drain, on a real Mesos: the weights keep every bit."""

import http.client
import json
import os
import re
import subprocess
import sys

import pytest

from scheduler.cluster import ClusterOptions, EmbeddedCluster
from tests.data_files import FASHION_MNIST
from tests.integration.runs import LENET, ROOT, WORK, Run, environment, tasks

pytestmark = pytest.mark.cluster

EPOCHS = 4


def job(master: str, *options: str) -> Run:
    return Run.start("--master", master, "--servers", "1", *options, LENET, "-f", str(FASHION_MNIST), "-e", str(EPOCHS))


def scale(job_id: str, workers: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scheduler.cli", "scale", job_id, str(workers)],
        env=environment(),
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def operator(master: str, call: dict[str, object]) -> None:
    connection = http.client.HTTPConnection(master, timeout=10)
    try:
        connection.request("POST", "/api/v1", json.dumps(call), {"Content-Type": "application/json"})
        assert connection.getresponse().status == http.client.OK
    finally:
        connection.close()


def rack_of(cluster: EmbeddedCluster, pid: int) -> str:
    """The rack of the agent that a process runs under, by its sandbox."""
    name = re.search(r"/(agent-\d+)/", os.readlink(f"/proc/{pid}/cwd"))
    assert name is not None
    return {"agent-1": "a", "agent-2": "b"}[name[1]]


def test_growing_shrinking_and_draining_change_no_bit() -> None:
    options = ClusterOptions(agents=2, cpus=6, attributes=("rack:a", "rack:b"))
    with EmbeddedCluster(WORK / "racks", options=options, ephemeral=True) as cluster:
        reference = job(cluster.master, "--workers", "2").weights()
        run = job(
            cluster.master, "--min-workers", "1", "--max-workers", "2", "--constraint", "worker:rack:GROUP_BY",
            "--env", "OMP_WAIT_POLICY=active",
        )  # fmt: skip
        run.until("validation at step 235")
        workers = tasks("worker")
        assert sorted(rack_of(cluster, process.pid) for process in workers.values()) == ["a", "b"]
        (job_id,) = {name.partition(".")[0] for name in workers}
        assert all(process.environ()["OMP_WAIT_POLICY"] == "active" for process in workers.values())
        assert "from 2 to 4 workers" in scale(job_id, 4).stdout
        run.until("epoch 2 done")
        assert len(tasks("worker")) == 4
        assert "from 4 to 3 workers" in scale(job_id, 3).stdout
        run.until("has left 127.0.0.1: the job was scaled")
        victim = next(name for name in tasks("worker") if rack_of(cluster, tasks()[name].pid) == "b")
        agents = {status.name: status.agent.id for status in cluster.status() if status.agent is not None}
        operator(cluster.master, {"type": "DRAIN_AGENT", "drain_agent": {"agent_id": {"value": agents["agent-2"]}}})
        run.until("lost on 127.0.0.1")
        assert victim not in tasks(), "the agent was drained"
        assert run.weights() == reference
        exact = [line for line in run.lines if re.match(r"epoch \d+ done .*: 60000 samples, each sample once", line)]
        assert len(exact) >= EPOCHS
        refused = scale(job_id, 2)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert f"job {job_id} has ended" in refused.stderr
