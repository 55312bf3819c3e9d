"""Starting the daemons of an embedded cluster and reaping them; the watcher that ends an ephemeral one."""

import os
import subprocess
import sys
from pathlib import Path

import psutil

from scheduler import cluster_processes
from scheduler.cluster_layout import Daemon
from scheduler.cluster_state import ProcessRecord

REAP_TIMEOUT_S = 10.0
# What a user set for other Mesos programs must not reach the daemons: each takes its flags from MESOS_ variables too.
_FOREIGN_VARIABLES = ("MESOS_", "LIBPROCESS_", "GLOG_")


class Children:
    """Daemons of one directory that this process has started."""

    # Shared by all who manage a directory, and kept: a cluster that is not ephemeral runs on without its starter.
    _of_directory: dict[Path, "Children"] = {}

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._processes: dict[str, subprocess.Popen[bytes]] = {}  # by the daemon's name

    @classmethod
    def of(cls, directory: Path) -> "Children":
        """The one object for `directory`."""
        return cls._of_directory.setdefault(directory, cls(directory))

    def launch(self, daemon: Daemon) -> ProcessRecord:
        """Starts a daemon in a session of its own."""
        self.reap(daemon.name)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN_VARIABLES)}
        environment[cluster_processes.MARKER] = str(self._directory)
        with open(daemon.log, "ab") as log:
            process = subprocess.Popen(
                daemon.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=daemon.directory,
                env=environment,
                start_new_session=True,
            )
        self._processes[daemon.name] = process
        try:
            return ProcessRecord(process.pid, psutil.Process(process.pid).create_time())
        except psutil.Error:  # it has ended at once; whoever waits for it says so
            return ProcessRecord(process.pid, 0.0)

    def returncode(self, name: str) -> int | None:
        """How a child ended, as subprocess says it; None if it runs or is none of ours."""
        process = self._processes.get(name)
        return process.poll() if process else None

    def reap(self, name: str) -> None:
        """Forgets a daemon that has ended, or is about to, if it was our child."""
        process = self._processes.pop(name, None)
        if process is not None:
            process.wait(REAP_TIMEOUT_S)

    def reap_all(self) -> None:
        """The same for all."""
        for name in list(self._processes):
            self.reap(name)


class Watcher:
    """A process that ends the cluster when we end, however that happens."""

    def __init__(self, directory: Path, remove: bool) -> None:
        """Starts it; with `remove` it removes the directory as well."""
        program = [sys.executable, "-P", cluster_processes.__file__, str(os.getpid()), str(directory)]
        self._process = subprocess.Popen(
            [*program, *(["--remove"] if remove else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    def dismiss(self) -> None:
        """Lets it end what is left, if anything is, and waits for it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()
