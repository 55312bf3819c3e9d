"""Trains on the cluster of docker-compose.yml: real containers, each with its own address.

Skipped where no Docker engine answers, unless MESOGRAD_REQUIRE_DOCKER is set, as in .ci/run.
"""

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.docker.engine import ROOT, ComposeCluster, obstacle, tail

pytestmark = [pytest.mark.docker, pytest.mark.timeout(2400)]

ZOOKEEPER = "zk://zookeeper:2181/mesos"
TRAIN = ("examples/train_lenet.py", "--folder", "/usr/share/datasets/fashion-mnist", "--max-epoch")
SIZE = ("--workers", "2", "--servers", "2")
TRAINING_TIMEOUT_S = 300.0


@pytest.fixture
def cluster() -> Iterator[ComposeCluster]:
    missing = obstacle()
    if missing and os.environ.get("MESOGRAD_REQUIRE_DOCKER"):
        pytest.fail(f"MESOGRAD_REQUIRE_DOCKER is set, but {missing}")
    if missing:
        pytest.skip(f"docker test did not run: {missing}")
    cluster = ComposeCluster(f"mesograd-test-{uuid.uuid4().hex[:8]}")
    try:
        yield cluster
    finally:
        cluster.down()
    assert cluster.remains() == []


def outcome(printed: str) -> tuple[float, str]:
    """Test accuracy and the weights' sha256 that a training printed."""
    accuracies = re.findall(r"^test accuracy: ([0-9.]+)$", printed, re.MULTILINE)
    digests = re.findall(r"^weights sha256: ([0-9a-f]{64})$", printed, re.MULTILINE)
    assert len(accuracies) == 1, printed
    assert len(digests) == 1, printed
    return float(accuracies[0]), digests[0]


def embedded_outcome(epochs: int) -> tuple[float, str]:
    """`outcome` of the same training on this machine's embedded cluster."""
    done = subprocess.run(
        [sys.executable, "-m", "scheduler.cli", "run", "--master", "local[2]", *SIZE, *TRAIN, str(epochs)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TRAINING_TIMEOUT_S,
    )
    assert done.returncode == 0, tail(done)
    return outcome(done.stdout)


def hosts_by_role(state: dict[str, Any], frameworks: str, tasks: str) -> dict[str, list[str]]:
    """Addresses of the agents that run or ran the tasks of the only framework, sorted, by the tasks' role."""
    (framework,) = state[frameworks]
    hosts = {agent["id"]: agent["hostname"] for agent in state["slaves"]}
    found: dict[str, list[str]] = {}
    for task in framework[tasks]:
        labels = {label["key"]: label["value"] for label in task["labels"]}
        found.setdefault(labels["mesograd.role"], []).append(hosts[task["slave_id"]])
    return {role: sorted(names) for role, names in found.items()}


def test_trains_on_both_agents_with_the_weights_of_the_embedded_cluster(cluster: ComposeCluster) -> None:
    cluster.up(agents=2)
    agents = cluster.addresses("agent")
    assert len(agents) == 2

    checkpoint = ("--checkpoint", "/checkpoints/lenet")
    command = ("mesograd", "run", "--master", ZOOKEEPER, *SIZE, *TRAIN, "1", *checkpoint)
    done = cluster.client(*command, timeout_s=TRAINING_TIMEOUT_S)
    assert done.returncode == 0, tail(done)
    accuracy, digest = outcome(done.stdout)
    assert accuracy > 0.8

    state = cluster.master_state()
    assert state["frameworks"] == []
    ran = hosts_by_role(state, "completed_frameworks", "completed_tasks")
    assert ran == {"server": sorted(agents), "worker": sorted(agents)}
    # The servers wrote it in their containers, and it is seen in the client's.
    assert cluster.client("find", "/checkpoints/lenet", "-type", "f", timeout_s=60).stdout.split()

    assert embedded_outcome(epochs=1) == (accuracy, digest)


def test_a_host_lost_in_mid_epoch_leaves_the_weights_as_they_are(cluster: ComposeCluster) -> None:
    cluster.up(agents=3)
    checkpoint = ("--checkpoint", "/checkpoints/lenet")
    command = ("mesograd", "run", "--master", ZOOKEEPER, *SIZE, *TRAIN, "3", *checkpoint)
    printed = ""
    lost = ""
    with cluster.started_client(*command, timeout_s=TRAINING_TIMEOUT_S) as lines:
        for line in lines:
            printed += line
            if not lost and line.startswith("validation at step 235"):  # what follows are the steps of epoch 2
                lost = hosts_by_role(cluster.master_state(), "frameworks", "tasks")["server"][-1]
                cluster.kill_agent(lost)
    assert lost, printed
    assert "epoch 3 done" not in printed[: printed.index(f" lost on {lost}")], f"it was lost too late:\n{printed}"
    assert "servers complete again (attempt 2)" in printed, printed
    assert outcome(printed) == embedded_outcome(epochs=3)
