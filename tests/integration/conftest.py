"""Fixtures of the tests on real Mesos: a cluster, and a watch that nothing of a run stays behind."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from scheduler.cluster import EmbeddedCluster
from tests.integration.runs import WORK, leftovers, tasks


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedCluster]:
    """One master and two agents, started once for a file of tests, as a user's own cluster would stand there."""
    with EmbeddedCluster(WORK / "cluster", agents=2, ephemeral=True) as running:
        yield running


def master_state(address: str) -> dict[str, Any]:
    """What the master says of frameworks and tasks."""
    with urllib.request.urlopen(f"http://{address}/state", timeout=10) as answer:
        return dict(json.load(answer))


@pytest.fixture
def nothing_remains(cluster: EmbeddedCluster) -> Iterator[Callable[[], None]]:
    """After the test (and when called) neither a task, nor an executor, nor a framework of ours is there."""

    def check() -> None:
        assert tasks() == {}
        assert [line for line in leftovers() if line.endswith("-m executor")] == []
        state = master_state(cluster.master)
        assert state["frameworks"] == []
        assert all(sum(a["used_resources"][kind] for kind in ("cpus", "mem")) == 0 for a in state["slaves"])

    yield check
    check()
