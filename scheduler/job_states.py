"""Where the states of jobs are kept: a folder of this machine, or ZooKeeper."""

from __future__ import annotations

import os
from pathlib import Path

from scheduler.cluster_binaries import mesograd_home
from scheduler.outcome import UsageError
from scheduler.state_store import JobStates
from scheduler.state_store_sqlite import SqliteStates


def job_states(place: str = "") -> JobStates:
    """Where --state says; else $MESOGRAD_STATE, else $MESOGRAD_HOME/jobs.

    Raises:
        UsageError: it is no place for state.
    """
    place = place or os.environ.get("MESOGRAD_STATE", "")
    if "://" in place:
        from scheduler.state_store_zookeeper import ZooKeeperStates  # 60 ms that most have no use for

        return ZooKeeperStates(place)
    if place and not Path(place).parent.is_dir():
        raise UsageError(f"--state {place}: {os.path.dirname(os.path.abspath(place))} is not a directory")
    return SqliteStates(Path(place).absolute() if place else mesograd_home() / "jobs")
