"""Drives a job again whose driver died: `mesograd run --attach`, and ends one: `mesograd kill`.

The script is not executed again; all that is needed is in the job's state.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from proto.mesos_http import basic_credential
from scheduler import conclusion, job_record, recovery, signals
from scheduler import events as ev
from scheduler.driver import Start, drive
from scheduler.fencing import DriverRuns
from scheduler.job_record import Finished, JobRecord
from scheduler.job_states import job_states
from scheduler.json_values import Json
from scheduler.master import RemoteMaster, address_towards, framework_named, leading_master
from scheduler.outcome import EXIT_FAILED, JobResult, Outcome, UsageError
from scheduler.phases import Phases
from scheduler.progress import print_results
from scheduler.requests import framework_name
from scheduler.state_store import Driver, JobStates, StateError, StateStore


@dataclass(frozen=True)
class KnownJob:
    """One line of `mesograd jobs`."""

    job_id: str
    state: str  #: "running", "driver lost", "cluster lost", "finished", "failed", "stopped", "unreadable"
    detail: str = ""
    begun_s: float = 0.0
    step: int = 0


def known_jobs(place: str) -> list[KnownJob]:
    """All jobs in the state directory (or ZooKeeper), oldest first. Raises StateError, UsageError."""
    states = job_states(place)
    try:
        found = [_known(states, job_id) for job_id in states.ids()]
    finally:
        states.close()
    return sorted(found, key=lambda job: (job.begun_s, job.job_id))


def _known(states: JobStates, job_id: str) -> KnownJob:
    store = states.store(job_id)
    try:
        records = store.load()
        record, end, driver = job_record.load(records), job_record.finished(records), store.driver()
    except StateError as error:
        return KnownJob(job_id, "unreadable", str(error))
    finally:
        store.close()
    step = int(records.get(recovery.PROGRESS, {}).get("step", 0))
    state, detail = _state_of(job_id, record, end, driver)
    return KnownJob(job_id, state, detail, record.begun_s, end.outcome.step if end is not None else step)


def _state_of(job_id: str, record: JobRecord, end: Finished | None, driver: Driver) -> tuple[str, str]:
    if end is not None:
        lingers = "" if end.framework_gone else f"; its framework may still be there: mesograd kill {job_id}"
        state = "stopped" if end.outcome.signal else "failed" if end.outcome.error else "finished"
        return state, f"{end.outcome.error}{lingers}"
    if driver.lives:
        return "running", f"driver: {driver.holder}"
    if record.embedded:
        return "cluster lost", "it ran on an embedded cluster, which ended with its driver"
    return "driver lost", f"mesograd run --attach {job_id}"


def attach(
    job_id: str, place: str, principal_secret: str | None, driver_host: str, verbose: bool, take_over: bool
) -> JobResult:
    """Becomes the driver of a job, to its end.

    Args:
        job_id: of the job; empty for the only one that has lost its driver.
        place: as `job_states`.
        principal_secret: for masters that authenticate frameworks.
        driver_host: address of this machine that agents reach; empty: that of the driver before, or found out.
        verbose: show what happens inside.
        take_over: even if its driver seems to live.

    Raises:
        UsageError: there is no such job, or it cannot be driven.
        JobFailed: it did not reach its end; it has been said why.
    """
    conclusion.set_up_logging(verbose)
    states = job_states(place)
    try:
        store = states.store(job_id or _only_lost(place))
        try:
            outcome, record = _attach(store, principal_secret, driver_host, take_over)
        finally:
            store.close()
    except StateError as error:
        raise conclusion.failed(f"{error}; see `mesograd jobs`", EXIT_FAILED) from None
    finally:
        states.close()
    return conclusion.result(outcome, record.plan.checkpoint_url)


def kill(job_id: str, place: str, principal_secret: str | None) -> str:
    """Ends a job that has no driver, with all its tasks; returns what was done, for people.

    Raises:
        UsageError: there is no such job, or it has a driver.
        JobFailed: the master did not confirm it.
    """
    conclusion.set_up_logging(False)
    states = job_states(place)
    store = states.store(job_id)
    try:
        records = store.load()
        record, end = job_record.load(records), job_record.finished(records)
        if end is not None and end.framework_gone:
            return f"{job_id} has ended already"
        _acquire(store, job_id, take_over=False)
        if record.embedded:
            job_record.finish(store, Outcome("killed", signal=signal.SIGTERM), framework_gone=True)
            return f"{job_id} ended with its embedded cluster; nothing was left of it"
        records.pop(job_record.FINISHED, None)
        stops = [ev.StopRequested(signal.SIGTERM)] * 2
        _drive(store, record, records, principal_secret, "", stops)
        end = job_record.finished(store.load())
    except StateError as error:
        raise UsageError(f"{error}; see `mesograd jobs`") from None
    finally:
        store.close()
        states.close()
    if end is None or not end.framework_gone:
        raise conclusion.failed(f"the master has not confirmed the end of {job_id}: try again", EXIT_FAILED)
    return f"{job_id}: framework and tasks are gone"


def _only_lost(place: str) -> str:
    lost = [job.job_id for job in known_jobs(place) if job.state == "driver lost"]
    if len(lost) != 1:
        which = f"{len(lost)} jobs have lost their driver: {', '.join(lost)}" if lost else "no job has lost its driver"
        raise UsageError(f"--attach: {which}; name the job (see `mesograd jobs`)")
    return lost[0]


def _acquire(store: StateStore, job_id: str, take_over: bool) -> None:
    try:
        store.acquire(take_over)
    except DriverRuns as error:
        raise UsageError(f"job {job_id} has a driver: {error}; end that first, or --take-over if it hangs") from None


def _attach(
    store: StateStore, principal_secret: str | None, driver_host: str, take_over: bool
) -> tuple[Outcome, JobRecord]:
    records = store.load()
    record, end = job_record.load(records), job_record.finished(records)
    if end is not None:
        if not end.outcome.error:
            print_results(sys.stdout, end.outcome)
        return end.outcome, record
    job_id = record.plan.job_id
    if record.embedded:
        resume = "; continue from its last checkpoint with --resume" if record.plan.checkpoint_url else ""
        raise UsageError(f"job {job_id} ran on an embedded cluster, which ended with its driver{resume}")
    _acquire(store, job_id, take_over)
    records = store.load()  # what the driver before wrote last
    return _drive(store, record, records, principal_secret, driver_host, []), record


def _is_ours(address: str) -> bool:
    """This machine has it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
    return True


