"""Jobs that share a full cluster, on a real Mesos, with scripted tasks that train nothing."""

import asyncio
import http.client
import json
import os
import pickle
import re
import sys
import time
from collections import Counter

import psutil
import pytest

from scheduler import job_record
from scheduler.cluster import EmbeddedCluster
from scheduler.driver import drive, new_secret
from scheduler.job_record import JobRecord
from scheduler.outcome import UsageError
from scheduler.phases import Phases
from scheduler.plan import JobPlan, Patience
from scheduler.resources import Need
from scheduler.scaling import scale
from scheduler.state_store_sqlite import SqliteStates

from .test_driver_cluster import ROOT, SCRIPTED, Watcher

pytestmark = pytest.mark.cluster

SHARE_S = 30.0  #: what a newcomer may have to wait for its share
CPUS = 6.1  #: of each of two agents: five workers, two servers and executors


class Jobs:
    """Several drivers in one loop."""

    def __init__(self, cluster, tmp_path):
        self.cluster, self.tmp_path = cluster, tmp_path
        self.running, self.watchers, self.stores = {}, {}, {}

    def start(self, name, **changes):
        values = {
            "job_id": f"{name}-{os.urandom(4).hex()}",
            "workers": 10,
            "min_workers": 1,
            "servers": 1,
            "control": "",
            "secret": new_secret(),
            "python": sys.executable,
            "spec": pickle.dumps({"steps": 10**6, "step_s": 0.05}),
            "executor_environment": {"PYTHONPATH": f"{SCRIPTED}:{ROOT}"},
            "worker_need": Need(1, 100),
            "executor_need": Need(0.01, 32),
        }
        plan = JobPlan(**{**values, **changes})
        self.watchers[name] = Watcher()
        store = SqliteStates(self.tmp_path).store(plan.job_id)
        job_record.create(store, JobRecord(plan, self.cluster.master, False, "", samples_per_epoch=1, batch_size=1))
        self.stores[name] = store
        patience = Patience(share_s=1)
        job = drive(plan, self.cluster.master, "127.0.0.1", self.watchers[name], store, Phases(), patience)
        self.running[name] = (plan, asyncio.create_task(job))

    def workers(self):
        """Live worker processes by job."""
        counts = Counter()
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if "executor.task" in command:
                jobs = ((name, plan.job_id) for name, (plan, _) in self.running.items())
                counts.update(name for name, job_id in jobs if command[-1].startswith(f"{job_id}.worker-"))
        return {name: counts[name] for name in self.running}

    async def until_shared(self, least):
        """Waits until no job has over one worker more than another, and each so many."""
        begun = time.monotonic()
        while not self.shared(least):
            assert time.monotonic() - begun < SHARE_S, f"{self.workers()} after {SHARE_S} s: {self.notes()}"
            for plan, task in self.running.values():
                assert not task.done(), f"{plan.job_id} ended: {task.result()}"
            await asyncio.sleep(0.2)
        print(f"{self.workers()} after {time.monotonic() - begun:.1f} s")

    def shared(self, least):
        counts = self.workers().values()
        return min(counts) >= least and max(counts) - min(counts) <= 1

    def notes(self):
        return {name: watcher.notes for name, watcher in self.watchers.items()}

    async def stop(self, name):
        _, task = self.running.pop(name)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        self.stores.pop(name).close()

    async def scale(self, name, workers):
        """As `mesograd scale` does it."""
        return await asyncio.to_thread(scale, self.running[name][0].job_id, workers, place=str(self.tmp_path))


def test_three_jobs_share_a_full_cluster(tmp_path):
    async def share(jobs):
        jobs.start("first")
        await jobs.until_shared(10)
        jobs.start("second")
        await jobs.until_shared(5)
        jobs.start("third")
        await jobs.until_shared(3)
        await asyncio.sleep(3)  # several looks at the shares: what was reached stays
        assert jobs.shared(3), jobs.workers()
        await jobs.stop("third")
        await jobs.until_shared(5)
        await jobs.stop("second")
        await jobs.until_shared(10)
        await jobs.stop("first")

    with EmbeddedCluster(tmp_path / "cluster", agents=2, cpus=CPUS, mem_mb=8000, ephemeral=True) as cluster:
        jobs = Jobs(cluster, tmp_path)
        asyncio.run(share(jobs))
        assert any(re.match("gives up . of 10 workers", note) for note in jobs.watchers["first"].notes), jobs.notes()
        assert not any("lost" in note for notes in jobs.notes().values() for note in notes), jobs.notes()


def test_a_running_job_is_scaled(tmp_path):
    async def grow_and_shrink(jobs):
        jobs.start("one", workers=2, min_workers=2)
        await jobs.until_shared(2)
        plan, _ = jobs.running["one"]
        assert "from 2 to 5 workers" in await jobs.scale("one", 5)
        await jobs.until_shared(5)
        await jobs.scale("one", 1)
        while jobs.workers() != {"one": 1}:
            await asyncio.sleep(0.1)
        with pytest.raises(UsageError, match="refused: a job has 1 to 10000 workers"):
            await jobs.scale("one", 0)
        await jobs.stop("one")
        with pytest.raises(UsageError, match=f"job {plan.job_id} has ended"):
            await asyncio.to_thread(scale, plan.job_id, 2, place=str(tmp_path))

    with EmbeddedCluster(agents=2, cpus=4, mem_mb=8000, ephemeral=True) as cluster:
        jobs = Jobs(cluster, tmp_path)
        asyncio.run(grow_and_shrink(jobs))
        assert not any("lost" in note for note in jobs.watchers["one"].notes), jobs.notes()
    with pytest.raises(UsageError, match="there is no job 'nothing'; see `mesograd jobs`"):
        scale("nothing", 2, place=str(tmp_path))


def master_call(cluster, path, body=None):
    """JSON answer of the master, None if it is empty."""
    connection = http.client.HTTPConnection(cluster.master, timeout=10)
    try:
        data = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status in (http.client.OK, http.client.ACCEPTED), text
        return json.loads(text) if text else None
    finally:
        connection.close()


def test_planned_maintenance_is_agreed_to_and_the_agent_is_left_in_time(tmp_path):
    async def maintain(jobs):
        jobs.start("one", workers=2, min_workers=2)
        await jobs.until_shared(2)
        window = {"start": {"nanoseconds": int((time.time() + 62) * 1e9)}, "duration": {"nanoseconds": int(3600e9)}}
        machines = [{"hostname": "127.0.0.1", "ip": "127.0.0.1"}]
        schedule = {"windows": [{"machine_ids": machines, "unavailability": window}]}
        master_call(jobs.cluster, "/maintenance/schedule", schedule)
        while not any("maintenance of its agent" in note for note in jobs.watchers["one"].notes):
            await asyncio.sleep(0.1)
        (draining,) = master_call(jobs.cluster, "/maintenance/status")["draining_machines"]
        assert [status["status"] for status in draining["statuses"]] == ["ACCEPT"]
        master_call(jobs.cluster, "/maintenance/schedule", {"windows": []})
        await jobs.until_shared(2)
        await jobs.stop("one")

    with EmbeddedCluster(agents=1, cpus=4, mem_mb=8000, ephemeral=True) as cluster:
        asyncio.run(asyncio.wait_for(maintain(Jobs(cluster, tmp_path)), 60))
