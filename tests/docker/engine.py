"""The Docker engine and docker-compose as a test uses them: whether they are there, a cluster, what is left of it."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]
ANSWER_TIMEOUT_S = 30.0
BUILD_TIMEOUT_S = 1500.0  # everything is downloaded the first time


def answers(*command: str) -> bool:
    """True if `command` is there and ends well."""
    if shutil.which(command[0]) is None:
        return False
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=ANSWER_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def find_compose() -> list[str]:
    """`docker compose` where Docker has it, else the older `docker-compose`, else nothing."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if answers(*command, "version"):
            return command
    return []


def obstacle() -> str:
    """Why no test can run on containers here; empty if they can."""
    if not answers("docker", "info"):
        return "no Docker engine answers"
    return "" if find_compose() else "a Docker engine answers, but there is neither `docker compose` nor docker-compose"


class ComposeCluster:
    """The cluster of docker-compose.yml under a project name of its own."""

    def __init__(self, project: str) -> None:
        self.project = project
        self._compose = find_compose()
        self._environment = {**os.environ, "COMPOSE_PROJECT_NAME": project}
        # What a developer set for the real cluster must not change the test's.
        for name in ("AGENT_CPUS", "AGENT_MEM_MB", "COMPOSE_FILE", "COMPOSE_PROFILES"):
            self._environment.pop(name, None)

    def compose(self, *arguments: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
        """Runs docker-compose; its two outputs come apart, as text.

        Raises:
            subprocess.TimeoutExpired: it took longer than `timeout_s`.
        """
        return subprocess.run(
            [*self._compose, *arguments],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
        )

    def up(self, agents: int) -> None:
        """Builds the images, starts the cluster and waits until it is healthy."""
        done = self.compose("build", timeout_s=BUILD_TIMEOUT_S)
        assert done.returncode == 0, (
            f"the images cannot be built; where no registry is reached, docker/base-image.sh makes the base image "
            f"(docs/docker.md):\n{tail(done)}"
        )
        done = self.compose("up", "-d", "--scale", f"agent={agents}", timeout_s=180)
        assert done.returncode == 0, f"the cluster does not come up:\n{tail(done)}"

    def client(self, *command: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
        """Runs `command` in a new client container."""
        return self.compose("run", "--rm", "-T", "client", *command, timeout_s=timeout_s)

    @contextmanager
    def started_client(self, *command: str, timeout_s: float) -> Iterator[IO[str]]:
        """Runs `command` in a new client container; gives what it prints, which ends after `timeout_s` at most."""
        with subprocess.Popen(
            [*self._compose, "run", "--rm", "-T", "client", *command],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            deadline = threading.Timer(timeout_s, process.kill)
            deadline.start()
            try:
                assert process.stdout is not None
                yield process.stdout
            finally:
                deadline.cancel()
                process.kill()

    def master_state(self) -> dict[str, Any]:
        """What the master knows of frameworks, tasks and agents."""
        script = "import urllib.request as u; print(u.urlopen('http://master:5050/state', timeout=10).read().decode())"
        done = self.compose("exec", "-T", "client", "python", "-c", script, timeout_s=60)
        assert done.returncode == 0, tail(done)
        state: dict[str, Any] = json.loads(done.stdout)
        return state

    def kill_agent(self, address: str) -> None:
        """Ends the container of the agent at `address` and all processes in it, without a word."""
        self._docker("kill", *(name for name in self._containers("agent") if self._address(name) == address))

    def down(self) -> None:
        """Removes the cluster; its images stay, they are the next build's cache."""
        done = self.compose("down", "--volumes", "--remove-orphans", timeout_s=120)
        assert done.returncode == 0, f"the cluster does not go down:\n{tail(done)}"

    def addresses(self, service: str) -> set[str]:
        """IP addresses of the running containers of `service`."""
        return {self._address(name) for name in self._containers(service)}

    def remains(self) -> list[str]:
        """Containers, networks and volumes of this project, each as "kind id"."""
        kinds = {"container": ("ps", "--all"), "network": ("network", "ls"), "volume": ("volume", "ls")}
        return [
            f"{kind} {found}"
            for kind, command in kinds.items()
            for found in self._docker(*command, "--quiet", *self._ours())
        ]

    def _containers(self, service: str) -> list[str]:
        return self._docker("ps", "--quiet", "--filter", f"label=com.docker.compose.service={service}", *self._ours())

    def _address(self, container: str) -> str:
        template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return self._docker("inspect", "--format", template, container)[0]

    def _ours(self) -> tuple[str, str]:
        return "--filter", f"label=com.docker.compose.project={self.project}"

    def _docker(self, *arguments: str) -> list[str]:
        done = subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, timeout=ANSWER_TIMEOUT_S, check=True
        )
        return done.stdout.split()


def tail(done: subprocess.CompletedProcess[str], lines: int = 40) -> str:
    """The end of what a command printed."""
    return "\n".join([*done.stdout.splitlines()[-lines:], *done.stderr.splitlines()[-lines:]])
