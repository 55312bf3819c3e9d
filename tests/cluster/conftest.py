"""Clusters for tests, with the assurance that nothing of them is left."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scheduler.cluster import EmbeddedCluster
from scheduler.cluster_ports import port_is_free
from scheduler.cluster_processes import cluster_processes
from scheduler.cluster_state import ClusterState


def assert_nothing_left(directory: Path) -> None:
    """No process and no listening port of the cluster in `directory`."""
    assert cluster_processes(directory) == []
    state = ClusterState.load(directory)
    assert state is not None
    for daemon in state.layout.daemons:
        offered = range(daemon.offered_ports[0], daemon.offered_ports[1] + 1) if daemon.offered_ports else ()
        assert [port for port in (daemon.port, *offered) if not port_is_free(port)] == []


@pytest.fixture
def start_cluster(tmp_path: Path) -> Iterator[Callable[..., EmbeddedCluster]]:
    """Starts one cluster with the given options; whatever the test does with it, it is gone afterwards."""
    clusters: list[EmbeddedCluster] = []

    def start(**options: Any) -> EmbeddedCluster:
        cluster = EmbeddedCluster(tmp_path / "cluster", **options)
        clusters.append(cluster)
        cluster.up()
        return cluster

    yield start
    for cluster in clusters:
        cluster.down()
        assert_nothing_left(cluster.directory)


@pytest.fixture
def cluster(start_cluster: Callable[..., EmbeddedCluster]) -> EmbeddedCluster:
    """One master, two agents."""
    return start_cluster(agents=2)
