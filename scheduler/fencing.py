"""Two drivers of one job never fight: every driver has an epoch, and only the newest may write or launch.

Whoever takes a job over raises the epoch in the job's state. A driver of an older epoch learns of it when it next
writes or looks (`Superseded`), or from Mesos ("Framework failed over"), and leaves everything alone. So that nobody
takes over from a driver that lives by mistake, a driver holds a lock for as long as its process lives; on one machine
the kernel lets go of it in the moment of its death.
"""

from __future__ import annotations

import fcntl
import os
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil


class Superseded(Exception):
    """A newer driver has taken the job over."""


class DriverRuns(Exception):
    """The job has a driver that lives, as far as can be seen from here."""


@dataclass(frozen=True)
class Holder:
    """The process that drives a job."""

    host: str
    pid: int
    started_s: float  #: when the process started, seconds since the epoch: process ids are used again

    @classmethod
    def this_process(cls) -> Holder:
        return cls(socket.gethostname(), os.getpid(), psutil.Process().create_time())

    @property
    def is_here(self) -> bool:
        """It runs, or ran, on this host."""
        return self.host == socket.gethostname()

    @property
    def is_dead(self) -> bool:
        """Known to be: it ran on this host, and runs no longer."""
        if not self.is_here:
            return False
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started_s) > 1.0 or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class LockFile:
    """A file locked for as long as this process lives or `release` is called. One per epoch."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def acquire(self) -> bool:
        """Whether nobody else holds it, and this process does now. Raises OSError."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self, remove: bool = False) -> None:
        """Lets go of it."""
        if self._descriptor >= 0:
            if remove:
                self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def is_held(self) -> bool:
        """Whether some process holds it."""
        if not self._path.exists():
            return False
        if self._descriptor >= 0:
            return True
        if not self.acquire():
            return True
        self.release()
        return False