def _drive(
    store: StateStore,
    record: JobRecord,
    records: dict[str, Json],
    principal_secret: str | None,
    driver_host: str,
    events: Sequence[ev.Event],
) -> Outcome:
    plan = record.plan
    host = driver_host or (record.driver_host if _is_ours(record.driver_host) else "")
    # Without a master training goes on, and so does the wait for it; it is needed only to find out what is not known.
    leader = "" if host and recovery.FRAMEWORK in records else leading_master(RemoteMaster(record.master))
    if recovery.FRAMEWORK not in records:
        # The driver may have died between the master's answer and writing it down.
        credential = basic_credential(plan.principal, principal_secret) if principal_secret else None
        framework_id = framework_named(leader, framework_name(plan), credential)
        if framework_id:
            records[recovery.FRAMEWORK] = {"id": framework_id}
            store.save({recovery.FRAMEWORK: records[recovery.FRAMEWORK]})
    reporter = conclusion.reporter(record, recovery.marks(records))
    with signals.unwinding():
        outcome = asyncio.run(
            drive(
                plan,
                record.master,
                host or address_towards(leader),
                reporter,
                store,
                Phases(),
                principal_secret=principal_secret,
                start=Start(records, events),
            )
        )
    if not events:
        reporter.finish(replace(outcome, caveat=record.caveat))
    return outcome
