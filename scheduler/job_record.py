"""What is written down once when a job begins: enough to drive it without its script."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from scheduler.json_values import Json, decode, encode
from scheduler.outcome import Outcome
from scheduler.plan import JobPlan
from scheduler.state_store import JobStates, StateError, StateStore

JOB, FINISHED = "job", "finished"


@dataclass(frozen=True)
class JobRecord:
    """One job. The principal's secret is not part of it."""

    plan: JobPlan
    master: str  #: "host:port" or "zk://..."
    embedded: bool  #: the master is that of local[N], which ends with the driver that started it
    driver_host: str  #: address of the first driver's control channel
    samples_per_epoch: int
    batch_size: int
    summary_directory: str = ""  #: empty: no TensorBoard files
    caveat: str = ""  #: why another run may end with other weights; empty where it does not
    begun_s: float = 0.0  #: wall clock, seconds since the epoch; for people


@dataclass(frozen=True)
class Finished:
    """How a job ended."""

    outcome: Outcome
    framework_gone: bool
    at_s: float  #: wall clock, for people


def create(store: StateStore, record: JobRecord) -> None:
    """Begins the job's state. Raises StateError."""
    store.create({JOB: encode(record)})


def load(records: dict[str, Json]) -> JobRecord:
    """Raises StateError if there is no job in them."""
    try:
        return decode(JobRecord, records[JOB])
    except (KeyError, ValueError) as error:
        raise StateError(f"this is no job's state: {error}") from error


def finished(records: dict[str, Json]) -> Finished | None:
    """How the job ended, if it has. Raises StateError."""
    try:
        return decode(Finished, records[FINISHED]) if FINISHED in records else None
    except ValueError as error:
        raise StateError(str(error)) from error


def finish(store: StateStore, outcome: Outcome, framework_gone: bool) -> None:
    """Keeps how the job ended; secret and code are forgotten, unless its framework may have to be removed yet.

    Raises:
        StateError, Superseded: as the store does.
    """
    records = store.load()
    changes: dict[str, Json | None] = {FINISHED: encode(Finished(outcome, framework_gone, time.time()))}
    if framework_gone:
        record = load(records)
        changes |= dict.fromkeys(records)
        changes[JOB] = encode(replace(record, plan=replace(record.plan, spec=b"", sources={}, secret="")))
        changes[FINISHED] = encode(Finished(outcome, framework_gone, time.time()))
    store.save(changes)


def forget_old(states: JobStates, keep: int = 50) -> None:
    """Removes the state of all but the newest finished jobs."""
    ended: list[tuple[float, StateStore]] = []
    for job_id in states.ids():
        store = states.store(job_id)
        try:
            end = finished(store.load())
        except StateError:
            end = None
        if end is not None and end.framework_gone:
            ended.append((end.at_s, store))
        else:
            store.close()
    ended.sort(key=lambda entry: entry[0])
    for _, store in ended[: max(0, len(ended) - keep)]:
        store.remove()
    for _, store in ended[-keep:]:
        store.close()
