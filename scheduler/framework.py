"""A job's Mesos framework as a state machine: events in, actions out; no I/O, no clock, no threads.

Its parts: `Launching` (offers to tasks), `Supervision` (what becomes of tasks), `Ending` (how it all ends). Here is
what concerns the subscription and the control channel, and which part takes which event.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from proto import control_pb2
from scheduler import actions as act
from scheduler import events as ev
from scheduler import refusals
from scheduler.elasticity import Elasticity
from scheduler.ending import Ending, Phase
from scheduler.gang import Gang
from scheduler.job_state import JobState
from scheduler.json_values import Json
from scheduler.launching import Launching
from scheduler.outcome import Outcome
from scheduler.plan import JobPlan, Patience
from scheduler.recovery import Adoption, Recorder, restore
from scheduler.resizing import Resizing
from scheduler.slots import Task
from scheduler.supervision import Supervision

PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

FAILED_OVER = "Framework failed over"  #: what the master says to a driver whose framework another one has taken over

_FATAL = frozenset({control_pb2.Failure.USER, control_pb2.Failure.INPUT, control_pb2.Failure.DIVERGED})


class Framework:
    """Feed it every event with the time of a monotonic clock; carry out what it returns, in order.

    Invariants: a slot has at most one live task; a task id is used once; nothing is done before what follows from it
    was saved; what is launched never exceeds what was offered; no offer is kept.

    Args:
        plan: the job.
        patience: time limits.
        saved: what the drivers before this one have saved; empty for a new job.
        now: as for `handle`.

    Raises:
        ValueError: `saved` cannot be read.
    """

    def __init__(
        self, plan: JobPlan, patience: Patience | None = None, saved: Mapping[str, Json] | None = None, now: float = 0.0
    ) -> None:
        self.job = JobState(plan, patience or Patience())
        self.ending = Ending(self.job)
        self._restored: list[act.Action] = []
        if saved:
            restore(self.job, self.ending, saved, now)
            self._restored = self.job.out
        self._recorder = Recorder(self.job, self.ending, saved or {})
        self._adoption = Adoption(self.job, self.ending) if saved else None
        self._elasticity = Elasticity(self.job, self.ending)
        self._resizing = Resizing(self.job, self.ending, lambda: self._renew_members(changed=True))
        self._gang = Gang(self.job, self.ending)
        self._launching = Launching(self.job, self.ending, self._elasticity, self._gang)
        self._supervision = Supervision(self.job, self.ending)
        self._connected_once = False
        self._started_at: float | None = None
        self._alone_since: float | None = None
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            ev.Subscribed: self._on_subscribed,
            ev.Reregistered: self._on_reregistered,
            ev.Disconnected: self._on_disconnected,
            ev.Offers: self._launching.on_offers,
            ev.InverseOffers: self._elasticity.on_inverse_offers,
            ev.Rescinded: lambda event, now: None,  # no offer is kept; a launch on it ends as TASK_DROPPED
            ev.StatusUpdate: self._on_status,
            ev.AgentLost: self._supervision.on_agent_lost,
            ev.ExecutorLost: self._supervision.on_executor_lost,
            ev.MesosError: self._on_mesos_error,
            ev.Superseded: lambda event, now: self.ending.superseded(event.by),
            ev.LaunchFailed: self._on_launch_failed,
            ev.AgentTotals: self._launching.on_totals,
            ev.Shares: self._elasticity.on_shares,
            ev.ScaleRequested: self._on_scale,
            ev.TornDown: lambda event, now: self.ending.over(),
            ev.HelloReceived: self._on_hello,
            ev.StreamLost: self._on_stream_lost,
            ev.ProgressReceived: self._on_progress,
            ev.ReplicatedReceived: self._on_replicated,
            ev.PausedReceived: self._resizing.on_paused,
            ev.FailureReceived: self._on_failure,
            ev.FinishedReceived: lambda event, now: self.ending.finish(event.finished, now),
            ev.Tick: self._on_tick,
            ev.StopRequested: lambda event, now: self.ending.stop(event.signal, now),
        }

    @property
    def phase(self) -> Phase:
        return self.ending.phase

    @property
    def outcome(self) -> Outcome:
        """Meaningful once the phase is OVER."""
        return self.ending.outcome

    def handle(self, event: ev.Event, now: float) -> list[act.Action]:
        """Takes one event at time `now` (seconds of a monotonic clock); returns what is to be done, in order."""
        job = self.job
        job.out, self._restored = self._restored, []
        if self.phase is not Phase.OVER:
            self._handlers[type(event)](event, now)
            self._resizing.advance(now)
            self._launching.ask_for_offers(now)
            self.ending.advance(now)
            if self._adoption is not None:
                self._adoption.advance(now)
            self._settle(now)
            changes = self._recorder.changes()
            if changes and not self.outcome.superseded:
                job.out.insert(0, act.Save(changes))
        return job.out

    # Mesos

    def _on_subscribed(self, event: ev.Subscribed, now: float) -> None:
        self.job.framework_id = event.framework_id
        self.job.mark("subscribed")
        self._connected(now)

    def _on_reregistered(self, event: ev.Reregistered, now: float) -> None:
        if self._adoption is None or self._connected_once:
            self.job.note("connected to the Mesos master again")
        self._connected(now)

    def _connected(self, now: float) -> None:
        self.job.connected = True
        if self._adoption is not None and not self._connected_once:
            self._adoption.connected()
        self._connected_once = True
        self.job.reconciliation.begin((task.task_id for _, task in self.job.slots.tasks()), now)

    def _on_disconnected(self, event: ev.Disconnected, now: float) -> None:
        if self.job.connected and not self.ending.begun:
            self.job.note("lost the Mesos master; training goes on")
        self.job.connected = False

    def _on_mesos_error(self, event: ev.MesosError, now: float) -> None:
        self.job.connected = False
        if event.message == FAILED_OVER:
            self.ending.superseded("")
            return
        why = refusals.subscription(event.message, self.job.plan)
        self.ending.fail(why or f"the Mesos master has ended the framework: {event.message}", now)
        if why and not self.job.framework_id:
            self.ending.outcome = replace(self.ending.outcome, refused=True)
        self.ending.over()  # whoever holds the FrameworkID now must not be fought

    # Control channel

    def _on_hello(self, event: ev.HelloReceived, now: float) -> None:
        job, hello = self.job, event.hello
        found = job.slots.find(hello.task_id)
        if found is None:
            job.do(act.Refuse(hello.task_id, "not a live task of this job"))
            return
        slot, task = found
        if hello.python_version != PYTHON_VERSION:
            job.do(act.Refuse(hello.task_id, "wrong Python version"))
            theirs = f"host {hello.host} runs Python {hello.python_version}"
            self.ending.fail(f"{theirs}, this driver {PYTHON_VERSION}; name an equal one with --python", now)
            return
        if task.hello is None and slot.incarnation > 1 and self.phase is Phase.RUNNING:
            job.note(f"{slot.name} runs again, on {task.hostname}")
        task.hello, task.attached = hello, True
        job.slots.touch(slot)
        if self.ending.begun:
            self.ending.send_stop(task)
            return
        job.do(act.Send(task.task_id, self._job_message()))
        self._renew_members(task)

    def _renew_members(self, newcomer: Task | None = None, changed: bool = False) -> None:
        """Tells everybody who serves, if that has changed or changes now; else only the newcomer."""
        job = self.job
        before, job.members = job.members, job.members.renewed(self._resizing.seats)
        begins = not job.size.started and self._elasticity.enough_joined()
        job.size.started = job.size.started or begins
        renewed = changed or (before.servers, before.replicas) != (job.members.servers, job.members.replicas)
        if not job.members.complete(job.slots.seats()):
            return  # they hear of the next attempt
        # Servers make ready at once; workers begin when there are enough of them.
        for slot, task in list(job.slots.tasks()):
            news = renewed or task is newcomer or (begins and slot.role == "worker")
            if news and task.attached and (job.size.started or slot.role != "worker"):
                job.do(act.Send(task.task_id, job.members.message(self._elasticity.wanted)))
                moved = task is newcomer or before.attempt < job.members.attempt
                if self.phase is Phase.STOPPING and moved and job.members.keeps_book(task.task_id):
                    self.ending.send_stop(task)
        if any(slot.joined() for slot in job.slots.of("worker")):
            job.mark("hello")

    def _on_scale(self, event: ev.ScaleRequested, now: float) -> None:
        part = self._resizing if event.servers or event.colocated else self._elasticity
        part.on_scale(event, now)

    def _on_replicated(self, event: ev.ReplicatedReceived, now: float) -> None:
        self.job.members = self.job.members.replicated(event.task_id, event.replica)

    def _on_status(self, event: ev.StatusUpdate, now: float) -> None:
        self._supervision.on_status(event, now)
        self._promote()

    def _on_launch_failed(self, event: ev.LaunchFailed, now: float) -> None:
        self._supervision.on_launch_failed(event, now)
        self._promote()

    def _promote(self) -> None:
        """Has replicas take the places of servers that are gone, and servers wait no more for replicas that are."""
        if self.job.plan.server_replicas and self.job.members.attempt and not self.ending.begun:
            self._renew_members()

    def _job_message(self) -> control_pb2.DriverMessage:
        plan = self.job.plan
        message = control_pb2.Job(
            job_id=plan.job_id,
            spec=plan.spec,
            sources=dict(plan.sources),
            checkpoint_url=plan.checkpoint_url,
            resume=plan.resume,
        )
        return control_pb2.DriverMessage(job=message)

    def _on_stream_lost(self, event: ev.StreamLost, now: float) -> None:
        found = self.job.slots.find(event.task_id)
        if found is not None:
            found[1].attached = False
            found[1].silent_since = now

    def _on_progress(self, event: ev.ProgressReceived, now: float) -> None:
        job = self.job
        attempt = job.marks.reported.attempt
        for report in event.progress.steps:
            job.mark("first step")
            if report.attempt > attempt:
                attempt = report.attempt
                kept = (job.plan.server_replicas or job.members.former) and report.step >= job.step
                what = "going on with" if kept else "replay from"
                job.note(f"servers complete again (attempt {report.attempt}): {what} step {report.step}")
            if report.step > job.step:
                job.step, job.epoch = report.step, report.epoch
                self._supervision.progressed()
        job.do(act.ReportProgress(event.progress))
        job.marks.add(event.task_id, event.sequence, event.progress, now)

    def _settle(self, now: float) -> None:
        """Acknowledges progress; the marks are saved, and what was reported is written, before that is carried out."""
        for task_id, sequence in self.job.marks.settle(now, at_once=self.ending.begun).items():
            acknowledged = control_pb2.Acknowledged(sequence=sequence)
            self.job.do(act.Send(task_id, control_pb2.DriverMessage(acknowledged=acknowledged)))

    def _on_failure(self, event: ev.FailureReceived, now: float) -> None:
        found = self.job.slots.find(event.task_id)
        failure = event.failure
        if found is None:
            return
        slot, task = found
        if failure.kind not in _FATAL:  # its end, and with it the relaunch, follows as a status update
            task.failure, task.failure_detail = failure.summary, failure.detail
            return
        if failure.kind == control_pb2.Failure.USER:
            where = f"{slot.name} on {task.hostname} (task {task.task_id})"
            self.ending.fail(f"the job's own code failed in {where}: {failure.summary}", now, failure.detail)
        else:
            where = f"{failure.summary} [{slot.name} on {task.hostname}]"
            self.ending.fail(where, now, unusable=failure.kind == control_pb2.Failure.INPUT)

    # Time

    def _on_tick(self, event: ev.Tick, now: float) -> None:
        job = self.job
        if self._started_at is None:
            self._started_at = now
        if not job.framework_id and now - self._started_at >= job.patience.subscribe_s:
            self.ending.fail(f"the Mesos master accepted no subscription within {job.patience.subscribe_s:g} s", now)
        self._check_alone(now)
        if not job.connected:
            return
        if not self.ending.begun:
            self._supervision.check(now)
            self._promote()
            self._elasticity.check(now)
            self._resizing.check(now)
            self._gang.check(now)
        agents = {task.task_id: task.agent_id for _, task in job.slots.tasks()}
        due = job.reconciliation.due(now) & agents.keys()
        if due:
            job.do(act.Reconcile(tuple((task_id, agents[task_id]) for task_id in sorted(due))))
        if job.reconciliation.all_due(now):
            job.do(act.Reconcile(()))
        if not self.ending.begun:
            self._launching.check_starving(now)

    def _check_alone(self, now: float) -> None:
        """Without a master training goes on, but not without a master and without tasks."""
        job = self.job
        if job.connected or not job.framework_id or any(task.attached for _, task in job.slots.tasks()):
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = now
        elif now - self._alone_since >= job.patience.alone_s:
            away_s = f"{job.patience.alone_s:g} s"
            self.ending.fail(f"neither the Mesos master nor any task has been heard of for {away_s}", now)
