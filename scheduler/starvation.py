"""What to say when a job finds no room: whether it ever could, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.placement import AgentOffer, Want, largest, place
from scheduler.plan import JobPlan
from scheduler.resources import Resources

NAMED = 8  #: slots that a message names one by one


def impossible(plan: JobPlan, totals: Sequence[Resources], largest_seen: Resources) -> str:
    """One line why the job cannot even start on empty agents of these sizes; empty if it could.

    To start it needs all servers and the least number of workers. Constraints are not looked at.
    """
    if not totals:
        return "the master has no agents; start one, or give another --master"
    wants = [Want("server", index, plan.server_need) for index in range(plan.servers)]
    wants += [Want("worker", index, plan.worker_need) for index in range(plan.min_workers)]
    agents = [AgentOffer(str(i), f"host-{i}", "", (), resources) for i, resources in enumerate(totals)]
    for want in (wants[-1], wants[0]):
        if not any(agent.resources.fits(want.need + plan.executor_need) for agent in agents):
            return f"no agent can ever offer what {asked(plan, want.role)}; {seen(totals, largest_seen)}"
    placed = sum(len(placement.launches) for placement in place(wants, agents, plan.executor_need, {}))
    if placed < len(wants):
        workers = "a worker" if plan.min_workers == 1 else f"{plan.min_workers} workers"
        return (
            f"the agents together have no room for {plan.servers} servers and {workers}: {asked(plan, 'server')}, "
            f"{asked(plan, 'worker')}; {seen(totals, largest_seen)}"
        )
    return ""


def waiting(plan: JobPlan, missing: Sequence[Want], largest_seen: Resources) -> str:
    """One line on what the job waits for."""
    names = ", ".join(f"{want.role} {want.index}" for want in missing[:NAMED])
    if len(missing) > NAMED:
        names += f" and {len(missing) - NAMED} more"
    needs = "; ".join(asked(plan, role) for role in sorted({want.role for want in missing}))
    constraints = f"; constraints: {', '.join(map(str, plan.constraints))}" if plan.constraints else ""
    offered = f"the largest offer seen: {largest_seen}" if largest_seen.scalars else "no agent has so much free"
    return f"waiting for resources for {names}: {needs}; {offered}{constraints}"


def asked(plan: JobPlan, role: str) -> str:
    return f"a {role} asks for ({plan.need(role)}, and {plan.executor_need} for the executor)"


def seen(totals: Sequence[Resources], largest_seen: Resources) -> str:
    offer = largest_seen if largest_seen.scalars else largest(totals)
    return f"the largest offer seen is {offer}"
