"""Jobs that need all they ask for at once: each holds half of a cluster, and in the end each has had its turn."""

import itertools

import pytest

from scheduler import actions as act
from scheduler import events as ev
from scheduler.placement import AgentOffer
from scheduler.plan import Patience
from scheduler.resources import NOTHING, Need, Resources

from .harness import Harness, notes, of, resources

RUN_S = 50.0  #: that a job takes once it has begun
START_S = 2.0  #: from a launch to hello
EXIT_S = 1.0  #: from KILL to the end
WORKER = Need(1, 100)
AGENTS, CPUS = 4, 2.3  #: two workers, a server and executors


class Shared:
    """A cluster that offers what is free to whoever has least; jobs leave it once they have run."""

    def __init__(self, patience, *names, **changes):
        values = {"worker_need": WORKER, "server_need": Need(0.1, 50, 1), "executor_need": Need(0.01, 32)}
        self.free = {f"agent-{number}": resources(cpus=CPUS, mem=4000) for number in range(AGENTS)}
        self.jobs = {name: Harness(patience, job_id=name, **{**values, **changes}) for name in names}
        self.running = {}  # task id -> (job, agent, resources)
        self.executors = {}  # executor id -> (job, agent, resources)
        self.due = []  # (when, number, call)
        self.numbers = itertools.count()
        self.now = 100.0
        self.filters = {}  # (job, agent) -> (until, cpus refused)
        self.began, self.ended, self.said = {}, {}, []
        for name in names:
            self.send(name, ev.Subscribed(f"framework-{name}"))

    def later(self, seconds, call):
        self.due.append((self.now + seconds, next(self.numbers), call))

    def send(self, name, event):
        harness = self.jobs[name]
        harness.now = self.now
        actions = harness.send(event)
        for action in actions:
            self.obey(name, action)
        self.said += [note.text for note in of(actions, act.Note)]
        members = harness.framework.job.members
        if name not in self.began and harness.framework.job.size.started and members.attempt:
            self.began[name] = self.now
            self.later(RUN_S, lambda: self.end(name))
        return actions

    def obey(self, name, action):
        if isinstance(action, act.Accept):
            for task in action.tasks:
                executor = task["executor"]["executor_id"]["value"]
                if executor not in self.executors:
                    self.take(self.executors, name, executor, action.agent_id, task["executor"]["resources"])
                task_id = task["task_id"]["value"]
                self.take(self.running, name, task_id, action.agent_id, task["resources"])
                self.later(START_S, lambda task_id=task_id: self.start(name, task_id))
        elif isinstance(action, act.Decline):
            for offer_id in action.offer_ids:
                agent = offer_id.split("/")[0]
                self.filters[name, agent] = (self.now + action.refuse_s, self.free[agent].cpus)
        elif isinstance(action, act.Revive):
            self.filters = {key: value for key, value in self.filters.items() if key[0] != name}
        elif isinstance(action, act.Kill):
            self.later(EXIT_S, lambda: self.killed(name, action.task_id))
        elif isinstance(action, act.ShutdownExecutor) and action.executor_id in self.executors:
            _, agent, used = self.executors.pop(action.executor_id)
            self.free[agent] += used

    def take(self, book, name, key, agent, used):
        used = Resources.parse(used)
        self.free[agent] -= used  # raises if it is not there
        book[key] = (name, agent, used)

    def start(self, name, task_id):
        if task_id in self.running:
            self.status(name, task_id, "TASK_RUNNING")
            self.jobs[name].now = self.now
            for action in self.jobs[name].hello(task_id):
                self.obey(name, action)
            self.send(name, ev.Tick())

    def killed(self, name, task_id):
        if task_id in self.running:
            _, agent, used = self.running.pop(task_id)
            self.free[agent] += used
            self.status(name, task_id, "TASK_KILLED", agent)

    def status(self, name, task_id, state, agent=""):
        agent = agent or self.running[task_id][1]
        self.send(name, ev.StatusUpdate(task_id, state, agent, raw={"uuid": f"u{next(self.numbers)}"}))

    def end(self, name):
        """The job is done, and all of it gone."""
        for book in (self.running, self.executors):
            for key, (owner, agent, used) in list(book.items()):
                if owner == name:
                    del book[key]
                    self.free[agent] += used
        del self.jobs[name]
        self.ended[name] = self.now

    def offer(self):
        """One agent after the other, to the job that has least and did not refuse as much there."""
        for agent, free in self.free.items():
            held = {name: sum(owner == name for owner, _, _ in self.running.values()) for name in self.jobs}
            for name in sorted(held, key=lambda name: (held[name], name)):
                until, cpus = self.filters.get((name, agent), (0.0, 0.0))
                if free != NOTHING and (self.now >= until or free.cpus > cpus):
                    offer = AgentOffer(agent, f"host-{agent}", "10.0.0.1", (f"{agent}/{next(self.numbers)}",), free)
                    self.send(name, ev.Offers((offer,)))
                    break

    def run(self, seconds):
        """Lets so much time pass, or less if all jobs come to their end."""
        end = self.now + seconds
        while self.now < end and self.jobs:
            self.now += 0.5
            due = sorted(item for item in self.due if item[0] <= self.now)
            self.due = [item for item in self.due if item[0] > self.now]
            for _, _, call in due:
                call()
            self.offer()
            for name in list(self.jobs):
                self.send(name, ev.Tick())


