"""Choosing free ports."""

import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import cluster_ports
from scheduler.cluster import EmbeddedCluster
from scheduler.cluster_errors import ClusterError
from scheduler.cluster_ports import LOWEST, PortChooser, port_is_free, promised_ports


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_on_which_somebody_listens_is_not_free(host: str) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert not port_is_free(port)
    assert port_is_free(port)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=8))
@settings(deadline=None, max_examples=20)
def test_spans_are_disjoint_and_below_the_ports_of_connections(counts: list[int]) -> None:
    chooser = PortChooser()
    spans = [chooser.span(count) for count in counts]
    ports = [port for span in spans for port in span]
    assert [len(span) for span in spans] == counts
    assert len(set(ports)) == len(ports)
    assert min(ports) >= LOWEST
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        assert max(ports) < int(file.read().split()[0])


@pytest.mark.parametrize("usable", [{LOWEST + 7}, {LOWEST, LOWEST + 1}, set(range(LOWEST + 100, LOWEST + 200, 2))])
def test_every_start_is_tried(monkeypatch: pytest.MonkeyPatch, usable: set[int]) -> None:
    monkeypatch.setattr(cluster_ports, "port_is_free", lambda port: port in usable)
    chooser = PortChooser()
    found = {chooser.one() for _ in usable}
    assert found == usable
    with pytest.raises(ClusterError, match="no 1 free TCP ports"):
        chooser.one()


def test_promised_ports_are_left_to_the_agents_that_offer_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_ports, "promised_ports", lambda: set(range(LOWEST, 60001)) - {20000})
    assert PortChooser().one() == 20000


@pytest.mark.cluster
def test_ports_of_a_running_cluster_are_promised(cluster: EmbeddedCluster) -> None:
    """Those of a stopped daemon, too: it is to come back to its port."""
    cluster.kill("agent-1")
    stopped = next(status for status in cluster.status() if status.name == "agent-1")
    port = int(stopped.address.rpartition(":")[2])
    assert port_is_free(port)
    promised = promised_ports()
    assert port in promised
    assert len(promised) >= 3 + 2 * 100
