"""The Mesos messages that start a task: FrameworkInfo, ExecutorInfo and TaskInfo as the JSON the master takes."""

from __future__ import annotations

import base64
import json
import shlex
from typing import Any

from scheduler.placement import AgentOffer
from scheduler.plan import FAILOVER_TIMEOUT_S, JobPlan, Patience
from scheduler.resources import Resources

#: GPU_RESOURCES stays off: a framework with it is offered GPU agents, which a CPU job only blocks.
CAPABILITIES = ("PARTITION_AWARE", "TASK_KILLING_STATE", "MULTI_ROLE", "RESERVATION_REFINEMENT")


def framework_name(plan: JobPlan) -> str:
    """As the master lists it; as unique as the job's id."""
    return f"mesograd {plan.job_id}"


def capabilities(plan: JobPlan) -> tuple[str, ...]:
    """What the framework says it can deal with."""
    return (*CAPABILITIES, "REVOCABLE_RESOURCES") if plan.revocable else CAPABILITIES


def framework_info(plan: JobPlan, hostname: str, framework_id: str = "") -> dict[str, Any]:
    """FrameworkInfo. `user`, `principal` and `checkpoint` cannot be changed once registered."""
    info: dict[str, Any] = {
        "name": framework_name(plan),
        "user": plan.user,
        "principal": plan.principal,
        "hostname": hostname,
        "roles": [plan.role],
        "checkpoint": True,
        "failover_timeout": FAILOVER_TIMEOUT_S,
        "capabilities": [{"type": name} for name in capabilities(plan)],
        "offer_filters": {plan.role: {"min_allocatable_resources": {"quantities": _smallest_useful(plan)}}},
        "labels": {"labels": [{"key": "mesograd.job", "value": plan.job_id}]},
    }
    if framework_id:
        info["id"] = {"value": framework_id}
    return info


def _smallest_useful(plan: JobPlan) -> list[dict[str, Any]]:
    """Offers that hold none of these are of no use: the need of one task, whose executor may run there already."""
    needs = dict.fromkeys(plan.need(role) for role in ("worker", "server"))
    return [{"quantities": {"cpus": {"value": need.cpus}, "mem": {"value": need.mem_mb}}} for need in needs]


def executor_info(plan: JobPlan, executor_id: str, framework_id: str, resources: Resources) -> dict[str, Any]:
    """ExecutorInfo. The master refuses a task whose ExecutorInfo differs from the running one's, so keep the answer."""
    command: dict[str, Any] = {"value": f"exec {shlex.quote(plan.python)} -m executor", "shell": True}
    if plan.executor_environment:
        variables = [{"name": name, "value": value} for name, value in sorted(plan.executor_environment.items())]
        command["environment"] = {"variables": variables}
    return {
        "type": "CUSTOM",
        "executor_id": {"value": executor_id},
        "framework_id": {"value": framework_id},
        "name": "mesograd executor",
        "source": plan.job_id,
        "command": command,
        "resources": resources.to_mesos(),
    }


def threads(plan: JobPlan, role: str) -> int:
    """OpenMP threads of a task: as many as cpus were granted, unless the user says otherwise with --env."""
    chosen = plan.task_environment.get("OMP_NUM_THREADS", "")
    return int(chosen) if chosen.isdigit() and int(chosen) else max(1, int(plan.need(role).cpus))


def task_info(
    plan: JobPlan,
    patience: Patience,
    task_id: str,
    role: str,
    offer: AgentOffer,
    resources: Resources,
    executor: dict[str, Any],
) -> dict[str, Any]:
    """TaskInfo; `data` as docs/architecture.md describes it. A server listens on the ports it was given."""
    data: dict[str, Any] = {
        "role": "worker" if role == "worker" else "server",
        "task_id": task_id,
        "job_id": plan.job_id,
        "control": plan.control,
        "secret": plan.secret,
        "threads": threads(plan, role),
        "env": dict(plan.task_environment),
    }
    info: dict[str, Any] = {
        "name": task_id.removeprefix(f"{plan.job_id}."),
        "task_id": {"value": task_id},
        "agent_id": {"value": offer.agent_id},
        "resources": resources.to_mesos(),
        "executor": executor,
        "kill_policy": {"grace_period": {"nanoseconds": int(patience.kill_grace_s * 1e9)}},
        "labels": {"labels": [{"key": "mesograd.job", "value": plan.job_id}, {"key": "mesograd.role", "value": role}]},
    }
    ports = resources.ports
    if ports:
        data["bind"] = f"{offer.address}:{ports[0]}"
        named = [{"number": ports[0], "name": role, "protocol": "tcp"}]
        if len(ports) > 1:
            data["bind_lanes"] = f"{offer.address}:{ports[1]}"
            named.append({"number": ports[1], "name": "lanes", "protocol": "tcp"})
        info["discovery"] = {"visibility": "FRAMEWORK", "name": task_id, "ports": {"ports": named}}
    info["data"] = base64.b64encode(json.dumps(data).encode()).decode()
    return info
