"""Offers to launches, and what to do when there is no room."""

from __future__ import annotations

from scheduler import actions as act
from scheduler import events as ev
from scheduler import refusals, requests, starvation
from scheduler.ending import Ending, Phase
from scheduler.job_state import JobState
from scheduler.placement import Occupancy, Placement, largest, merge_offers, place
from scheduler.resources import NOTHING
from scheduler.slots import Task


class Launching:
    """Part of the framework's state machine. Keeps no offer: each is used or declined at once."""

    def __init__(self, job: JobState, ending: Ending) -> None:
        self._job = job
        self._ending = ending
        self._largest = NOTHING
        self._starving_since: float | None = None
        self._suppressed = False

    def on_offers(self, event: ev.Offers, now: float) -> None:
        job = self._job
        offers = merge_offers(event.offers)
        job.mark("first offer")
        self._largest = largest([self._largest, *(offer.resources for offer in offers)])
        wanting = self._ending.phase is Phase.RUNNING and bool(job.framework_id)
        wants = job.slots.wants(now) if wanting else []
        placements = place(wants, offers, job.plan.executor_need, self._occupancy())
        for placement in placements:
            self._launch(placement, now)
        unplaced = bool(wants) and bool(job.slots.wants(now))
        used = {placement.offer.agent_id for placement in placements}
        unused = tuple(oid for offer in offers if offer.agent_id not in used for oid in offer.offer_ids)
        if unused:
            job.do(act.Decline(unused, job.patience.refuse_small_s if unplaced else job.patience.refuse_idle_s))
        if not unplaced and not self._suppressed:
            self._suppressed = True
            job.do(act.Suppress())

    def _launch(self, placement: Placement, now: float) -> None:
        job, offer = self._job, placement.offer
        executor = job.executors.by_agent.get(offer.agent_id)
        if executor is None:
            executor_id = job.executors.next_id()
            resources = placement.executor or NOTHING
            info = requests.executor_info(job.plan, executor_id, job.framework_id, resources)
            executor = job.executors.add(offer.agent_id, executor_id, info)
        tasks = []
        for launch in placement.launches:
            slot = job.slots.slot(launch.want.role, launch.want.index)
            task_id = slot.next_task_id(job.plan)
            slot.task = Task(task_id, offer.agent_id, offer.hostname, executor.executor_id, now, changed_at=now)
            job.slots.touch(slot)
            tasks.append(
                requests.task_info(job.plan, job.patience, task_id, slot.role, offer, launch.resources, executor.info)
            )
        job.do(act.Accept(offer.agent_id, offer.offer_ids, tuple(tasks), job.patience.refuse_small_s))

    def _occupancy(self) -> dict[str, Occupancy]:
        result: dict[str, Occupancy] = {}
        for slot, task in self._job.slots.tasks():
            known = result.get(task.agent_id, Occupancy(task.hostname))
            result[task.agent_id] = Occupancy(
                known.hostname, known.servers + (slot.role != "worker"), known.workers + (slot.role == "worker")
            )
        for agent_id, executor in self._job.executors.by_agent.items():
            known = result.get(agent_id, Occupancy(agent_id))
            result[agent_id] = Occupancy(known.hostname, known.servers, known.workers, executor=executor.certain)
        return result

    def ask_for_offers(self, now: float) -> None:
        """One REVIVE for each emptied slot, when its back-off ends: it lifts all filters."""
        job = self._job
        if self._ending.phase is not Phase.RUNNING or not job.connected:
            return
        silent = [s for s in job.slots.all if s.task is None and s.not_before <= now and not s.announced]
        for slot in silent:
            slot.announced = True
        if any(slot.incarnation > 0 for slot in silent) or (silent and self._suppressed):
            self._suppressed = False
            job.do(act.Revive())

    def check_starving(self, now: float) -> None:
        """Has the agents looked at when slots have found no room for long."""
        job = self._job
        if self._ending.phase is not Phase.RUNNING or not job.slots.wants(now):
            self._starving_since = None
        elif self._starving_since is None:
            self._starving_since = now
        elif now - self._starving_since >= job.patience.starving_s:
            self._starving_since = now + 3 * job.patience.starving_s  # the next look is a minute away
            job.do(act.AskTotals())

    def on_totals(self, event: ev.AgentTotals, now: float) -> None:
        job = self._job
        missing = job.slots.wants(now)
        if self._ending.phase is not Phase.RUNNING or not missing:
            return
        # A job that has got anywhere waits: what it lost may come back.
        why = ""
        if not job.step:
            why = refusals.quota(job.plan, event.limits) or starvation.impossible(job.plan, event.agents, self._largest)
        if why:
            self._ending.fail(why, now)
        else:
            hint = refusals.quota_hint(job.plan, event.limits)
            job.note(starvation.waiting(job.plan, missing, self._largest) + hint)
