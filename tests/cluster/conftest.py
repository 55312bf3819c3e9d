"""Clusters for tests, with the assurance that nothing of them is left."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from scheduler.cluster import EmbeddedCluster
from scheduler.cluster_processes import cluster_processes, running_clusters
from scheduler.cluster_state import ClusterState


def assert_nothing_left(directory: Path) -> None:
    """No process of the cluster in `directory`, and none but another cluster's listens on one of its ports."""
    assert cluster_processes(directory) == []
    state = ClusterState.load(directory)
    assert state is not None
    ports: set[int] = set()
    for daemon in state.layout.daemons:
        ports.add(daemon.port)
        if daemon.offered_ports:
            ports.update(range(daemon.offered_ports[0], daemon.offered_ports[1] + 1))
    listening = {
        connection.laddr.port: connection.pid
        for connection in psutil.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port in ports
    }
    others = {process.pid for cluster in running_clusters() for process in cluster_processes(cluster)}
    assert {port: pid for port, pid in listening.items() if pid not in others} == {}


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
