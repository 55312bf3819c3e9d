"""Three masters and a ZooKeeper."""

from collections.abc import Callable

import pytest

from scheduler.cluster import EmbeddedCluster
from scheduler.cluster_master import votes
from tests.cluster.waiting import wait_until

pytestmark = pytest.mark.cluster


def registered_ids(cluster: EmbeddedCluster) -> set[str]:
    return {status.agent.id for status in cluster.status() if status.agent and status.agent.active}


def test_another_master_leads_when_the_leader_is_killed(start_cluster: Callable[..., EmbeddedCluster]) -> None:
    cluster = start_cluster(agents=2, masters=3)
    assert cluster.names == ["zookeeper", "master-1", "master-2", "master-3", "agent-1", "agent-2"]
    assert cluster.master.startswith("zk://127.0.0.1:")
    agents = registered_ids(cluster)
    assert len(agents) == 2

    ports = [int(each.address.rpartition(":")[2]) for each in cluster.status() if each.name.startswith("master")]
    assert all(votes("127.0.0.1", port) for port in ports)  # else losing the leader could lose the quorum, too
    first = cluster.leader()
    assert first is not None
    cluster.kill(first)
    second = wait_until(lambda: cluster.leader() not in (None, first) and cluster.leader(), "another master leads")
    wait_until(lambda: registered_ids(cluster) == agents, "the agents follow")

    # Two of three are a quorum; with the killed one back, the new leader may go, too.
    cluster.start(first)
    assert cluster.leader() == second
    cluster.stop(str(second))
    wait_until(lambda: cluster.leader() not in (None, second), "yet another master leads")
    wait_until(lambda: registered_ids(cluster) == agents, "the agents follow", timeout_s=40)
