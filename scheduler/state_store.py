"""What a job's driver must not forget, behind one interface; see `recovery` for what is written, and when.

State is a set of records, each a JSON object under a key; a change of several is made whole or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from scheduler.fencing import Holder
from scheduler.json_values import Json


class StateError(Exception):
    """The state cannot be read or written just now; one line."""


@dataclass(frozen=True)
class Driver:
    """Who drives, or drove, a job."""

    epoch: int
    holder: Holder
    lives: bool  #: it holds its lock


class StateStore(Protocol):
    """One job's state. Methods block, and may be called from any one thread at a time.

    All raise StateError; `save` and `check` raise fencing.Superseded when a newer driver has taken over.
    """

    def create(self, records: Mapping[str, Json]) -> None:
        """Begins the state of a new job; this process is its driver, of epoch 1."""

    def acquire(self, take_over: bool = False) -> int:
        """Makes this process the job's driver; returns its epoch.

        Args:
            take_over: even if a driver seems to live.

        Raises:
            fencing.DriverRuns: a driver lives.
        """

    def load(self) -> dict[str, Json]:
        """All records."""

    def save(self, changes: Mapping[str, Json | None]) -> None:
        """Writes records, removes those that are None. Durable when it returns."""

    def check(self) -> None:
        """Looks whether this process is still the job's driver."""

    def driver(self) -> Driver:
        """Who drives it."""

    def remove(self) -> None:
        """Forgets the job."""

    def close(self) -> None:
        """Lets go of lock and connection."""


class JobStates(Protocol):
    """The states of all jobs in one place."""

    def prepare(self) -> None:
        """Makes sure that a job can be begun here. Raises StateError."""

    def ids(self) -> list[str]:
        """Known jobs, sorted. Raises StateError."""

    def store(self, job_id: str) -> StateStore:
        """The state of one job, which may not exist yet."""

    def close(self) -> None:
        """Lets go of connections."""
