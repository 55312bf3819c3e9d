"""Watches over launched tasks: what Mesos says of them, and what their silence means."""

from __future__ import annotations

from scheduler import actions as act
from scheduler import events as ev
from scheduler import refusals
from scheduler.ending import Ending, Phase
from scheduler.gang import GIVEN_BACK
from scheduler.job_state import JobState
from scheduler.slots import Slot, Task

_AGENT_FAULTS = frozenset(  #: the task is not to blame
    {
        "REASON_AGENT_DRAINING",
        "REASON_SLAVE_DRAINING",
        "REASON_SLAVE_REMOVED",
        "REASON_SLAVE_REMOVED_BY_OPERATOR",
        "REASON_AGENT_REMOVED_BY_OPERATOR",
        "REASON_CONTAINER_PREEMPTED",  # revocable resources were taken back
    }
)
_MEMORY = "REASON_CONTAINER_LIMITATION_MEMORY"
_EXECUTOR_ENDS = frozenset(
    {"REASON_EXECUTOR_TERMINATED", "REASON_EXECUTOR_REGISTRATION_TIMEOUT", "REASON_EXECUTOR_REREGISTRATION_TIMEOUT"}
)
_FAILURES = frozenset({"TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR"})
_FATAL_EXIT = "2"  #: of a task that a new one could not do better than (docs/architecture.md, "Processes")
_KEPT_CAUSES = 20
_REPLAY = "a new one continues from the last checkpoint"


