"""`mesograd cluster`: what it prints and its exit codes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from scheduler.cluster_cli import cluster
from tests.cluster.conftest import assert_nothing_left

pytestmark = pytest.mark.cluster


class Cli:
    """The command group with --dir given."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(cluster, [*arguments, "--dir", str(self.directory)])


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    command = Cli(tmp_path / "cluster")
    yield command
    assert command("down").exit_code == 0


def test_a_cluster_by_commands(cli: Cli) -> None:
    up = cli("up", "--agents", "2", "--cpus", "3", "--mem", "512")
    assert up.exit_code == 0, up.output
    assert f"cluster of 2 agents (3 cpus, 512 MB each) in {cli.directory}" in up.output
    assert "mesograd run --master 127.0.0.1:" in up.output

    status = cli("status")
    assert status.exit_code == 0
    lines = status.output.splitlines()[1:]
    assert [line.split()[:2] for line in lines] == [
        ["master-1", "leading"],
        ["agent-1", "registered"],
        ["agent-2", "registered"],
    ]
    assert "cpus 0/3 mem 0/512 MB" in lines[1]

    again = cli("up")
    assert again.exit_code == 2
    assert "is up already" in again.output
    assert len(again.output.splitlines()) == 1

    assert cli("kill", "agent-2").exit_code == 0
    status = cli("status")
    assert status.exit_code == 1
    assert status.output.splitlines()[3].split()[:2] == ["agent-2", "stopped"]
    assert cli("start", "agent-2").exit_code == 0
    assert cli("stop", "agent-1").exit_code == 0
    assert cli("restart", "agent-1").exit_code == 0

    down = cli("down")
    assert down.output == f"cluster in {cli.directory} is down\n"
    assert_nothing_left(cli.directory)
    assert cli("down").output == f"no cluster was up in {cli.directory}\n"


def test_without_a_cluster(cli: Cli) -> None:
    status = cli("status")
    assert status.exit_code == 2
    assert status.output == f"Error: no cluster in {cli.directory}: start one with `mesograd cluster up`\n"


def test_without_mesos(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESOGRAD_MESOS", str(tmp_path / "none"))
    up = cli("up")
    assert up.exit_code == 2
    assert up.output.startswith(f"Error: no Mesos in {tmp_path}/none: run `make mesos`")
    assert len(up.output.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [["up", "--masters", "2"], ["up", "--agents", "0"], ["up", "--cpus", "0"], ["up", "--no-such"]]
)
def test_wrong_options(cli: Cli, arguments: list[str]) -> None:
    assert cli(*arguments).exit_code == 2
    assert not cli.directory.exists()
