"""Another number of servers while the job runs (`mesograd scale JOB --servers N`).

    RUNNING --all of the new set have said hello--> Pause to the lease book
            --Paused--> a new attempt of the new set, which has its slices from the former one
            --first step of that attempt--> servers that serve no more are asked to go

Training goes on with the old set until the new one is there, and pauses only for as long as slices need to be cut anew.
Nothing is assumed to have arrived: whatever is still wanted is asked for again, by a restarted driver, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from proto import control_pb2
from scheduler import actions as act
from scheduler import events as ev
from scheduler.ending import Ending, Phase
from scheduler.job_state import JobState
from scheduler.slots import Slot

ASK_AGAIN_S = 5.0
SETTLED_S = 5.0  #: that workers have to stay on as many agents, before colocated servers follow


class Resizing:
    """Part of the framework's state machine: opens and closes the slots of servers and replicas.

    `JobState.size` says how many servers are wanted, and how many are of the present set.
    """

    def __init__(self, job: JobState, ending: Ending, renew: Callable[[], None]) -> None:
        """
        Args:
            renew: tells all tasks of the members, who have changed.
        """
        self._job = job
        self._ending = ending
        self._renew = renew
        self._ask_at = 0.0
        self._differs_since: float | None = None  # agents with workers are more or fewer than servers

    @property
    def seats(self) -> list[Slot]:
        """Slots of the present set of servers and of their replicas."""
        return [slot for slot in self._job.slots.seats() if slot.index < self._job.size.serving]

    def on_scale(self, event: ev.ScaleRequested, now: float) -> None:
        """The user wants another number of servers."""
        job, size = self._job, self._job.size
        refused = ""
        if self._ending.phase is not Phase.RUNNING:
            refused = "the job is ending"
        elif not job.plan.synchronous:
            refused = "servers can be added and removed in synchronous training only (--sync sync)"
        if refused:
            job.do(act.AnswerScale(event.request, refused, False))
            return
        size.colocated = event.colocated
        text = self._want(event.servers or self._agents_with_workers)
        job.note(f"scaled {text}")
        job.do(act.AnswerScale(event.request, text, True))
        self.advance(now)

    def _want(self, servers: int) -> str:
        """Opens and closes slots; what is done, for people."""
        job, size = self._job, self._job.size
        before, size.servers = size.servers, servers
        for role in ("server", "replica") if job.plan.server_replicas else ("server",):
            for index in range(servers):
                slot = job.slots.ensure(role, index)
                if not slot.open:
                    job.slots.open(slot)
        self._close_surplus()
        text = f"from {before} to {size.servers} servers"
        if size.servers > size.serving:
            text += f", {size.serving} of them serve until the others are there"
        return text

    def check(self, now: float) -> None:
        """Called with every tick: colocated servers follow the workers."""
        job, size = self._job, self._job.size
        busy = bool(job.members.former) or size.pausing == job.members.attempt
        if not size.colocated or busy or self._agents_with_workers == size.servers:
            self._differs_since = None
        elif self._differs_since is None:
            self._differs_since = now
        elif now - self._differs_since >= SETTLED_S:
            self._differs_since = None
            job.note(f"{self._want(self._agents_with_workers)}, as there are agents with workers")
            self.advance(now)

    @property
    def _agents_with_workers(self) -> int:
        """Of workers that stay; what there is already, while there are none."""
        slots = self._job.slots.of("worker")
        tasks = [slot.task for slot in slots if slot.task is not None and slot.joined() and not slot.task.leaving]
        return len({task.agent_id for task in tasks}) or self._job.size.servers

    def on_paused(self, event: ev.PausedReceived, now: float) -> None:
        """Nothing goes on between workers and servers until there is another attempt."""
        job = self._job
        keeps_book = job.members.keeps_book(event.task_id) and event.attempt == job.members.attempt
        if self._ending.phase is not Phase.RUNNING or not keeps_book:
            return
        if self._pending and self._ready and job.members.complete(job.slots.seats()):
            job.size.serving = job.size.servers
            job.members = job.members.resized(self.seats)
        else:  # a server of the new set was lost meanwhile, or the user wants it otherwise: the old set goes on
            job.members = replace(job.members, attempt=job.members.attempt + 1, former=())
        job.size.pausing = 0
        self._renew()

    def advance(self, now: float) -> None:
        """Does what is due, whenever something may have changed."""
        job = self._job
        if self._ending.phase is not Phase.RUNNING or not job.members.attempt:
            return
        if job.members.former:
            self._watch_hand_over()
        attempt = job.members.attempt
        pausing = job.size.pausing == attempt  # then it must become another attempt, whatever is wanted by now
        due = now >= self._ask_at if pausing else self._pending and self._ready
        if due and not job.members.former and job.members.complete(job.slots.seats()):
            if not pausing:
                job.note(f"{job.size.servers} servers are there: training pauses while parameters move")
            job.size.pausing, self._ask_at = attempt, now + ASK_AGAIN_S
            pause = control_pb2.DriverMessage(pause=control_pb2.Pause(attempt=attempt))
            job.do(act.Send(job.members.servers[0][0], pause))
        for slot in job.slots.seats():
            task = slot.task
            if not slot.open and task is not None and task.killed_at is None:
                task.leaving, task.killed_at = "the job has fewer servers", now
                job.kill(task.task_id, task.agent_id)

    @property
    def _pending(self) -> bool:
        return self._job.size.servers != self._job.size.serving

    @property
    def _ready(self) -> bool:
        """All servers of the new set are there. Those of the present set stay the first ones."""
        serving, wanted = self._job.size.serving, self._job.size.servers
        return all(slot.joined() for slot in self._job.slots.of("server")[serving:wanted])

    def _watch_hand_over(self) -> None:
        """Until the new set has completed a step it needs the former one; without all of it, it begins again."""
        job = self._job
        live = {task.task_id for _, task in job.slots.tasks()}
        if job.marks.reported.attempt >= job.members.attempt:
            job.members = replace(job.members, former=())
            job.note(f"{job.size.serving} servers have the parameters now")
            self._close_surplus()
        elif any(task_id not in live for task_id, _ in job.members.former):
            job.members = replace(job.members, attempt=job.members.attempt + 1, former=())
            self._close_surplus()
            self._renew()

    def _close_surplus(self) -> None:
        """Closes slots that belong to no set any more; `advance` asks their tasks to go."""
        job, size = self._job, self._job.size
        if job.members.former:
            return  # whose slices are still needed
        for slot in job.slots.seats():
            if slot.open and slot.index >= max(size.servers, size.serving):
                job.slots.close(slot)
