"""What is planned for a cluster, and where its programs are looked for; no process runs."""

import itertools
from pathlib import Path

import pytest

from scheduler.cluster_binaries import MESOS_PROGRAMS, ZooKeeper, find_mesos, mesograd_home
from scheduler.cluster_errors import ClusterError
from scheduler.cluster_layout import ClusterLayout, ClusterOptions, plan
from scheduler.cluster_state import ClusterState, ProcessRecord

ZOOKEEPER = ZooKeeper(Path("/java"), (Path("/zookeeper.jar"),))


def planned(directory: Path, options: ClusterOptions) -> ClusterLayout:
    counter = itertools.count(0)

    def span(count: int) -> range:
        first = 1000 * next(counter)
        return range(first, first + count)

    return plan(directory, options, Path("/mesos"), ZOOKEEPER if options.masters > 1 else None, span)


def test_one_master(tmp_path: Path) -> None:
    options = ClusterOptions(agents=1, cpus=2.5, mem_mb=100, master_flags={"roles": "a"}, agent_flags={"ip": "::"})
    layout = planned(tmp_path, options)
    assert [daemon.name for daemon in layout.daemons] == ["master-1", "agent-1"]
    master, agent = layout.daemons
    assert layout.address == f"127.0.0.1:{master.port}"
    assert "--roles=a" in master.argv
    assert not any(flag.startswith("--zk") for flag in master.argv)
    assert f"--master={layout.address}" in agent.argv
    assert [flag for flag in agent.argv if flag.startswith("--ip=")] == ["--ip=::"]
    resources = next(flag for flag in agent.argv if flag.startswith("--resources="))
    assert resources.startswith("--resources=cpus(*):2.5;mem(*):100;disk(*):")
    assert resources.endswith(";ports(*):[2000-2099]")
    assert agent.offered_ports == (2000, 2099)


def test_three_masters(tmp_path: Path) -> None:
    layout = planned(tmp_path, ClusterOptions(agents=2, masters=3))
    assert [daemon.name for daemon in layout.daemons] == [
        *("zookeeper", "master-1", "master-2", "master-3", "agent-1", "agent-2")
    ]
    assert layout.address == f"zk://127.0.0.1:{layout.daemon('zookeeper').port}/mesos"
    for master in layout.of_kind("master"):
        assert {"--quorum=2", f"--zk={layout.address}"} <= set(master.argv)


def test_the_state_file_keeps_all_of_it(tmp_path: Path) -> None:
    state = ClusterState(planned(tmp_path, ClusterOptions(masters=3)), {"agent-1": ProcessRecord(12, 3.5)})
    state.save()
    assert ClusterState.load(tmp_path) == state


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 0}'])
def test_a_state_file_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "cluster.json").write_text(text)
    with pytest.raises(ClusterError, match=f"remove {tmp_path}") as caught:
        ClusterState.load(tmp_path)
    assert caught.value.exit_code == 2


def fake_mesos(directory: Path) -> Path:
    (directory / "bin").mkdir(parents=True)
    for program in MESOS_PROGRAMS:
        (directory / "bin" / program).touch(0o755)
    return directory


def test_where_mesos_is_found(tmp_path: Path) -> None:
    chosen, home = tmp_path / "chosen", tmp_path / "home"
    assert mesograd_home({"MESOGRAD_HOME": str(home)}) == home
    with pytest.raises(ClusterError, match=f"no Mesos in {chosen}: run `make mesos`"):
        find_mesos({"MESOGRAD_MESOS": str(chosen), "MESOGRAD_HOME": str(home)})
    fake_mesos(chosen)
    assert find_mesos({"MESOGRAD_MESOS": str(chosen), "MESOGRAD_HOME": str(home)}) == chosen


def test_the_home_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "checkout"
    monkeypatch.setattr("scheduler.cluster_binaries.checkout", lambda: checkout)
    home = fake_mesos(tmp_path / "home" / "mesos")
    assert find_mesos({"MESOGRAD_HOME": str(tmp_path / "home")}) == home
    cache = fake_mesos(checkout / ".cache" / "mesos")
    assert find_mesos({"MESOGRAD_HOME": str(tmp_path / "home")}) == cache
