"""Offers to launches, and what to do when there is no room."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler import actions as act
from scheduler import events as ev
from scheduler import refusals, requests, starvation
from scheduler.constraints import Census
from scheduler.elasticity import Elasticity
from scheduler.ending import Ending, Phase
from scheduler.executors import Executor
from scheduler.gang import Gang
from scheduler.job_state import JobState
from scheduler.placement import AgentOffer, Occupancy, Placement, largest, merge_offers, place
from scheduler.resources import NOTHING
from scheduler.slots import Task


class Launching:
    """Part of the framework's state machine. Keeps no offer: each is used or declined at once."""

    def __init__(self, job: JobState, ending: Ending, elasticity: Elasticity, gang: Gang) -> None:
        self._job = job
        self._gang = gang
        self._ending = ending
        self._elasticity = elasticity
        self._largest = NOTHING
        self._starving_since: float | None = None
        self._suppressed = False
        self._offered = False  #: the master makes offers without being asked at first

    def on_offers(self, event: ev.Offers, now: float) -> None:
        job = self._job
        job.mark("first offer")
        self._offered = True
        away_s = self._gang.away_s(now)
        wanting = self._ending.phase is Phase.RUNNING and bool(job.framework_id)
        wanting = wanting and not away_s and job.slots.wanting(now)
        for offer in event.offers:
            job.agents.offers(offer.agent_id, offer.maintenance_in_s, now)
        unused: Sequence[AgentOffer] = event.offers
        if wanting:
            unused = self._place(merge_offers(event.offers), now)
        unplaced = wanting and job.slots.wanting(now)
        refuse_s = job.patience.refuse_small_s if unplaced or self._elasticity.hungry else job.patience.refuse_idle_s
        ids = tuple(offer_id for offer in unused for offer_id in offer.offer_ids)
        if ids:
            job.do(act.Decline(ids, away_s or refuse_s))
        if not unplaced and not away_s and not self._suppressed and not self._elasticity.hungry:
            self._suppressed = True
            job.do(act.Suppress())

    def _place(self, offers: Sequence[AgentOffer], now: float) -> list[AgentOffer]:
        """Launches what fits; returns the offers that are of no use."""
        job, plan = self._job, self._job.plan
        self._largest = largest([self._largest, *(offer.resources for offer in offers)])
        usable = []
        for offer in offers:
            avoid_s = job.agents.avoided_s(offer.agent_id, now)
            if avoid_s:
                job.do(act.Decline(offer.offer_ids, avoid_s))
            else:
                usable.append(offer)
        needs = job.slots.needs()
        kinds = (False, True) if plan.revocable else (False,)
        fitting = [o for o in usable if any(o.resources.fits(need, kind) for need in needs for kind in kinds)]
        if not fitting:  # as long as the job would take more than there is room for, most offers are too small
            return usable
        wants = job.slots.wants(now, most=self._room(fitting))
        placed = ((slot.role, task.attributes) for slot, task in job.slots.tasks()) if plan.constraints else ()
        census = Census(plan.constraints, placed)
        running = self._occupancy(fitting)
        beside = plan.server_need if job.size.colocated else None
        placements = place(wants, fitting, plan.executor_need, running, census, plan.pack, plan.revocable, beside)
        for placement in placements:
            self._launch(placement, now)
        used = {placement.offer.agent_id for placement in placements}
        return [offer for offer in usable if offer.agent_id not in used]

    def _room(self, offers: Sequence[AgentOffer]) -> int:
        """At least as many tasks as can fit into the offers."""
        plan = self._job.plan
        smallest = min(plan.worker_need.cpus, plan.server_need.cpus)
        return plan.servers + sum(int((o.resources.cpus + o.resources.revocable_cpus) / smallest) + 1 for o in offers)

    def _launch(self, placement: Placement, now: float) -> None:
        job, offer = self._job, placement.offer
        tasks = []
        for launch in placement.launches:
            executor = self._executor(placement, launch.revocable)
            slot = job.slots.slot(launch.want.role, launch.want.index)
            task_id = slot.next_task_id(job.plan)
            task = Task(task_id, offer.agent_id, offer.hostname, executor.executor_id, now, changed_at=now)
            task.attributes, task.revocable = offer.attributes, launch.revocable
            job.slots.fill(slot, task)
            tasks.append(
                requests.task_info(job.plan, job.patience, task_id, slot.role, offer, launch.resources, executor.info)
            )
        job.do(act.Accept(offer.agent_id, offer.offer_ids, tuple(tasks), job.patience.refuse_small_s))

    def _executor(self, placement: Placement, revocable: bool) -> Executor:
        """The one that runs on the agent, or a new one."""
        job, agent_id = self._job, placement.offer.agent_id
        executor = job.executors.at(agent_id, revocable)
        if executor is None:
            resources = placement.revocable_executor if revocable else placement.executor
            executor_id = job.executors.next_id()
            info = requests.executor_info(job.plan, executor_id, job.framework_id, resources or NOTHING)
            executor = job.executors.add(agent_id, executor_id, info, revocable)
        return executor

    def _occupancy(self, offers: Sequence[AgentOffer]) -> dict[str, Occupancy]:
        """Of the agents that make offers, and of those that have servers: what placement asks for."""
        job = self._job
        hostnames = {offer.agent_id: offer.hostname for offer in offers}
        for slot in job.slots.seats():
            if slot.task is not None:
                hostnames[slot.task.agent_id] = slot.task.hostname
        result: dict[str, Occupancy] = {}
        for agent_id, hostname in hostnames.items():
            roles = [slot.role for slot, _ in job.slots.on_agent(agent_id)]
            executors = [job.executors.at(agent_id, kind) for kind in (False, True)]
            executor, revocable = (executor is not None and executor.certain for executor in executors)
            if roles or executor or revocable:
                workers = roles.count("worker")
                result[agent_id] = Occupancy(hostname, len(roles) - workers, workers, executor, revocable)
        return result

    def ask_for_offers(self, now: float) -> None:
        """One REVIVE for each emptied or new slot, when its back-off ends: it lifts all filters."""
        job = self._job
        if self._ending.phase is not Phase.RUNNING or not job.connected or self._gang.away_s(now):
            return
        silent = job.slots.announce(now)
        if (silent and self._offered) or (self._suppressed and self._elasticity.hungry):
            self._suppressed = False
            job.do(act.Revive())

    def check_starving(self, now: float) -> None:
        """Has the agents looked at when slots have found no room for long."""
        job = self._job
        if self._ending.phase is not Phase.RUNNING or not job.slots.wanting(now) or self._gang.away_s(now):
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
