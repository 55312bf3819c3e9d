"""The file in which an embedded cluster's commands find each other: its layout and the processes last started."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from scheduler.cluster_errors import ClusterError
from scheduler.cluster_layout import ClusterLayout, Daemon
from scheduler.cluster_processes import MARKER, is_alive

VERSION = 1
LOCK_TIMEOUT_S = 60.0
# A start time is computed from the host's clock, which may be set meanwhile.
_CREATED_TOLERANCE_S = 60.0


@dataclass(frozen=True)
class ProcessRecord:
    """A process that was started: its id may have been given to another since."""

    pid: int
    created_s: float  # start time since the epoch

    def process(self, directory: Path) -> psutil.Process | None:
        """The process if it lives and is a daemon of the cluster in `directory`, else None."""
        try:
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.created_s) > _CREATED_TOLERANCE_S or not is_alive(process):
                return None
            return process if process.environ().get(MARKER) == str(directory) else None
        except (psutil.Error, OSError):
            return None


@dataclass
class ClusterState:
    """Layout and processes; saved whenever a process is started."""

    layout: ClusterLayout
    records: dict[str, ProcessRecord] = field(default_factory=dict)  # by the daemon's name

    def process(self, daemon: Daemon) -> psutil.Process | None:
        """The live process of a daemon, if any."""
        record = self.records.get(daemon.name)
        return record.process(self.layout.directory) if record else None

    def save(self) -> None:
        """Replaces the file."""
        layout = self.layout
        document = {
            "version": VERSION,
            "address": layout.address,
            "bind": layout.bind,
            "daemons": [
                {
                    "name": daemon.name,
                    "argv": daemon.argv,
                    "port": daemon.port,
                    "offered_ports": daemon.offered_ports,
                }
                for daemon in layout.daemons
            ],
            "processes": {
                name: {"pid": record.pid, "created_s": record.created_s} for name, record in self.records.items()
            },
        }
        path = state_path(layout.directory)
        beside = path.with_suffix(".new")
        with open(beside, "w") as file:
            json.dump(document, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)

    @staticmethod
    def load(directory: Path) -> "ClusterState | None":
        """What the file says, or None where there is none.

        Raises:
            ClusterError: the file is not one of ours.
        """
        path = state_path(directory)
        try:
            document: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ClusterError(f"{path} is unreadable ({error}): remove {directory}", exit_code=2) from error
        if not isinstance(document, dict) or document.get("version") != VERSION:
            raise ClusterError(f"{path} is of another version of mesograd: remove {directory}", exit_code=2)
        daemons = tuple(
            Daemon(
                name=entry["name"],
                argv=tuple(entry["argv"]),
                port=entry["port"],
                directory=directory / entry["name"],
                offered_ports=tuple(entry["offered_ports"]) if entry["offered_ports"] else None,
            )
            for entry in document["daemons"]
        )
        layout = ClusterLayout(directory, document["address"], document["bind"], daemons)
        return ClusterState(layout, {name: ProcessRecord(**entry) for name, entry in document["processes"].items()})


def state_path(directory: Path) -> Path:
    """The state file of the cluster in `directory`."""
    return directory / "cluster.json"


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """One command at a time; the kernel frees the lock of a command that dies.

    Raises:
        ClusterError: another one has held it for `LOCK_TIMEOUT_S`, or the directory cannot be written.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    try:
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ClusterError(f"cannot write in {directory}: {error.strerror}", exit_code=2) from error
    with os.fdopen(descriptor) as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ClusterError(f"another `mesograd cluster` command is busy in {directory}") from None
                time.sleep(0.05)
        yield
