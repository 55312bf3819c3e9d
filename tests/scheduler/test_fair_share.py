"""Fair shares: the arithmetic, and jobs that share a model of a cluster until nobody moves any more."""

from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
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


def looks(fair, free, other_cpus, have, now, other_hungry=True):
    """One look of a job with no more than its workers, beside one other framework, at a cluster of 10 cpus."""
    parties = (Party("me", "*", have, 0, hungry=True), Party("other", "*", other_cpus, 0, hungry=other_hungry))
    pieces = {f"agent-{number}": Need(cpus, 1e6) for number, cpus in enumerate(free)}
    changes = {"worker_need": WORKER, "workers": 10, "executor_need": Need(0.1, 32)}
    return fair.workers(ClusterShares(10, 1e6, parties, free=pieces), "me", plan(**changes), Need(0, 0), have, now)


def test_what_was_given_up_is_not_taken_back_while_others_are_to_take_it():
    fair = FairShare(Patience())
    assert looks(fair, [0.0, 0.0], 0, 10, 0.0) == 5
    assert looks(fair, [5.0, 0.0], 0, 5, 3.0) == 5
    assert looks(fair, [3.0, 0.0], 2, 5, 6.0) == 5
    assert looks(fair, [3.0, 0.0], 2, 5, 9.0, other_hungry=False) is None, "what it does not want is free again"


def test_who_finds_no_whole_piece_is_not_taken_for_one_who_wants_none():
    """Two pieces that are too small each, for a worker and an executor, together large enough."""
    fair = FairShare(Patience())
    assert looks(fair, [0.0, 0.0], 2.8, 7, 0.0) == 5
    assert looks(fair, [1.05, 1.05], 2.8, 5, 20.0) is not None, "it waits still"
    fair = FairShare(Patience())
    assert looks(fair, [0.0, 0.0], 2.8, 7, 0.0) == 5
    assert looks(fair, [2.1, 0.0], 2.8, 5, 20.0) is None, "there was room for what it waits for"


def test_scraps_are_nobodys():
    shares = ClusterShares(12, 1000, (), free={"a": Need(1.7, 500), "b": Need(0.3, 500), "c": Need(4, 150)})
    whole = shares.without_scraps(WORKER)
    assert (whole.cpus, whole.mem_mb) == (pytest.approx(11), pytest.approx(950))


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
@example(6.0, [1, 3, 1, 1])
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


@dataclass
class Placed(Job):
    """A job of which it is known what runs where."""

    on: list[int] = field(default_factory=list)  #: workers by agent
    home: int = -1  #: agent of its server

    def used(self, agent: int) -> float:
        there = self.on[agent] or self.home == agent
        return self.on[agent] * WORKER.cpus + SERVER_CPUS * (self.home == agent) + EXECUTOR_CPUS * bool(there)


SERVER_CPUS, EXECUTOR_CPUS = 0.5, 0.01


class Walled(Model):
    """Agents with walls between them: what is free on two of them is no room for one worker."""

    def __init__(self, agents, jobs):
        self.agents = agents
        super().__init__(sum(agents), [])
        for job in jobs:
            self.arrive(job)

    def arrive(self, job):
        job.on, job.wanted = [0] * len(self.agents), job.target
        rooms = [agent for agent in range(len(self.agents)) if self.free(agent) >= SERVER_CPUS + EXECUTOR_CPUS]
        job.home = max(rooms, key=self.free)
        self.jobs.append(job)

    def free(self, agent):
        return self.agents[agent] - sum(job.used(agent) for job in self.jobs)

    def shares(self):
        for job in self.jobs:
            cpus = sum(job.used(agent) for agent in range(len(self.agents))) - job.have * WORKER.cpus
            job.base = Need(cpus, 0)
        parties = tuple(job.party() for job in self.jobs)
        free = {str(agent): Need(self.free(agent), 1e6) for agent in range(len(self.agents))}
        return ClusterShares(self.cpus, 1e6, parties, self.roles, free)

    def allocate(self):
        for job in self.jobs:  # those that were told to go have gone
            while sum(job.on) > job.have:
                agents = [agent for agent in range(len(self.agents)) if job.on[agent]]
                job.on[max(agents, key=lambda agent: (self.free(agent), -job.used(agent)))] -= 1
        while True:
            self.shares()
            takers = []
            for job in self.jobs:
                if job.have < job.wanted:
                    new = [EXECUTOR_CPUS * (not job.used(agent)) + WORKER.cpus for agent in range(len(self.agents))]
                    rooms = [agent for agent, cpus in enumerate(new) if self.free(agent) >= cpus]
                    if rooms:
                        takers.append((job, min(rooms, key=lambda agent: (job.on[agent], -self.free(agent)))))
            if not takers:
                return
            job, agent = min(takers, key=lambda taker: taker[0].party().cpus)
            job.on[agent] += 1
            job.have += 1


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from([4.1, 6.1, 8.3, 3.7]), min_size=2, max_size=5), st.integers(2, 3))
@example([6.1, 6.1], 3)
def test_jobs_of_equal_weight_have_equally_many_workers_whatever_lies_where(agents, count):
    jobs = [Placed(f"job-{number}", 100) for number in range(count)]
    model = Walled(agents, jobs[:1])
    model.settle(3)
    for job in jobs[1:]:
        job.home = -1
        # A newcomer's server finds room once the others give something up: they see that it waits.
        while max(map(model.free, range(len(agents)))) < SERVER_CPUS + EXECUTOR_CPUS:
            worst = max(model.jobs, key=lambda other: other.have)
            worst.have -= 1
            worst.wanted = worst.have
            while sum(worst.on) > worst.have:
                worst.on[next(agent for agent, workers in enumerate(worst.on) if workers)] -= 1
        model.arrive(job)
        have = model.settle(20)
        assert max(have) - min(have) <= 1, have
    for job in jobs[:0:-1]:
        model.jobs.remove(job)
        have = model.settle(20)
        assert max(have) - min(have) <= 1, have
        assert max(map(model.free, range(len(agents)))) < WORKER.cpus + EXECUTOR_CPUS, "all is used"
