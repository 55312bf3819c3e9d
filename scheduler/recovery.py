"""What of a job's present is written down ahead of every action, and how a restarted driver goes on from it.

Pure, as the rest of the framework's state machine: `Recorder.changes` says which records differ from what was written
last; `restore` makes the job's present out of records. Where the records were written but what they announce was never
sent (a launch, a kill), reconciliation finds out: Mesos knows no such task, or still runs it.

    framework       id
    slot ROLE INDEX incarnation, failures in a row, whether it is open, the live task: ids, agent, executor, Mesos
                    state, hello
    executors       how many were ever launched
    executor AGENT  ExecutorInfo as launched
    members         attempt, servers, replicas, which of them are in step, servers of the attempt before
    size            how many workers and servers are wanted, how many workers at least, whether the training has begun
    progress        what has been reported (progress_marks.py)
    ending          phase, outcome, once the job ends
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proto import control_pb2
from scheduler import actions as act
from scheduler.ending import Ending, Phase
from scheduler.executors import Executor
from scheduler.job_state import JobState, Size, initial_size
from scheduler.json_values import Json, decode, encode
from scheduler.membership import Members
from scheduler.outcome import Outcome
from scheduler.progress_marks import ProgressMarks
from scheduler.slots import Slot, Task

FRAMEWORK, MEMBERS, PROGRESS, EXECUTORS, ENDING = "framework", "members", "progress", "executors", "ending"
SIZE = "size"
SLOT, EXECUTOR = "slot ", "executor "


def executor_key(agent_id: str, revocable: bool) -> str:
    return f"{EXECUTOR}{agent_id}{' revocable' if revocable else ''}"


def slot_key(slot: Slot) -> str:
    return f"{SLOT}{slot.role} {slot.index}"


class Recorder:
    """Knows what was written last. Slots, executors and progress say themselves when they have changed (`touched`)."""

    def __init__(self, job: JobState, ending: Ending, written: Mapping[str, Json]) -> None:
        self._job = job
        self._ending = ending
        self._written: dict[str, Json] = dict(written)

    def changes(self) -> dict[str, Json | None]:
        """Records that have become different since the last call; None for those that are to be removed."""
        job = self._job
        found: dict[str, Json | None] = {
            FRAMEWORK: {"id": job.framework_id} if job.framework_id else None,
            MEMBERS: encode(job.members) if job.members.attempt else None,
            SIZE: encode(job.size) if job.size != initial_size(job.plan) else None,
            EXECUTORS: {"launched": job.executors.launched} if job.executors.launched else None,
            ENDING: _ending_record(self._ending) if self._ending.phase is not Phase.RUNNING else None,
        }
        if job.marks.touched:
            job.marks.touched = False
            found[PROGRESS] = encode(job.marks.reported)
        for slot in job.slots.take_touched():
            found[slot_key(slot)] = _slot_record(slot)
        for agent_id, revocable in job.executors.take_touched():
            executor = job.executors.at(agent_id, revocable)
            found[executor_key(agent_id, revocable)] = encode(executor) if executor is not None else None
        changes = {key: record for key, record in found.items() if self._written.get(key) != record}
        for key, record in changes.items():
            if record is None:
                self._written.pop(key, None)
            else:
                self._written[key] = record
        return changes


def snapshot(job: JobState, ending: Ending) -> dict[str, Json]:
    """All records of the present, whatever was written before."""
    for slot in job.slots.all:
        job.slots.touch(slot)
    for executor in job.executors.all():
        job.executors.touch(executor.agent_id, executor.revocable)
    job.marks.touched = True
    return {key: record for key, record in Recorder(job, ending, {}).changes().items() if record is not None}


def marks(records: Mapping[str, Json]) -> ProgressMarks:
    """What has been reported. Raises ValueError if it cannot be read."""
    return decode(ProgressMarks, records.get(PROGRESS, {}))


def restore(job: JobState, ending: Ending, records: Mapping[str, Json], now: float) -> None:
    """Makes `job` and `ending`, which are new, what the records say. Raises ValueError if they cannot be read.

    Tasks count as silent from `now` on; back-offs are over; nothing is connected.
    """
    job.framework_id = str(records.get(FRAMEWORK, {}).get("id", ""))
    job.members = decode(Members, records.get(MEMBERS, {}))
    job.size = decode(Size, records[SIZE]) if SIZE in records else job.size
    job.executors.launched = int(records.get(EXECUTORS, {}).get("launched", 0))
    job.marks.reported = marks(records)
    job.step, job.epoch = job.marks.reported.step, job.marks.reported.epoch
    for key, record in records.items():
        if key.startswith(SLOT):
            _restore_slot(job, key, record, now)
        elif key.startswith(EXECUTOR):
            executor = decode(Executor, record)
            executor.certain = executor.confirmed
            job.executors.restore(executor)
    if ENDING in records:
        record = records[ENDING]
        ending.restore(Phase(record["phase"]), decode(Outcome, record["outcome"]), now)


def _slot_record(slot: Slot) -> Json:
    record: Json = {"incarnation": slot.incarnation, "failures": slot.failures}
    if not slot.open:
        record["open"] = False
    if slot.mem_factor != 1.0:
        record["mem_factor"] = slot.mem_factor
    if slot.task is not None:
        task = slot.task
        record["task"] = {
            "task_id": task.task_id,
            "agent_id": task.agent_id,
            "hostname": task.hostname,
            "executor_id": task.executor_id,
            "state": task.state,
            "attributes": dict(task.attributes),
            "revocable": task.revocable,
            "hello": encode(task.hello.SerializeToString()) if task.hello is not None else "",
        }
    return record


def _restore_slot(job: JobState, key: str, record: Json, now: float) -> None:
    role, index = key.removeprefix(SLOT).rsplit(" ", 1)
    slot = job.slots.ensure(role, int(index))
    slot.incarnation, slot.failures = int(record["incarnation"]), int(record["failures"])
    job.slots.give_memory(slot, float(record.get("mem_factor", 1.0)))
    if not record.get("open", True):
        job.slots.close(slot)
    saved: dict[str, Any] | None = record.get("task")
    if saved is None:
        return
    task = Task(
        task_id=saved["task_id"],
        agent_id=saved["agent_id"],
        hostname=saved["hostname"],
        executor_id=saved["executor_id"],
        launched_at=now,
        state=saved["state"],
        changed_at=now,
        silent_since=now,
        attributes=saved.get("attributes", {}),
        revocable=bool(saved.get("revocable", False)),
    )
    job.slots.fill(slot, task)
    if saved["hello"]:
        task.hello = control_pb2.Hello.FromString(decode(bytes, saved["hello"]))


def _ending_record(ending: Ending) -> Json:
    return {"phase": ending.phase.value, "outcome": encode(ending.outcome)}


class Adoption:
    """Part of the framework's state machine, in a driver that was restarted: takes tasks over, and says when it has.

    A task counts as adopted when it has said hello on the control channel. Those that have not are told, by way of
    their executor, where this driver listens: they may look for it at the address of the one before.
    """

    def __init__(self, job: JobState, ending: Ending) -> None:
        self._job = job
        self._ending = ending
        self._waiting = {task.task_id for _, task in job.slots.tasks()}
        self._adopted = 0
        self._told_at: float | None = None
        self._over = False

    def connected(self) -> None:
        """Executors without tasks may have died unseen: later tasks get new ones."""
        job = self._job
        busy = {task.executor_id for _, task in job.slots.tasks()}
        for executor in job.executors.all():
            if executor.executor_id not in busy:
                job.do(act.ShutdownExecutor(executor.executor_id, executor.agent_id))
                job.executors.forget(executor.agent_id, executor.executor_id)

    def advance(self, now: float) -> None:
        """Looks who is still awaited."""
        job = self._job
        if self._over or not job.connected:
            return
        missing = []
        for task_id in sorted(self._waiting):
            found = job.slots.find(task_id)
            if found is not None and not found[1].attached:
                missing.append(found[1])
                continue
            self._waiting.discard(task_id)
            self._adopted += found is not None
        if not missing:
            self._over = True
            if self._ending.phase is Phase.RUNNING:
                empty = sum(1 for _ in job.slots.empty())
                others = f", {empty} are launched anew" if empty else ""
                job.note(f"in control of {job.plan.job_id}: {self._adopted} of its tasks run on{others}")
        elif self._told_at is None or now - self._told_at >= job.patience.tell_address_s:
            self._told_at = now
            for executor_id, agent_id in sorted({(task.executor_id, task.agent_id) for task in missing}):
                job.do(act.TellExecutor(executor_id, agent_id, job.plan.control))
