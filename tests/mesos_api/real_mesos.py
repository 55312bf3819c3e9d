"""A real Mesos for tests: one master and one agent as processes, on free ports, in one directory."""

import json
import os
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.mesos_api.recorders import wait_until

CHECKOUT = Path(__file__).resolve().parents[2]
AGENT_FLAGS = {
    "launcher": "posix",
    "isolation": "posix/cpu,posix/mem",
    "systemd_enable_support": "false",
    "resources": "cpus:2;mem:1024;disk:1024;ports:[31000-31100]",
    "executor_reregistration_timeout": "10secs",
    "recovery_timeout": "1mins",
}


def mesos_directory() -> Path:
    """Where bin/mesos-master is; skips the test if it was not built, but fails if someone said where it is."""
    named = os.environ.get("MESOGRAD_MESOS")
    directory = Path(named or CHECKOUT / ".cache" / "mesos")
    if not (directory / "bin" / "mesos-master").exists():
        (pytest.fail if named else pytest.skip)(
            f"no Mesos in {directory}: build it, or set MESOGRAD_MESOS to a directory with bin/mesos-master"
        )
    return directory


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class RealMesos:
    """Runs until stop(). `agent_work` holds the sandboxes; `agent_flags` go over AGENT_FLAGS."""

    def __init__(self, directory: Path, **agent_flags: str) -> None:
        self._bin = mesos_directory() / "bin"
        self._directory = directory
        self.agent_work = directory / "agent"
        self.master = f"127.0.0.1:{free_port()}"
        self._agent_port = free_port()
        self._agent_flags = AGENT_FLAGS | agent_flags
        self.agent = f"127.0.0.1:{self._agent_port}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._start("master", f"--work_dir={directory / 'master'}", f"--port={self.master.split(':')[1]}")
        self.start_agent()

    def _start(self, name: str, *arguments: str) -> None:
        with (self._directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [self._bin / f"mesos-{name}", "--ip=127.0.0.1", *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def start_agent(self) -> None:
        self._start(
            "agent",
            f"--master={self.master}",
            f"--port={self._agent_port}",
            f"--work_dir={self.agent_work}",
            f"--runtime_dir={self._directory / 'run'}",
            f"--launcher_dir={self._bin}",
            *(f"--{name}={value}" for name, value in self._agent_flags.items()),
        )

    def signal_agent(self, number: int) -> None:
        self._processes["agent"].send_signal(number)

    def kill_agent(self) -> None:
        self._processes["agent"].kill()
        self._processes["agent"].wait()

    def kill_master(self) -> None:
        self._processes["master"].kill()
        self._processes["master"].wait()

    def start_master(self) -> None:
        self._start("master", f"--work_dir={self._directory / 'master'}", f"--port={self.master.split(':')[1]}")

    def state(self) -> dict[str, Any]:
        """What the master tells of itself."""
        with urllib.request.urlopen(f"http://{self.master}/state", timeout=10) as answer:
            return dict(json.load(answer))

    def stop(self) -> None:
        for process in self._processes.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def wait_no_framework(self) -> None:
        wait_until(lambda: not self.state()["frameworks"], 10, "the framework was not removed")


__all__ = ["RealMesos", "free_port", "mesos_directory"]