class Supervision:
    """Part of the framework's state machine: vacates slots whose task is gone, which makes Launching fill them."""

    def __init__(self, job: JobState, ending: Ending) -> None:
        self._job = job
        self._ending = ending
        self._causes: list[tuple[str, str]] = []  #: (line, detail) since the job last got further, the first one first

    def progressed(self) -> None:
        """The job got further: what failed before has been overcome."""
        job = self._job
        job.slots.progressed()
        self._causes.clear()
        for agent_id in job.agents.failing():  # hardly ever any
            if any(task.attached and task.state == "TASK_RUNNING" for _, task in job.slots.on_agent(agent_id)):
                job.agents.worked(agent_id)

    def on_status(self, update: ev.StatusUpdate, now: float) -> None:
        job = self._job
        job.reconciliation.answered(update.task_id)
        found = job.slots.find(update.task_id)
        if found is not None:
            self._changed(*found, update, now)
        elif update.state not in ev.TERMINAL_STATES | ev.DOUBTFUL_STATES and update.agent_id:
            job.kill(update.task_id, update.agent_id)  # given up, and back again
        if "uuid" in update.raw:
            job.do(act.Acknowledge(update.raw))

    def on_launch_failed(self, event: ev.LaunchFailed, now: float) -> None:
        for task_id in event.task_ids:
            self.on_status(ev.StatusUpdate(task_id, "TASK_DROPPED", message=event.message), now)

    def on_agent_lost(self, event: ev.AgentLost, now: float) -> None:
        """No more than a hint, as the status updates of its tasks tell the truth: asks for them."""
        self._job.agents.gone(event.agent_id)
        self._job.reconciliation.add((task.task_id for _, task in self._job.slots.on_agent(event.agent_id)), now)

    def on_executor_lost(self, event: ev.ExecutorLost, now: float) -> None:
        job = self._job
        job.executors.forget(event.agent_id, event.executor_id)
        here = job.slots.on_agent(event.agent_id)
        job.reconciliation.add((task.task_id for _, task in here if task.executor_id == event.executor_id), now)

    def _changed(self, slot: Slot, task: Task, update: ev.StatusUpdate, now: float) -> None:
        job = self._job
        if update.state != task.state:
            task.state, task.changed_at = update.state, now
            job.slots.touch(slot)
        task.asked_at = None
        if update.state in ev.TERMINAL_STATES:
            if update.reason in _EXECUTOR_ENDS:
                job.executors.forget(task.agent_id, task.executor_id)
            why = refusals.task(update, job.plan)
            if why:
                self._ending.fail(why, now)
            if update.exit_code == _FATAL_EXIT and not task.failure and self._ending.phase is Phase.RUNNING:
                words = update.message.strip().splitlines() or ["it did not say why"]
                self._ending.fail(f"{slot.name} on {task.hostname} gave up: {words[-1]}", now, update.message)
            counts = update.state in _FAILURES and update.reason not in _AGENT_FAULTS and not task.leaving
            message = update.message or update.state
            if update.reason == _MEMORY or update.killed_for_memory:
                message = self._killed_for_memory(slot, message)
            elif counts:
                self._blame(task, now)
            if update.reason in _EXECUTOR_ENDS:
                message += f" (see stderr in the sandbox of {task.executor_id})"
            self._lose(slot, task, message, counts, now)
            self._forget_unborn(task)
        elif update.state in ev.DOUBTFUL_STATES:
            if not task.attached:
                self._lose(slot, task, f"out of the master's sight ({update.state}) {update.message}", False, now)
            elif task.doubtful_since is None:  # the agent has lost its master, but the task still talks to us
                task.doubtful_since = now
                job.reconciliation.add([task.task_id], now)
        else:
            task.doubtful_since = None
            job.executors.confirm(task.agent_id, task.executor_id)
            running = not job.marked("tasks running")
            if running and all(task.state == "TASK_RUNNING" for _, task in job.slots.tasks()):
                job.mark("tasks running")

    def _killed_for_memory(self, slot: Slot, message: str) -> str:
        """Its message for people; the next task of the slot gets more, if that is allowed."""
        job = self._job
        had_mb = job.slots.need(slot).mem_mb
        text = f"killed for want of memory, of which it had {had_mb:g} MB"
        if job.plan.mem_retry > 1 and not self._ending.begun:
            job.slots.give_memory(slot, slot.mem_factor * job.plan.mem_retry)
            text += f"; the next one gets {job.slots.need(slot).mem_mb:g} MB"
        elif slot.role == "worker":
            text += " (give more with --mem-per-worker, or let it grow with --mem-retry)"
        return f"{text}\n{message}"

    def _blame(self, task: Task, now: float) -> None:
        """An agent that fails tasks while others do not gets none for a while."""
        avoid_s = self._job.agents.failed(task.agent_id, now)
        if avoid_s and self._ending.phase is Phase.RUNNING:
            self._job.note(f"{task.hostname} is avoided for {avoid_s:g} s: tasks fail there that do not elsewhere")

    def _forget_unborn(self, task: Task) -> None:
        """An executor whose every task was dropped before one ran has probably never been started."""
        job = self._job
        executor = job.executors.find(task.agent_id, task.executor_id)
        if executor is None or executor.confirmed:
            return
        if not any(other.executor_id == task.executor_id for _, other in job.slots.on_agent(task.agent_id)):
            job.executors.forget(task.agent_id, executor.executor_id)

    def _lose(self, slot: Slot, task: Task, message: str, counts: bool, now: float) -> None:
        """The slot's task is gone or given up. `message`: its last status, of which the first line is shown."""
        job, running = self._job, self._ending.phase is Phase.RUNNING
        job.slots.vacate(slot, now, job.patience, counts and running)
        if not running:
            return
        if task.leaving == GIVEN_BACK:
            return  # said of all at once
        if task.leaving:
            then = "; a new one starts elsewhere" if slot.open else ""
            job.note(f"{slot.name} has left {task.hostname}: {task.leaving}{then}")
            return
        how, _, last_words = message.strip().partition("\n")
        how = how.removesuffix("; last words:")
        complaints = [line for line in last_words.splitlines() if line.strip() and " INFO " not in line]
        last_line = complaints[-1].strip() if complaints else ""
        if task.failure:
            cause = f"{task.failure} ({how})"
        else:
            cause = f"{how}: {last_line}" if last_line else how
        if counts and len(self._causes) < _KEPT_CAUSES:
            line = f"{slot.name} on {task.hostname} (task {task.task_id}): {cause}"
            self._causes.append((line, task.failure_detail or last_words))
        if slot.failures >= job.patience.failures:
            line, detail = self._causes[0]
            error = f"{slot.name} failed {slot.failures} times in a row; first cause: {line}"
            self._ending.fail(error, now, detail, worn_out=True)
            return
        then = "a new one takes its place"
        if slot.role != "worker" and job.members.serves(task.task_id):
            then = "its replica goes on" if job.members.survives(task.task_id) else _REPLAY
        job.note(f"{slot.name} lost on {task.hostname}: {cause}; {then}")

    def check(self, now: float) -> None:
        """Looks for tasks that have been silent for too long."""
        for slot, task in list(self._job.slots.tasks()):
            self._check_task(slot, task, now)

    def _check_task(self, slot: Slot, task: Task, now: float) -> None:
        job, patience = self._job, self._job.patience
        if not task.state and now - (task.asked_at or task.launched_at) >= patience.launch_s:
            task.asked_at = now
            job.reconciliation.add([task.task_id], now)
        if task.killed_at is not None:
            if now - task.killed_at >= patience.kill_s:
                self._lose(slot, task, "it does not end", not task.leaving, now)
            return
        if task.doubtful_since is not None and now - task.doubtful_since >= patience.doubt_s and not task.attached:
            self._lose(slot, task, "out of the master's sight, and silent", False, now)
            return
        if task.state != "TASK_RUNNING" or task.attached:
            return
        silent_s = now - (task.changed_at if task.hello is None else task.silent_since)
        if silent_s >= (patience.hello_s if task.hello is None else patience.stream_s):
            if task.hello is None:
                task.failure = f"it never reached the driver at {job.plan.control} (see --driver-host)"
            else:
                task.failure = f"no word from it for {silent_s:.0f} s"
            task.killed_at = now
            job.kill(task.task_id, task.agent_id)