@pytest.mark.parametrize("seed", range(10))
def test_two_jobs_that_each_hold_half_both_get_their_turn(seed):
    names = (f"red-{seed}", f"blue-{seed}")
    cluster = Shared(Patience(), *names, workers=6, min_workers=6)
    cluster.run(15)
    held = {name: sum(owner == name for owner, _, _ in cluster.running.values()) for name in names}
    assert min(held.values()) > 2, "neither has all, both have some"
    assert not cluster.began
    cluster.run(600)
    assert set(cluster.ended) == set(names), cluster.said
    assert any("gives back" in text for text in cluster.said)
    assert not any("lost on" in text for text in cluster.said)


def test_without_giving_back_they_wait_for_ever():
    cluster = Shared(
        Patience(gang_hold_s=float("inf"), gang_max_s=float("inf")), "red", "blue", workers=6, min_workers=6
    )
    cluster.run(600)
    assert not cluster.began


def test_three_jobs_too():
    names = ("red", "green", "blue")
    cluster = Shared(Patience(), *names, workers=6, min_workers=6)
    cluster.run(1500)
    assert set(cluster.ended) == set(names), cluster.said


def waiting(**changes):
    """A job that has the server and two of four workers."""
    h = Harness(Patience(starving_s=1e9), **{"workers": 4, "min_workers": 4, **changes})
    h.send(ev.Subscribed("fw"))
    h.offer("a", cpus=2.7)
    assert len(h.alive) == 3
    for task_id in h.alive.values():
        h.status(task_id, "TASK_RUNNING")
        h.hello(task_id)
    return h


def test_times_are_random_grow_and_are_the_same_for_the_same_job():
    def times(job_id):
        h = waiting(job_id=job_id)
        seen = []
        for _ in range(8):
            begun, kills = h.now, []
            while not kills:
                kills = of(h.tick(), act.Kill)
            assert len(kills) == 3, "all at once: what is kept is of no use to anybody"
            held_s = h.now - begun
            begun = h.now
            for kill in kills:
                assert not notes(h.status(kill.task_id, "TASK_KILLED"))
            while not of(h.tick(), act.Revive):
                assert not of(h.offer("a", cpus=2.7), act.Accept)
            seen.append((held_s, h.now - begun))
            h.offer("a", cpus=2.7)
            assert len(h.alive) == 3
        return seen

    red, blue = times("red"), times("blue")
    assert red == times("red")
    assert red != blue
    patience = Patience()
    for attempt, (held_s, away_s) in enumerate(red):
        for some_s, first_s in ((held_s, patience.gang_hold_s), (away_s, patience.gang_away_s)):
            longest_s = min(first_s * 2**attempt, patience.gang_max_s)
            assert longest_s / 2 <= some_s <= longest_s + 2


def test_a_job_that_has_begun_or_gets_on_gives_nothing_back():
    h = waiting(min_workers=2)  # it has begun with two
    assert not of(h.wait(1000), act.Kill)
    h = waiting()
    patience = Patience()
    assert not of(h.wait(int(patience.gang_hold_s / 2 - 2)), act.Kill)
    h.offer("b", cpus=1.1)  # one more
    assert not of(h.wait(int(patience.gang_hold_s / 2 - 2)), act.Kill)
    assert of(h.wait(int(patience.gang_hold_s)), act.Kill)
