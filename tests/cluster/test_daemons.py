"""The Mesos programs as docker/mesos builds them, without a cluster around them."""

import http.client
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scheduler.cluster_binaries import find_mesos
from scheduler.cluster_master import mesos_serves, registered_agents
from scheduler.cluster_ports import PortChooser
from tests.cluster.waiting import wait_until

pytestmark = pytest.mark.cluster

TIMEOUT_S = 20


def run(
    program: str, *arguments: str, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], **variables}
    command = [str(find_mesos() / "bin" / program), *arguments]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT_S)


@contextmanager
def running(program: str, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(find_mesos() / "bin" / program), *arguments]
    environment = {"PATH": os.environ["PATH"], **variables}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("mesos-master", ["--zk=VALUE", "--quorum=VALUE", "--acls=VALUE", "--advertise_ip=VALUE"]),
        ("mesos-agent", ["--master=VALUE", "--isolation=VALUE", "--resources=VALUE", "--ip=VALUE"]),
        ("mesos-containerizer", ["launch"]),
        ("mesos-fetcher", ["MESOS_FETCHER_INFO"]),
    ],
)
def test_help_and_version(program: str, expected: list[str]) -> None:
    helped = run(program, "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert helped.stdout.startswith(f"Usage: {program}")
    assert all(flag in helped.stdout for flag in expected)
    version = run(program, "--version")
    assert (version.returncode, version.stdout, version.stderr) == (0, "mesos 1.11.0\n", "")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("mesos-master --no_such_flag=1 --work_dir=w", "unknown flag 'no_such_flag'"),
        ("mesos-agent --no_such_flag=1 --work_dir=w", "unknown flag 'no_such_flag'"),
        ("mesos-master --port=http --work_dir=w", "'port'"),
        ("mesos-master --quorum=two --work_dir=w", "'quorum'"),
        ("mesos-master --work_dir=w surplus", "unexpected argument 'surplus'"),
        ("mesos-master", "--work_dir is required"),
        ("mesos-master --work_dir=w --zk=zk://127.0.0.1:1/mesos", "--quorum is required with --zk"),
        ("mesos-master --work_dir=w --registry=stone", "--registry: 'stone' is not supported"),
        ("mesos-master --work_dir=w --acls={", "'acls'"),
        ("mesos-master --work_dir=w --agent_removal_rate_limit=1", "is not AGENTS/DURATION"),
        ("mesos-master --work_dir=/proc/none", "cannot create --work_dir /proc/none"),
        ("mesos-agent --work_dir=w --runtime_dir=r", "one of --master and --master_detector is required"),
        ("mesos-agent --work_dir=w --runtime_dir=r --master=127.0.0.1:1 --jwt_secret_key=k", "not in this build"),
        ("mesos-containerizer mount", "only the subcommand 'launch'"),
        ("mesos-fetcher", "MESOS_FETCHER_INFO is missing"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, command: str, message: str) -> None:
    program, *arguments = command.split()
    done = run(program, *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{program}: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_master_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    port = PortChooser().one()
    with running("mesos-master", "--ip=127.0.0.1", f"--port={port}", f"--work_dir={tmp_path}") as master:
        wait_until(lambda: mesos_serves("127.0.0.1", port), "the master serves")
        master.send_signal(number)
        assert master.wait(TIMEOUT_S) == 0


def test_every_endpoint_of_an_agent_answers(tmp_path: Path) -> None:
    """Those that need parts which our program makes instead of Mesos's own main among them."""
    port = PortChooser().one()
    arguments = [f"--port={port}", "--ip=127.0.0.1", f"--work_dir={tmp_path}/work", f"--runtime_dir={tmp_path}/run"]
    arguments += ["--master=127.0.0.1:1", "--launcher=posix", "--isolation=posix/cpu,posix/mem"]
    paths = ["/state", "/version", "/containers", "/containerizer/debug", "/monitor/statistics", "/metrics/snapshot"]
    with running("mesos-agent", *arguments) as agent:
        wait_until(lambda: mesos_serves("127.0.0.1", port), "the agent serves")
        for path in [*paths, "/files/debug", "/flags", "/help", "/__processes__"]:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=TIMEOUT_S) as response:
                assert response.status == http.client.OK, path
        agent.terminate()
        assert agent.wait(TIMEOUT_S) == 0


def test_flags_from_variables_and_files(tmp_path: Path) -> None:
    """MESOS_ variables serve as flags, the command line over them; values may be read from files; logs go to files."""
    port, other = PortChooser().one(), PortChooser().one()
    hostname = tmp_path / "hostname"
    hostname.write_text("chosen.example")
    variables = {
        "MESOS_IP": "127.0.0.1",
        "MESOS_PORT": str(other),
        "MESOS_WORK_DIR": str(tmp_path / "work"),
        "MESOS_HOSTNAME": f"file://{hostname}",
        "MESOS_REGISTRY": "in_memory",
        "MESOS_LOG_DIR": str(tmp_path / "logs"),
    }
    with running("mesos-master", f"--port={port}", "--no-hostname_lookup", **variables) as master:
        wait_until(lambda: registered_agents("127.0.0.1", port) == [], "the master leads")
        assert not mesos_serves("127.0.0.1", other)
        master.terminate()
        master.wait(TIMEOUT_S)
    text = "".join(path.read_text() for path in (tmp_path / "logs").glob("mesos-master.INFO"))
    assert '--hostname="chosen.example"' in text
    assert '--registry="in_memory"' in text
    assert '--hostname_lookup="false"' in text
    assert not (tmp_path / "work" / "replicated_log").exists()
