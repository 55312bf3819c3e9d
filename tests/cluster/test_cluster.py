"""One master, some agents: up, status, single daemons, down."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from scheduler.cluster import ClusterError, ClusterOptions, EmbeddedCluster
from scheduler.cluster_ports import port_is_free
from scheduler.cluster_processes import cluster_processes
from scheduler.cluster_state import ClusterState
from tests.cluster.conftest import assert_nothing_left
from tests.cluster.framework import Framework
from tests.cluster.waiting import wait_until

pytestmark = pytest.mark.cluster

StartCluster = Callable[..., EmbeddedCluster]


def agent_id(cluster: EmbeddedCluster, name: str) -> str | None:
    status = next(status for status in cluster.status() if status.name == name)
    return status.agent.id if status.agent and status.agent.active else None


def test_agents_offer_what_was_asked_for_and_disjoint_ports(start_cluster: StartCluster) -> None:
    cluster = start_cluster(agents=3, cpus=7, mem_mb=1234)
    agents = [status.agent for status in cluster.status() if status.agent]
    assert [(agent.resources["cpus"], agent.resources["mem"]) for agent in agents] == [(7.0, 1234.0)] * 3
    ports: set[int] = set()
    for agent in agents:
        first, last = map(int, agent.resources["ports"].strip("[]").split("-"))
        assert ports.isdisjoint(range(first, last + 1))
        ports.update(range(first, last + 1))
    assert len(ports) >= 300
    assert all(port_is_free(port) for port in ports)


def test_it_is_quick(start_cluster: StartCluster) -> None:
    begin = time.monotonic()
    start_cluster(agents=2)
    assert time.monotonic() - begin < 5  # 0.3 s on an idle machine; two seconds is what users are promised


def test_it_listens_on_loopback_only(cluster: EmbeddedCluster) -> None:
    listening = {
        connection.laddr.ip
        for process in cluster_processes(cluster.directory)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_daemons_are_out_of_reach_of_the_terminal(cluster: EmbeddedCluster) -> None:
    for name in cluster.names:
        pid = cluster.pid(name)
        assert pid is not None
        assert os.getsid(pid) != os.getsid(0)
        assert os.getpgid(pid) != os.getpgid(0)


def test_a_killed_agent_comes_back_as_itself(cluster: EmbeddedCluster) -> None:
    before = agent_id(cluster, "agent-1")
    assert before is not None
    cluster.kill("agent-1")
    assert cluster.pid("agent-1") is None
    cluster.start("agent-1")
    assert wait_until(lambda: agent_id(cluster, "agent-1"), "agent-1 registers again") == before
    cluster.restart("agent-1")
    assert wait_until(lambda: agent_id(cluster, "agent-1"), "agent-1 registers again") == before


def test_a_restarted_master_gets_its_agents_back(start_cluster: StartCluster) -> None:
    # Without ZooKeeper an agent looks for its master again only after so many pings have failed to come.
    pings = {"agent_ping_timeout": "1secs", "max_agent_ping_timeouts": "2"}
    cluster = start_cluster(options=ClusterOptions(master_flags=pings))
    before = {agent_id(cluster, "agent-1"), agent_id(cluster, "agent-2")}
    address = cluster.master
    cluster.restart("master-1")
    assert cluster.master == address

    def registered() -> bool:
        return {agent_id(cluster, "agent-1"), agent_id(cluster, "agent-2")} == before

    wait_until(registered, "both agents register again")


def test_an_executor_outlives_its_agent_but_not_the_cluster(cluster: EmbeddedCluster, tmp_path: Path) -> None:
    """Executors and tasks in sessions of their own, with a cleared environment, are found all the same."""
    ready = tmp_path / "ready"
    command = f"env -i setsid sleep 1001 & setsid sleep 1002 & touch {ready}; exec sleep 1003"
    with Framework(cluster.master) as framework:
        registered = framework.launch(command, [])
        wait_until(ready.exists, "the executor runs")
        name = next(name for name in ("agent-1", "agent-2") if agent_id(cluster, name) == registered)

        def sleeping() -> set[str]:
            lines = [process.cmdline() for process in cluster_processes(cluster.directory)]
            return {line[1] for line in lines if line and line[0] == "sleep"}

        wait_until(lambda: sleeping() == {"1001", "1002", "1003"}, "all three are found")
        cluster.kill(name)
        assert sleeping() == {"1001", "1002", "1003"}
        cluster.down()
        assert_nothing_left(cluster.directory)


def test_down_ends_what_is_stopped_and_what_ignores_sigterm(cluster: EmbeddedCluster, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    with Framework(cluster.master) as framework:
        framework.launch(f"trap '' TERM; touch {ready}; while true; do sleep 1004; done", [])
        wait_until(ready.exists, "the executor runs")
        pid = cluster.pid("agent-2")
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        cluster.down()
        assert_nothing_left(cluster.directory)


def test_an_ephemeral_cluster_dies_with_its_owner(tmp_path: Path) -> None:
    """By SIGKILL, which leaves the owner no chance, while a child that it forked holds its pipes open."""
    program = (
        "import os, signal, sys; from scheduler.cluster import EmbeddedCluster\n"
        "cluster = EmbeddedCluster(sys.argv[1], agents=1, ephemeral=True); cluster.up()\n"
        "child = os.fork()\n"
        "if child == 0: signal.pause()\n"
        "print(child, cluster.master, flush=True); signal.pause()"
    )
    directory = tmp_path / "cluster"
    owner = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program, str(directory)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    with owner, owner.stdout:
        child, _, master = owner.stdout.readline().partition(" ")
        try:
            with Framework(master.strip()) as framework:
                framework.launch("sleep 1005", [])
                wait_until(lambda: len(cluster_processes(directory)) >= 4, "the executor runs")
                owner.kill()
                wait_until(lambda: not cluster_processes(directory), "the cluster has died")
                assert_nothing_left(directory)
        finally:
            os.kill(int(child), signal.SIGKILL)
            owner.kill()
            owner.wait()


def test_a_temporary_directory_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with EmbeddedCluster(agents=1) as cluster:
        assert (cluster.directory / "agent-1").is_dir()
        assert cluster.directory.parent == tmp_path
    with pytest.raises(ClusterError, match="agent-1 ended with"):
        EmbeddedCluster(options=ClusterOptions(agents=1, agent_flags={"isolation": "no/such"})).up()
    monkeypatch.setenv("MESOGRAD_MESOS", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match="no Mesos in"):
        EmbeddedCluster().up()
    assert not list(tmp_path.glob("mesograd-cluster-*"))


def test_a_second_cluster_in_the_directory_is_refused(cluster: EmbeddedCluster) -> None:
    with pytest.raises(ClusterError, match="a cluster is up already in") as caught:
        EmbeddedCluster(cluster.directory).up()
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert all(cluster.pid(name) for name in cluster.names)


def test_after_a_crash_the_directory_is_used_again(start_cluster: StartCluster) -> None:
    """All daemons killed behind the cluster's back, their recorded process ids now those of others."""
    crashed = start_cluster(agents=1, ephemeral=False)
    for name in crashed.names:
        pid = crashed.pid(name)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not cluster_processes(crashed.directory), "all daemons are dead")
    state = crashed.directory / "cluster.json"
    text = state.read_text()
    for process in psutil.Process().children():
        text = text.replace(f'"pid": {process.pid},', f'"pid": {os.getpid()},')
    state.write_text(text)
    assert crashed.pid("master-1") is None
    again = start_cluster(agents=1)
    assert again.pid("master-1") is not None


