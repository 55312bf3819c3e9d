"""Three jobs that train share one full cluster: equal shares, and the weights of a job that is alone, bit for bit."""

import time
from collections import Counter

import pytest

from scheduler.cluster import EmbeddedCluster
from tests.integration.runs import ROOT, TIMEOUT_S, WORK, Run, tasks

pytestmark = pytest.mark.cluster

JOB = str(ROOT / "benchmarks" / "chaos" / "job.py")
EPOCHS, PACE_S = 25, 0.6
CPUS = 4.4  # of each of two agents: three workers, and what servers and executors need
SHARE_S = 30.0  # what a newcomer may have to wait for its share, once it is there


class Job:
    """One that is slow until it is told to hurry."""

    def __init__(self, master: str, name: str, *options: str) -> None:
        directory = WORK / f"sharing-{name}"
        directory.mkdir()
        self._slow_file = directory / "slow"
        self._slow_file.touch()
        self.run = Run.start(
            "--master", master, "--mem-per-worker", "200", *options, JOB, "--epochs", str(EPOCHS),
            "--checkpoints", str(directory / "checkpoints"), "--pace", str(PACE_S),
            "--slow-file", str(self._slow_file),
        )  # fmt: skip

    def weights(self) -> str:
        """Of the end, to which it now goes as fast as it can."""
        self._slow_file.unlink()
        return self.run.weights()


def until_shared(count: int, least: int) -> None:
    """Waits until so many jobs have workers, each at least so many, and none over one more than another."""
    deadline = time.monotonic() + TIMEOUT_S
    there = False
    while True:
        shares = Counter(name.partition(".")[0] for name in tasks(".worker-"))
        if not there and len(shares) == count:
            there, deadline = True, time.monotonic() + SHARE_S
        if there and min(shares.values()) >= least and max(shares.values()) - min(shares.values()) <= 1:
            return
        assert time.monotonic() < deadline, f"{shares}"
        time.sleep(0.2)  # processes come and go without a word to this one


def test_three_jobs_share_a_full_cluster_and_keep_every_bit() -> None:
    sizes = ("--min-workers", "1", "--max-workers", "10")
    with EmbeddedCluster(WORK / "sharing", agents=2, cpus=CPUS, mem_mb=8000, ephemeral=True) as cluster:
        alone = Job(cluster.master, "alone", "--workers", "2").weights()
        first = Job(cluster.master, "first", *sizes)
        until_shared(1, 6)
        second = Job(cluster.master, "second", *sizes)
        until_shared(2, 3)
        third = Job(cluster.master, "third", *sizes)
        until_shared(3, 2)
        assert third.weights() == alone
        until_shared(2, 3)
        assert second.weights() == alone
        until_shared(1, 6)
        assert first.weights() == alone
        assert any("gives up" in line for line in first.run.lines), first.run.output
        assert any("may have" in line for line in first.run.lines), first.run.output
        for job in (first, second, third):
            assert not any("lost on" in line for line in job.run.lines), job.run.output
