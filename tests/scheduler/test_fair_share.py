"""Fair shares: the arithmetic, and jobs that share a model of a cluster until nobody moves any more."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.fair_share import ClusterShares, FairShare, Party, RoleTerms
from scheduler.plan import Patience
from scheduler.resources import Need

from .harness import plan

WORKER = Need(1, 100)
BASE = Need(0.7, 700)
LOOK_S = 3.0


@dataclass
class Job:
    name: str
    target: int
    have: int = 0
    wanted: int = 0
    role: str = "*"
    base: Need = BASE
    fair: FairShare = field(default_factory=lambda: FairShare(Patience()))

    def party(self) -> Party:
        cpus, mem_mb = self.base.cpus + self.have * WORKER.cpus, self.base.mem_mb + self.have * WORKER.mem_mb
        return Party(self.name, self.role, cpus, mem_mb, self.have < self.target)


class Model:
    """A cluster without walls between agents: its allocator gives what is free to whoever has least."""

    def __init__(self, cpus, jobs, roles=None, others=()):
        self.cpus, self.jobs, self.roles, self.others = cpus, jobs, roles or {}, list(others)
        self.now = 0.0
        for job in jobs:
            job.wanted = job.target

    def shares(self):
        parties = (*(job.party() for job in self.jobs), *self.others)
        return ClusterShares(self.cpus, 1e6, parties, self.roles)

    def allocate(self):
        while True:
            free = self.cpus - sum(party.cpus for party in self.shares().parties)
            takers = [job for job in self.jobs if job.have < job.wanted]
            if not takers or free < WORKER.cpus:
                return
            min(takers, key=lambda job: job.party().cpus / self.weight(job)).have += 1

    def weight(self, job):
        return self.roles.get(job.role, RoleTerms()).weight

    def round(self):
        """Every job looks once, one after the other."""
        for job in self.jobs:
            self.now += LOOK_S / len(self.jobs)
            changes = {"worker_need": WORKER, "workers": job.target, "min_workers": 1, "role": job.role}
            cap = job.fair.workers(self.shares(), job.name, plan(**changes), job.base, job.have, self.now)
            job.wanted = job.target if cap is None else max(1, min(job.target, cap))
            job.have = min(job.have, job.wanted)
            self.allocate()

    def settle(self, rounds=10):
        self.allocate()
        for _ in range(rounds):
            self.round()
        return [job.have for job in self.jobs]


def test_a_newcomer_gets_its_share_and_gives_it_back():
    model = Model(9.4, [Job("a", 8)])
    assert model.settle() == [8]
    model.jobs.append(Job("b", 8, wanted=8))
    assert model.settle() == [4, 4]
    model.jobs.append(Job("c", 8, wanted=8))
    assert sorted(model.settle()) == [2, 2, 3]
    del model.jobs[1]
    assert model.settle() == [4, 4]
    del model.jobs[0]
    assert model.settle() == [8]


def test_nobody_who_is_content_takes_anything():
    job = Job("a", 8)
    others = [Party("idle", "*", 0, 0, hungry=False), Party("small", "*", 1, 100, hungry=False)]
    assert Model(10, [job], others=others).settle() == [8]


def test_a_framework_that_takes_no_offers_of_use_is_waited_for_once():
    """Some frameworks never suppress offers, though they want none."""
    job = Job("a", 8)
    model = Model(9.4, [job], others=[Party("idle", "*", 0, 0, hungry=True)])
    model.settle(2)
    assert job.have == 4
    model.settle(10)
    assert job.have == 8


def test_weights_of_roles():
    jobs = [Job("a", 20, role="batch"), Job("b", 20, role="research")]
    roles = {"batch": RoleTerms(1.0), "research": RoleTerms(3.0)}
    model = Model(24 + 2 * BASE.cpus, jobs, roles)
    batch, research = model.settle(20)
    assert batch + research == 24
    assert batch + 0.7 == pytest.approx((24 + 1.4) / 4, abs=1)


def test_a_guarantee_is_owed_before_all_shares():
    guarantee = {"prod": RoleTerms(guarantee=Need(8, 100))}
    jobs = [Job("a", 20), Job("p", 20, role="prod")]
    model = Model(10, [jobs[0]], guarantee)
    model.settle()
    model.jobs.append(jobs[1])
    jobs[1].wanted = 20
    model.settle(20)
    assert jobs[0].have <= 2  # of two cpus that are left for it, and one worker more by rounding


def test_a_role_at_its_limit_is_owed_nothing():
    limited = {"capped": RoleTerms(full=True)}
    model = Model(9.4, [Job("a", 8)], limited, [Party("other", "capped", 0, 0, hungry=True)])
    assert model.settle() == [8]


@settings(deadline=None, max_examples=20)
@given(st.floats(6, 60), st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_jobs_come_to_rest_with_equal_shares(cpus, targets):
    jobs = [Job(f"job-{number}", target) for number, target in enumerate(targets)]
    model = Model(cpus, jobs[:1])
    model.settle(3)
    for job in jobs[1:]:
        job.wanted = job.target
        model.jobs.append(job)
        model.settle(3)
    before = model.settle(25)
    assert model.settle(5) == before, "somebody still moves"
    assert sum(party.cpus for party in model.shares().parties) <= max(cpus, len(jobs) * (BASE.cpus + 1))
    hungry = [job.have for job in jobs if job.have < job.target]
    for job in jobs:
        assert job.have >= 0
        assert all(job.have <= poor + 1 for poor in hungry), f"{before} of {targets}"