def test_an_up_that_was_killed_is_cleared_away(start_cluster: StartCluster) -> None:
    """Daemons run of which the state file knows nothing yet."""
    killed = start_cluster(agents=1, ephemeral=False)
    state = ClusterState.load(killed.directory)
    assert state is not None
    ClusterState(state.layout).save()
    orphans = {process.pid for process in cluster_processes(killed.directory)}
    again = start_cluster(agents=1)
    assert orphans.isdisjoint(process.pid for process in cluster_processes(again.directory))


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "agent-1").mkdir()
    with pytest.raises(ClusterError, match="agent-1 exists and is of no cluster of ours"):
        EmbeddedCluster(tmp_path).up()
    with pytest.raises(ClusterError, match=r"cannot create .*: Not a directory"):
        EmbeddedCluster("/dev/null/cluster").up()


def test_a_daemon_that_dies_is_reported_with_its_log(tmp_path: Path) -> None:
    options = ClusterOptions(agents=1, agent_flags={"isolation": "no/such"})
    cluster = EmbeddedCluster(tmp_path, options=options)
    with pytest.raises(ClusterError) as caught:
        cluster.up()
    message = str(caught.value)
    assert message.startswith("agent-1 ended with exit code 1 while starting")
    assert "no/such" in message
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masters": 2}, "2 masters: an embedded cluster has 1 or 3"),
        ({"agents": 0}, "0 agents"),
        ({"cpus": 0.0}, "0 cpus per agent"),
        ({"mem_mb": 31}, "31 MB of memory"),
    ],
)
def test_options_that_make_no_cluster(tmp_path: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(ClusterError, match=message):
        EmbeddedCluster(tmp_path, **options)  # type: ignore[arg-type]


def test_unknown_and_stopped_daemons(cluster: EmbeddedCluster) -> None:
    with pytest.raises(ClusterError, match="no 'agent-7' in this cluster: it has master-1, agent-1, agent-2"):
        cluster.stop("agent-7")
    with pytest.raises(ClusterError, match="agent-1 is running already"):
        cluster.start("agent-1")
    cluster.stop("agent-1")
    with pytest.raises(ClusterError, match="agent-1 is not running"):
        cluster.kill("agent-1")
