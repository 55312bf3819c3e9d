"""A job's Mesos framework as a state machine: events in, actions out; no I/O, no clock, no threads.

RUNNING --Finished, failure, stop obeyed--> CLOSING: tasks end, executors end, framework is torn down --> OVER
   `-- stop requested --> STOPPING (waits for the checkpoint) --> CLOSING
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable
from typing import Any

from proto import control_pb2
from scheduler import actions as act
from scheduler import events as ev
from scheduler import requests, starvation
from scheduler.executors import Executors
from scheduler.membership import Members
from scheduler.outcome import Outcome
from scheduler.placement import AgentOffer, Occupancy, Placement, largest, merge_offers, place
from scheduler.plan import JobPlan, Patience
from scheduler.reconciliation import Reconciliation
from scheduler.resources import NOTHING
from scheduler.slots import Slot, Slots, Task

PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

_AGENT_FAULTS = frozenset(  #: the task is not to blame
    {"REASON_AGENT_DRAINING", "REASON_SLAVE_DRAINING", "REASON_SLAVE_REMOVED", "REASON_SLAVE_REMOVED_BY_OPERATOR"}
)
_EXECUTOR_ENDS = frozenset(
    {"REASON_EXECUTOR_TERMINATED", "REASON_EXECUTOR_REGISTRATION_TIMEOUT", "REASON_EXECUTOR_REREGISTRATION_TIMEOUT"}
)
_FATAL = {
    control_pb2.Failure.USER: "the job's own code failed",
    control_pb2.Failure.INPUT: "",
    control_pb2.Failure.DIVERGED: "",
}


class Phase(enum.Enum):
    RUNNING = "running"
    STOPPING = "stopping"  #: the user wants an end; the checkpoint is being written
    CLOSING_TASKS = "closing tasks"
    CLOSING_EXECUTORS = "closing executors"
    TEARING_DOWN = "tearing down"
    OVER = "over"


_CLOSING = frozenset({Phase.CLOSING_TASKS, Phase.CLOSING_EXECUTORS, Phase.TEARING_DOWN, Phase.OVER})


class Framework:
    """A job's state. Feed it every event with the time of a monotonic clock; carry out what it returns, in order.

    Invariants: a slot has at most one live task; a task id is used once; nothing is launched before the FrameworkID was
    saved; what is launched never exceeds what was offered; no offer is kept.
    """

    def __init__(self, plan: JobPlan, patience: Patience | None = None, framework_id: str = "") -> None:
        self.plan = plan
        self.patience = patience or Patience()
        self.framework_id = framework_id
        self.phase = Phase.RUNNING
        self.connected = False
        self.slots = Slots(plan)
        self.executors = Executors(plan.job_id)
        self.members = Members()
        self.step = 0  #: highest step reported
        self.outcome = Outcome()
        self._attempt_reported = 1
        self._epoch = 0
        self._causes: list[str] = []  #: of failures since the job last got further, the first one first
        self._largest = NOTHING
        self._starving_since: float | None = None
        self._suppressed = False
        self._signals = 0
        self._deadline = float("inf")  #: of the present phase
        self._kill_at = float("inf")  #: when tasks that have not ended by themselves are killed
        self._marked: set[str] = set()
        self._started_at: float | None = None
        self._reconciliation = Reconciliation(self.patience)
        self._out: list[act.Action] = []
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            ev.Subscribed: self._on_subscribed,
            ev.Reregistered: self._on_reregistered,
            ev.Disconnected: self._on_disconnected,
            ev.Offers: self._on_offers,
            ev.Rescinded: self._on_nothing,  # no offer is kept; a launch on it ends as TASK_DROPPED
            ev.StatusUpdate: self._on_status,
            ev.AgentLost: self._on_agent_lost,
            ev.ExecutorLost: self._on_executor_lost,
            ev.MesosError: self._on_mesos_error,
            ev.LaunchFailed: self._on_launch_failed,
            ev.AgentTotals: self._on_totals,
            ev.TornDown: self._on_torn_down,
            ev.HelloReceived: self._on_hello,
            ev.StreamLost: self._on_stream_lost,
            ev.ProgressReceived: self._on_progress,
            ev.FailureReceived: self._on_failure,
            ev.FinishedReceived: self._on_finished,
            ev.Tick: self._on_tick,
            ev.StopRequested: self._on_stop_requested,
        }

    def handle(self, event: ev.Event, now: float) -> list[act.Action]:
        """Takes one event at time `now` (seconds of a monotonic clock); returns what is to be done, in order."""
        self._out = []
        if self.phase is not Phase.OVER:
            self._handlers[type(event)](event, now)
            self._ask_for_offers(now)
            self._advance(now)
        return self._out

    # Mesos: subscription

    def _on_subscribed(self, event: ev.Subscribed, now: float) -> None:
        self.framework_id = event.framework_id
        self._do(act.SaveFrameworkId(event.framework_id))
        self._mark("subscribed")
        self._connect(now)

    def _on_reregistered(self, event: ev.Reregistered, now: float) -> None:
        self._note("connected to the Mesos master again")
        self._connect(now)

    def _connect(self, now: float) -> None:
        self.connected = True
        self._starving_since = None if self.slots.can_train() else now
        self._reconciliation.begin((task.task_id for _, task in self.slots.tasks()), now)

    def _on_disconnected(self, event: ev.Disconnected, now: float) -> None:
        if self.connected and self.phase not in _CLOSING:
            self._note("lost the Mesos master; training goes on")
        self.connected = False

    def _on_mesos_error(self, event: ev.MesosError, now: float) -> None:
        self.connected = False
        self._fail(f"the Mesos master refused the framework: {event.message}", now)
        self._finish()  # whoever holds the FrameworkID now must not be fought, so no teardown

    # Mesos: offers

    def _on_offers(self, event: ev.Offers, now: float) -> None:
        offers = merge_offers(event.offers)
        self._mark("first offer")
        self._largest = largest([self._largest, *(offer.resources for offer in offers)])
        wants = self.slots.wants(now) if self.phase is Phase.RUNNING and self.framework_id else []
        placements = place(wants, offers, self.plan.executor_need, self._occupancy())
        for placement in placements:
            self._launch(placement, now)
        unplaced = bool(wants) and bool(self.slots.wants(now))
        refuse_s = self.patience.refuse_small_s if unplaced else self.patience.refuse_idle_s
        used = {placement.offer.agent_id for placement in placements}
        unused = tuple(oid for offer in offers if offer.agent_id not in used for oid in offer.offer_ids)
        if unused:
            self._do(act.Decline(unused, refuse_s))
        if not unplaced and not self._suppressed:
            self._suppressed = True
            self._do(act.Suppress())

    def _launch(self, placement: Placement, now: float) -> None:
        offer = placement.offer
        executor = self.executors.by_agent.get(offer.agent_id)
        if placement.executor is not None or executor is None:
            executor_id = self.executors.next_id()
            info = requests.executor_info(self.plan, executor_id, self.framework_id, placement.executor or NOTHING)
            executor = self.executors.add(offer.agent_id, executor_id, info)
        tasks = []
        for launch in placement.launches:
            slot = self.slots.slot(launch.want.role, launch.want.index)
            task_id = slot.next_task_id(self.plan)
            slot.task = Task(task_id, offer.agent_id, offer.hostname, executor.executor_id, now, changed_at=now)
            tasks.append(
                requests.task_info(self.plan, self.patience, task_id, slot.role, offer, launch.resources, executor.info)
            )
        self._do(act.Accept(offer.agent_id, offer.offer_ids, tuple(tasks), self.patience.refuse_small_s))

    def _occupancy(self) -> dict[str, Occupancy]:
        result: dict[str, Occupancy] = {}
        for slot, task in self.slots.tasks():
            known = result.get(task.agent_id, Occupancy(task.hostname))
            result[task.agent_id] = Occupancy(
                known.hostname, known.servers + (slot.role == "server"), known.workers + (slot.role == "worker")
            )
        for agent_id in self.executors.by_agent:
            known = result.get(agent_id, Occupancy(agent_id))
            result[agent_id] = Occupancy(known.hostname, known.servers, known.workers, executor=True)
        return result

    def _on_launch_failed(self, event: ev.LaunchFailed, now: float) -> None:
        for task_id in event.task_ids:
            self._on_status(ev.StatusUpdate(task_id, "TASK_DROPPED", message=event.message), now)

    def _on_totals(self, event: ev.AgentTotals, now: float) -> None:
        missing = self.slots.wants(now)
        if self.phase is not Phase.RUNNING or not missing:
            return
        why = "" if self.members.attempt else starvation.impossible(self.plan, event.agents, self._largest)
        if why:
            self._fail(why, now)
        else:
            self._note(starvation.waiting(self.plan, missing, self._largest))

    # Mesos: tasks

    def _on_status(self, update: ev.StatusUpdate, now: float) -> None:
        self._reconciliation.answered(update.task_id)
        found = self.slots.find(update.task_id)
        if found is None:
            if update.state not in ev.TERMINAL_STATES | ev.DOUBTFUL_STATES and update.agent_id:
                self._do(act.Kill(update.task_id, update.agent_id, self.patience.kill_grace_s))
        else:
            self._task_changed(*found, update, now)
        if "uuid" in update.raw:
            self._do(act.Acknowledge(update.raw))

    def _task_changed(self, slot: Slot, task: Task, update: ev.StatusUpdate, now: float) -> None:
        if update.state != task.state:
            task.state, task.changed_at = update.state, now
        task.asked_at = None
        if update.state in ev.TERMINAL_STATES:
            if update.reason in _EXECUTOR_ENDS:
                self.executors.forget(task.agent_id, task.executor_id)
            counts = update.state in ("TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR")
            counts = counts and update.reason not in _AGENT_FAULTS
            what = update.message or update.state
            self._lose(slot, task, f"{task.failure} ({what})" if task.failure else what, counts, now)
            self._forget_unborn(task)
        elif update.state in ev.DOUBTFUL_STATES:
            if not task.attached:
                self._lose(slot, task, f"out of the master's sight ({update.state}) {update.message}", False, now)
            elif task.doubtful_since is None:
                task.doubtful_since = now
                self._reconciliation.add([task.task_id], now)
        else:
            task.doubtful_since = None
            self.executors.confirm(task.agent_id, task.executor_id)
            if all(task.state == "TASK_RUNNING" for _, task in self.slots.tasks()):
                self._mark("tasks running")

    def _forget_unborn(self, task: Task) -> None:
        """An executor whose every task was dropped before one ran has probably never been started."""
        executor = self.executors.by_agent.get(task.agent_id)
        if executor is None or executor.confirmed:
            return
        if not any(other.executor_id == executor.executor_id for _, other in self.slots.tasks()):
            self.executors.forget(task.agent_id, executor.executor_id)

    def _lose(self, slot: Slot, task: Task, cause: str, counts: bool, now: float) -> None:
        """The slot's task is gone or given up."""
        cause = cause.strip()
        self.slots.vacate(slot, now, self.patience, counts and self.phase is Phase.RUNNING)
        if self.phase is not Phase.RUNNING:
            return
        if counts:
            self._causes.append(f"{slot.name} on {task.hostname} (task {task.task_id}): {cause}")
            del self._causes[20:]
        if slot.failures >= self.patience.failures:
            self._fail(f"{slot.name} failed {slot.failures} times in a row; first cause: {self._causes[0]}", now)
            return
        then = "a new one continues from the last checkpoint" if slot.role == "server" else "a new one takes its place"
        self._note(f"{slot.name} lost on {task.hostname}: {cause}; {then}")

    def _on_agent_lost(self, event: ev.AgentLost, now: float) -> None:
        self._reconciliation.add((t.task_id for _, t in self.slots.tasks() if t.agent_id == event.agent_id), now)

    def _on_executor_lost(self, event: ev.ExecutorLost, now: float) -> None:
        self.executors.forget(event.agent_id, event.executor_id)
        self._reconciliation.add((t.task_id for _, t in self.slots.tasks() if t.executor_id == event.executor_id), now)

    # Control channel

    def _on_hello(self, event: ev.HelloReceived, now: float) -> None:
        hello = event.hello
        found = self.slots.find(hello.task_id)
        if found is None:
            self._do(act.Refuse(hello.task_id, "not a live task of this job"))
            return
        slot, task = found
        if hello.python_version != PYTHON_VERSION:
            self._do(act.Refuse(hello.task_id, "wrong Python version"))
            self._fail(
                f"host {hello.host} runs Python {hello.python_version}, this driver {PYTHON_VERSION}; "
                "name an equal one with --python",
                now,
            )
            return
        if task.hello is None and slot.incarnation > 1 and self.phase is Phase.RUNNING:
            self._note(f"{slot.name} runs again, on {task.hostname}")
        task.hello, task.attached = hello, True
        if self.phase in _CLOSING:
            self._send_stop(task, "the job is over", checkpoint=False)
            return
        job = control_pb2.Job(
            job_id=self.plan.job_id,
            spec=self.plan.spec,
            sources=dict(self.plan.sources),
            checkpoint_url=self.plan.checkpoint_url,
            resume=self.plan.resume,
        )
        self._do(act.Send(task.task_id, control_pb2.DriverMessage(job=job)))
        members = self.members.renewed(self.slots.of("server"))
        receivers = [task] if members == self.members else [t for _, t in self.slots.tasks() if t.attached]
        self.members = members
        if members.attempt:
            for receiver in receivers:
                self._do(act.Send(receiver.task_id, members.message(self.plan.workers)))
        if members.attempt and any(slot.joined() for slot in self.slots.of("worker")):
            self._mark("hello")
        if self.phase is Phase.STOPPING and (slot.role, slot.index) == ("server", 0):
            self._send_stop(task, "interrupted", checkpoint=True)

    def _on_stream_lost(self, event: ev.StreamLost, now: float) -> None:
        found = self.slots.find(event.task_id)
        if found is not None:
            found[1].attached = False
            found[1].silent_since = now

    def _on_progress(self, event: ev.ProgressReceived, now: float) -> None:
        for report in event.progress.steps:
            self._mark("first step")
            if report.attempt > self._attempt_reported:
                self._attempt_reported = report.attempt
                self._note(f"servers complete again (attempt {report.attempt}): continuing at step {report.step}")
            if report.step > self.step:
                self.step, self._epoch = report.step, report.epoch
                self.slots.progressed()
                self._causes.clear()
        self._do(act.ReportProgress(event.progress))

    def _on_failure(self, event: ev.FailureReceived, now: float) -> None:
        found = self.slots.find(event.task_id)
        failure = event.failure
        if found is None or self.phase in _CLOSING:
            return
        slot, task = found
        if failure.kind not in _FATAL:
            task.failure = failure.summary
            return
        where = f"{slot.name} on {task.hostname} (task {task.task_id})"
        reason = _FATAL[failure.kind]
        summary = f"{reason} in {where}: {failure.summary}" if reason else f"{failure.summary} ({where})"
        self._fail(summary, now, detail=failure.detail if failure.kind == control_pb2.Failure.USER else "")

    def _on_finished(self, event: ev.FinishedReceived, now: float) -> None:
        if self.phase in _CLOSING:
            return
        finished = event.finished
        stopped = finished.reason == control_pb2.Finished.STOPPED
        self.outcome = Outcome(
            error="stopped" if stopped else "",
            signal=self.outcome.signal if stopped else 0,
            checkpointed=stopped and bool(self.plan.checkpoint_url),
            step=finished.step,
            epoch=finished.epoch,
            weights_sha256=finished.weights_sha256,
            metrics=dict(finished.metrics),
        )
        self._close(now, gently=True)

    # The end

    def _on_stop_requested(self, event: ev.StopRequested, now: float) -> None:
        self._signals += 1
        if self._signals > 1:
            if self.phase not in _CLOSING:
                self.outcome = Outcome(error="interrupted twice", signal=event.signal, step=self.step)
            if self.phase is not Phase.TEARING_DOWN:
                self._tear_down(now)
        elif self.phase is Phase.RUNNING:
            self.outcome = Outcome(error="interrupted", signal=event.signal, step=self.step, epoch=self._epoch)
            if not self.members.attempt:
                self._close(now)
                return
            self.phase, self._deadline = Phase.STOPPING, now + self.patience.stop_s
            for slot, task in self.slots.tasks():
                if (slot.role, slot.index) == ("server", 0) and task.attached:
                    self._send_stop(task, "interrupted", checkpoint=True)

    def _fail(self, error: str, now: float, detail: str = "") -> None:
        if self.phase not in _CLOSING:
            self.outcome = Outcome(
                error=error, detail=detail, signal=self.outcome.signal, step=self.step, epoch=self._epoch
            )
            self._close(now)

    def _close(self, now: float, gently: bool = False) -> None:
        """The outcome is known. `gently`: tasks know it too, and get a moment to end by themselves."""
        self.phase, self._deadline = Phase.CLOSING_TASKS, now + self.patience.close_s
        self._kill_at = now + self.patience.leave_s if gently else now
        for _, task in self.slots.tasks():
            if task.attached:
                self._send_stop(task, self.outcome.error or "the job has finished", checkpoint=False)

    def _kill_all(self) -> None:
        self._kill_at = float("inf")
        for _, task in self.slots.tasks():
            self._do(act.Kill(task.task_id, task.agent_id, self.patience.kill_grace_s))

    def _advance(self, now: float) -> None:
        """Moves through the closing phases as far as it goes."""
        late = now >= self._deadline
        if self.phase is Phase.STOPPING and late:
            self._close(now)
            late = False
        if self.phase is Phase.CLOSING_TASKS and now >= self._kill_at:
            self._kill_all()
        if self.phase is Phase.CLOSING_TASKS and (late or not self.framework_id or not any(self.slots.tasks())):
            for executor in self.executors.by_agent.values():
                self._do(act.ShutdownExecutor(executor.executor_id, executor.agent_id))
            self.phase, self._deadline = Phase.CLOSING_EXECUTORS, now + self.patience.close_s
            late = False
        if self.phase is Phase.CLOSING_EXECUTORS and (late or not self.executors.by_agent):
            self._tear_down(now)
            late = False
        if self.phase is Phase.TEARING_DOWN and late:
            self._note("the master has not confirmed the end of the framework; it removes it by itself within a week")
            self._finish()

    def _tear_down(self, now: float) -> None:
        if not self.framework_id:
            self._finish()
            return
        self.phase, self._deadline = Phase.TEARING_DOWN, now + self.patience.close_s
        self._do(act.Teardown())

    def _on_torn_down(self, event: ev.TornDown, now: float) -> None:
        self._finish()

    def _finish(self) -> None:
        self.phase = Phase.OVER
        self._do(act.Over(self.outcome))

    # Time

    def _on_tick(self, event: ev.Tick, now: float) -> None:
        self._started_at = now if self._started_at is None else self._started_at
        if not self.framework_id and now - self._started_at >= self.patience.subscribe_s:
            self._fail(f"the Mesos master did not accept a subscription within {self.patience.subscribe_s:.0f} s", now)
        if not self.connected or self.phase in _CLOSING:
            return
        tasks = list(self.slots.tasks())
        agents = {task.task_id: task.agent_id for _, task in tasks}
        for slot, task in tasks:
            self._check_task(slot, task, now)
        due = self._reconciliation.due(now) & agents.keys()
        if due:
            self._do(act.Reconcile(tuple((task_id, agents[task_id]) for task_id in sorted(due))))
        if self._reconciliation.all_due(now):
            self._do(act.Reconcile(()))
        self._check_starving(now)

    def _check_task(self, slot: Slot, task: Task, now: float) -> None:
        patience = self.patience
        if not task.state and now - (task.asked_at or task.launched_at) >= patience.launch_s:
            task.asked_at = now
            self._reconciliation.add([task.task_id], now)
        if task.killed_at is not None:
            if now - task.killed_at >= patience.kill_s:
                self._lose(slot, task, f"{task.failure}; it does not end", True, now)
            return
        if task.doubtful_since is not None and now - task.doubtful_since >= patience.doubt_s and not task.attached:
            self._lose(slot, task, "out of the master's sight, and silent", False, now)
            return
        if task.state != "TASK_RUNNING" or task.attached:
            return
        silent_s = now - (task.changed_at if task.hello is None else task.silent_since)
        if silent_s >= (patience.hello_s if task.hello is None else patience.stream_s):
            if task.hello is None:
                task.failure = f"it never reached the driver at {self.plan.control} (see --driver-host)"
            else:
                task.failure = f"no word from it for {silent_s:.0f} s"
            task.killed_at = now
            self._do(act.Kill(task.task_id, task.agent_id, patience.kill_grace_s))

    def _ask_for_offers(self, now: float) -> None:
        """One REVIVE per emptied slot, when its back-off ends: it lifts all filters."""
        if self.phase is not Phase.RUNNING or not self.connected:
            return
        silent = [s for s in self.slots.all if s.task is None and s.not_before <= now and not s.announced]
        for slot in silent:
            slot.announced = True
        if any(slot.incarnation > 0 for slot in silent) or (silent and self._suppressed):
            self._suppressed = False
            self._do(act.Revive())

    def _check_starving(self, now: float) -> None:
        if self.phase is not Phase.RUNNING or not self.slots.wants(now):
            self._starving_since = None
        elif self._starving_since is None:
            self._starving_since = now
        elif now - self._starving_since >= self.patience.starving_s:
            self._starving_since = now + 3 * self.patience.starving_s  # the next look is a minute away
            self._do(act.AskTotals())

    # Small things

    def _on_nothing(self, event: ev.Event, now: float) -> None:
        pass

    def _do(self, action: act.Action) -> None:
        self._out.append(action)

    def _note(self, text: str) -> None:
        self._do(act.Note(text))

    def _mark(self, phase: str) -> None:
        if phase not in self._marked:
            self._marked.add(phase)
            self._do(act.Mark(phase))

    def _send_stop(self, task: Task, reason: str, checkpoint: bool) -> None:
        stop = control_pb2.Stop(checkpoint=checkpoint, reason=reason)
        self._do(act.Send(task.task_id, control_pb2.DriverMessage(stop=stop)))


__all__ = ["AgentOffer", "Framework", "Phase"]
