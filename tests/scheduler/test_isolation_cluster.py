"""Agents that isolate by cgroups (version 1) with the linux launcher: only for root, where cgroups are mounted."""

import os
from pathlib import Path

import pytest

from scheduler.cluster import ClusterOptions, EmbeddedCluster
from scheduler.plan import Patience
from scheduler.resources import Need

from .test_driver_cluster import Watcher, run

HIERARCHY = Path("/sys/fs/cgroup")
NEEDED = ("cpu", "cpuacct", "memory", "freezer")
ROOT_GROUP = f"mesograd-test-{os.getpid()}"


def _missing() -> str:
    if os.geteuid() != 0:
        return "the linux launcher needs root"
    absent = [name for name in NEEDED if not (HIERARCHY / name / "cgroup.procs").exists()]
    writable = all(os.access(HIERARCHY / name, os.W_OK) for name in NEEDED)
    return f"no cgroups (version 1): {', '.join(absent)}" if absent else "" if writable else "cgroups are read-only"


pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(_missing()), reason=_missing() or "-")]


@pytest.fixture(scope="module")
def cluster():
    flags = {"launcher": "linux", "isolation": "cgroups/cpu,cgroups/mem", "cgroups_root": ROOT_GROUP}
    with EmbeddedCluster(options=ClusterOptions(agents=1, cpus=4, mem_mb=8000, agent_flags=flags)) as cluster:
        yield cluster
    for name in NEEDED:  # Mesos leaves its root behind
        group = HIERARCHY / name / ROOT_GROUP
        if group.is_dir():
            group.rmdir()


def test_a_job_runs_in_cgroups_of_its_own(cluster, tmp_path):
    seen = []

    def look():
        groups = (HIERARCHY / "memory" / ROOT_GROUP).glob("*/memory.limit_in_bytes")
        seen.extend(int(file.read_text()) for file in groups)

    outcome = run(cluster, {"steps": 40, "step_s": 0.05}, tmp_path, Watcher(5, look), workers=1, servers=1)
    assert outcome.error == ""
    assert seen
    assert max(seen) < 2000 << 20, "the sum of what was granted, not the machine's"


MEMORY = {"servers": 1, "workers": 1, "worker_need": Need(1, 300), "server_need": Need(0.5, 200, 1)}


def test_a_task_killed_for_memory_is_named_and_not_tried_for_ever(cluster, tmp_path):
    script = {"steps": 10**6, "step_s": 0.05, "eat_mb": {"worker": 900}}
    outcome = run(cluster, script, tmp_path, patience=Patience(failures=1), **MEMORY)
    assert "killed for want of memory, of which it had" in outcome.error


def test_it_is_launched_again_with_more(cluster, tmp_path):
    watcher = Watcher()
    script = {"steps": 100, "step_s": 0.05, "eat_mb": {"worker": 900}}
    outcome = run(cluster, script, tmp_path, watcher, mem_retry=4.0, **MEMORY)
    assert outcome.error == ""
    assert any("killed for want of memory" in n and "the next one gets 1200 MB" in n for n in watcher.notes), (
        watcher.notes
    )
