"""Trains on the cluster of docker-compose.yml: real containers, each with its own address.

Skipped where no Docker engine answers, unless MESOGRAD_REQUIRE_DOCKER is set, as in .ci/run.
"""

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from tests.docker.engine import ROOT, ComposeCluster, obstacle, tail

pytestmark = [pytest.mark.docker, pytest.mark.timeout(2400)]

DATA = "/usr/share/datasets/fashion-mnist"
TRAIN = ("examples/train_lenet.py", "--folder", DATA, "--max-epoch", "1")
SIZE = ("--workers", "2", "--servers", "2")
TRAINING_TIMEOUT_S = 300.0
MASTER_STATE = "import urllib.request as u; print(u.urlopen('http://master:5050/state', timeout=10).read().decode())"


@pytest.fixture
def cluster() -> Iterator[ComposeCluster]:
    missing = obstacle()
    if missing and os.environ.get("MESOGRAD_REQUIRE_DOCKER"):
        pytest.fail(f"MESOGRAD_REQUIRE_DOCKER is set, but {missing}")
    if missing:
        pytest.skip(f"docker test did not run: {missing}")
    cluster = ComposeCluster(f"mesograd-test-{uuid.uuid4().hex[:8]}")
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()
    assert cluster.remains() == []


def outcome(done: subprocess.CompletedProcess[str]) -> tuple[float, str]:
    """Test accuracy and the weights' sha256 that a training printed."""
    assert done.returncode == 0, f"exit code {done.returncode}:\n{tail(done)}"
    accuracies = re.findall(r"^test accuracy: ([0-9.]+)$", done.stdout, re.MULTILINE)
    digests = re.findall(r"^weights sha256: ([0-9a-f]{64})$", done.stdout, re.MULTILINE)
    assert accuracies, tail(done)
    assert len(digests) == 1, tail(done)
    return float(accuracies[-1]), digests[0]


def hosts_by_role(state: dict[str, object]) -> dict[str, list[str]]:
    """Addresses of the agents that ran the tasks of the only, completed framework, sorted, by the tasks' role."""
    (framework,) = state["completed_frameworks"]
    hosts = {agent["id"]: agent["hostname"] for agent in state["slaves"]}
    found: dict[str, list[str]] = {}
    for task in framework["completed_tasks"]:
        labels = {label["key"]: label["value"] for label in task["labels"]}
        found.setdefault(labels["mesograd.role"], []).append(hosts[task["slave_id"]])
    return {role: sorted(names) for role, names in found.items()}


def test_trains_on_containers_with_the_weights_of_the_embedded_cluster(cluster: ComposeCluster) -> None:
    agents = cluster.addresses("agent")
    assert len(agents) == 2

    in_containers = cluster.client(
        "mesograd", "run", "--master", "zk://zookeeper:2181/mesos", *SIZE, *TRAIN,
        "--checkpoint", "/checkpoints/lenet",
        timeout_s=TRAINING_TIMEOUT_S,
    )  # fmt: skip
    accuracy, digest = outcome(in_containers)
    assert accuracy > 0.8

    state = json.loads(cluster.client("python", "-c", MASTER_STATE, timeout_s=60).stdout)
    assert state["frameworks"] == []
    assert hosts_by_role(state) == {"server": sorted(agents), "worker": sorted(agents)}
    # Every server wrote its part to the volume that all containers share.
    listing = cluster.client("find", "/checkpoints/lenet", "-type", "f", timeout_s=60).stdout
    assert listing.split(), "no checkpoint on the shared volume"

    embedded = subprocess.run(
        [sys.executable, "-m", "scheduler.cli", "run", "--master", "local[2]", *SIZE, *TRAIN],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TRAINING_TIMEOUT_S,
    )
    assert outcome(embedded) == (accuracy, digest)
