"""The size of the embedded cluster behind `--master local[N]`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from scheduler.plan import JobPlan


@dataclass(frozen=True)
class AgentSize:
    cpus: float
    mem_mb: int


def host_size() -> AgentSize:
    """What this machine has."""
    return AgentSize(float(len(os.sched_getaffinity(0))), psutil.virtual_memory().total // 2**20)


def agent_size(plan: JobPlan, host: AgentSize) -> AgentSize:
    """What each agent offers.

    All agents share one machine, and more tasks than cores only run slower; so each offers room for the whole job,
    as long as no single task asks for more than the machine has. A task that does gets an honest refusal.
    """
    needs = [plan.executor_need]
    for role in ("server", "replica", "worker"):
        needs += [plan.need(role)] * plan.count(role)
    cpus = sum(min(need.cpus, host.cpus) for need in needs)
    mem_mb = sum(min(need.mem_mb, host.mem_mb) for need in needs)
    largest = max(plan.worker_need.cpus, plan.server_need.cpus)
    if largest > host.cpus:
        cpus = host.cpus
    if max(plan.worker_need.mem_mb, plan.server_need.mem_mb) > host.mem_mb:
        mem_mb = host.mem_mb
    return AgentSize(max(cpus, host.cpus), int(max(mem_mb, host.mem_mb)) + 1)


def first_complaint(directory: Path, lines: int = 15) -> str:
    """What the executor that ended first wrote to its standard error; empty if there is nothing.

    The sandboxes of an embedded cluster are removed with it, so that this is the only chance to show it.

    Args:
        directory: the cluster's.
        lines: of the end of the file.
    """
    runs = [path for path in directory.glob("agent-*/**/runs/*/stderr") if path.parent.name != "latest"]
    for path in sorted(runs, key=lambda path: path.stat().st_mtime):
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        if text:
            return "\n".join(text.splitlines()[-lines:])
    return ""
