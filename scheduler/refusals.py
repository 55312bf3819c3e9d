"""What a master's refusals mean and what helps: authentication, ACLs, quota. Mesos' own words name no remedy."""

from __future__ import annotations

import re
from collections.abc import Mapping

from scheduler import events as ev
from scheduler.plan import JobPlan

_ASK = "or ask the cluster's operator"


def subscription(message: str, plan: JobPlan) -> str:
    """One line on why the master does not take the framework; empty if it is not for want of a right."""
    said = message.removeprefix("the master at ")
    if "HTTP 401" in message:
        return (
            f"{message}: name the principal with --principal (now {plan.principal!r}), and give its secret with "
            "--secret-file FILE or in MESOGRAD_SECRET"
        )
    if re.search(r"not authorized to (register|use|reregister)", said, re.IGNORECASE):
        return (
            f"the master does not let principal {plan.principal!r} register a framework in role {plan.role!r} "
            f"(its ACL register_frameworks): choose another --role or --principal, {_ASK}"
        )
    if re.search(r"roles? .* (is|are) not present in the master's --roles", said, re.IGNORECASE):
        return f"the master knows no role {plan.role!r} (its --roles): choose another --role, {_ASK}"
    if "HTTP 403" in message:
        return f"{message}: principal {plan.principal!r} may not do that; choose another --principal, {_ASK}"
    return ""


def task(update: ev.StatusUpdate, plan: JobPlan) -> str:
    """One line on why no task of the job will ever be let run; empty if another one may be."""
    if update.reason != "REASON_TASK_UNAUTHORIZED":
        return ""
    return (
        f"the master does not let principal {plan.principal!r} run tasks as user {plan.user!r} (its ACL run_tasks): "
        f"name another one with --user, choose another --principal, {_ASK}"
    )


def quota(plan: JobPlan, limits: Mapping[str, float]) -> str:
    """One line on why the job cannot start within its role's quota; empty if it can.

    Args:
        plan: the job; to start it needs all servers, one worker and an executor.
        limits: the role's quota limits: "cpus" (cores) and "mem" (MB), where there are any.
    """
    needed = {
        "cpus": plan.servers * plan.server_need.cpus + plan.worker_need.cpus + plan.executor_need.cpus,
        "mem": plan.servers * plan.server_need.mem_mb + plan.worker_need.mem_mb + plan.executor_need.mem_mb,
    }
    for name, unit in (("cpus", "cpus"), ("mem", "MB")):
        if name in limits and limits[name] < needed[name]:
            return (
                f"the quota of role {plan.role!r} is {limits[name]:g} {unit}, but the job cannot start with less than "
                f"{needed[name]:g} {unit} (all servers, one worker, an executor): choose another --role, ask for less, "
                f"or have the cluster's operator raise the quota"
            )
    return ""


def quota_hint(plan: JobPlan, limits: Mapping[str, float]) -> str:
    """What to add to a complaint about missing resources; empty without a quota."""
    parts = [f"{limits[name]:g} {unit}" for name, unit in (("cpus", "cpus"), ("mem", "MB")) if name in limits]
    return f"; role {plan.role!r} may have {', '.join(parts)} in all (its quota)" if parts else ""
