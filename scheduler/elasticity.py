"""How many workers the job wants now, and which ones go when it wants fewer."""

from __future__ import annotations

from collections.abc import Mapping

from scheduler import actions as act
from scheduler import events as ev
from scheduler.ending import Ending, Phase
from scheduler.fair_share import FairShare
from scheduler.job_state import JobState
from scheduler.resources import Need
from scheduler.slots import Slot, Task


class Elasticity:
    """Part of the framework's state machine: opens and closes worker slots, asks tasks to go.

    `JobState.size` is what the user wants; `cap` what the job may have while others are owed resources.
    """

    def __init__(self, job: JobState, ending: Ending) -> None:
        self._job = job
        self._ending = ending
        self._fair = FairShare(job.patience)
        self.cap: int | None = None
        self._next_look: float | None = None
        self._free_cpus: Mapping[str, float] = {}  #: by agent, when the shares were last looked at

    @property
    def wanted(self) -> int:
        """Workers that the job tries to have."""
        size = self._job.size
        return size.target if self.cap is None else max(size.minimum, min(size.target, self.cap))

    @property
    def hungry(self) -> bool:
        """It would have more workers, were nobody else owed any: others must see that it waits."""
        return self.wanted < self._job.size.target

    def enough_joined(self) -> bool:
        """Whether the training may begin."""
        return sum(slot.joined() for slot in self._job.slots.of("worker")) >= self._job.size.minimum

    def on_scale(self, event: ev.ScaleRequested, now: float) -> None:
        """The user wants another number of workers."""
        job = self._job
        if self._ending.phase is not Phase.RUNNING:
            job.do(act.AnswerScale(event.request, "the job is ending", False))
            return
        before = self._job.size.target
        self._job.size.target = event.workers
        self._job.size.minimum = min(self._job.size.minimum, event.workers)
        self._apply("the job was scaled", now)
        here = sum(slot.joined() for slot in job.slots.of("worker") if slot.open)
        text = f"from {before} to {self._job.size.target} workers, {here} of them at work"
        if self.wanted < self._job.size.target:
            text += f"; {self.wanted} at the most while other frameworks are owed resources"
        job.note(f"scaled {text}")
        job.do(act.AnswerScale(event.request, text, True))

    # Leaving agents

    def on_inverse_offers(self, event: ev.InverseOffers, now: float) -> None:
        """An agent is to go into maintenance: agreed, and remembered. `check` moves its tasks in time."""
        job = self._job
        for offer in event.offers:
            if offer.agent_id:
                job.agents.plan_maintenance(offer.agent_id, now + offer.begins_in_s, offer.duration_s)
        job.do(act.AcceptInverseOffers(tuple(offer.offer_id for offer in event.offers)))
        self._leave_agents(now)

    def check(self, now: float) -> None:
        """Called with every tick."""
        if self._ending.phase is not Phase.RUNNING or not self._job.connected:
            return
        if self._job.agents.maintenance:
            self._leave_agents(now)
        for slot in self._job.slots.of("worker"):  # a driver that was replaced may have been about to do so
            if not slot.open and slot.task is not None:
                self._ask_to_go(slot, slot.task, "the job has become smaller", now)
        self._look_around(now)
        self._end_idle_executors(now)

    def _leave_agents(self, now: float) -> None:
        job = self._job
        for agent_id in list(job.agents.maintenance):
            if job.agents.draining(agent_id, now):
                for slot, task in job.slots.on_agent(agent_id):
                    self._ask_to_go(slot, task, "maintenance of its agent", now)

    def _end_idle_executors(self, now: float) -> None:
        """One without a task holds resources that others may be waiting for."""
        job = self._job
        busy = {task.executor_id for _, task in job.slots.tasks()}
        for executor in job.executors.all():
            if executor.executor_id in busy:
                executor.idle_since = None
            elif executor.idle_since is None:
                executor.idle_since = now
            elif now - executor.idle_since >= job.patience.idle_executor_s:
                job.executors.forget(executor.agent_id, executor.executor_id)
                job.do(act.ShutdownExecutor(executor.executor_id, executor.agent_id))

    # Sharing the cluster

    def _look_around(self, now: float) -> None:
        job = self._job
        if self._job.size.minimum >= self._job.size.target or not job.framework_id:
            return
        if self._next_look is None:
            self._next_look = now + job.patience.share_s
        elif now >= self._next_look:
            self._next_look = now + job.patience.share_s
            job.do(act.AskShares())

    def on_shares(self, event: ev.Shares, now: float) -> None:
        """How the cluster is shared at the moment."""
        job = self._job
        if self._ending.phase is not Phase.RUNNING or self._job.size.minimum >= self._job.size.target:
            return
        have = sum(1 for slot in job.slots.of("worker") if slot.task is not None and not slot.task.leaving)
        before = self.wanted
        self._free_cpus = {agent_id: piece.cpus for agent_id, piece in event.cluster.free.items()}
        self.cap = self._fair.workers(event.cluster, job.framework_id, job.plan, self._base(), have, now)
        if self.wanted < min(before, have):
            job.note(f"gives up {have - self.wanted} of {have} workers: other frameworks are owed their share")
        elif self.wanted > before:
            job.note(f"may have {self.wanted} of {self._job.size.target} workers again")
        self._apply("other frameworks are owed their share", now)

    def _base(self) -> Need:
        """What the job holds besides its workers."""
        plan, executors = self._job.plan, len(self._job.executors.all())
        servers = sum(slot.task is not None for slot in self._job.slots.seats())
        return Need(
            servers * plan.server_need.cpus + executors * plan.executor_need.cpus,
            servers * plan.server_need.mem_mb + executors * plan.executor_need.mem_mb,
        )

    # Slots

    def _apply(self, why: str, now: float) -> None:
        """Opens or closes worker slots until as many are open as wanted."""
        slots = self._job.slots
        workers = slots.of("worker")
        surplus = sum(slot.open for slot in workers) - self.wanted
        if surplus < 0:
            closed = [slot for slot in workers if not slot.open]
            for slot in closed[:-surplus]:
                slots.open(slot)
            for _ in range(-surplus - len(closed)):
                slots.add("worker")
        elif surplus > 0:
            for slot in sorted((slot for slot in workers if slot.open), key=self._worth)[:surplus]:
                slots.close(slot)
                if slot.task is not None:
                    self._ask_to_go(slot, slot.task, why, now)

    def _worth(self, slot: Slot) -> tuple[float | str, ...]:
        """Ascending: first slots without a task, then those that do not compute yet, then those of one agent after the
        other, beginning where most is free already, and then where the job has least.

        So free pieces come together, and agents become free as a whole, executor included, which is what others can use
        best.
        """
        task = slot.task
        if task is None:
            return (0, -slot.index)
        here = task.agent_id
        free_cpus, beside = self._free_cpus.get(here, 0.0), len(self._job.slots.on_agent(here))
        return (1, task.leaving == "", task.hello is not None, -free_cpus, beside, here, -slot.index)

    def _ask_to_go(self, slot: Slot, task: Task, why: str, now: float) -> None:
        """SIGTERM: its connections end, so that its lease is free at once."""
        if task.killed_at is None:
            task.leaving, task.killed_at = why, now
            self._job.kill(task.task_id, task.agent_id)
