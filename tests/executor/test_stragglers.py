"""Workers of any speeds around the lease book, on a virtual clock: how fast training goes, and that nothing is lost."""

import heapq
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute import TrainingSpec, models, nn, optim, trigger
from executor.lease_actions import Action, Fail, GiveLease, Report, RevokeLease
from executor.lease_book import LeaseBook, Phase
from executor.reduction_tree import Node, Partial, ReductionTree
from executor.resumable import Resumable
from executor.step_plan import StepPlan, index_hashes
from proto.exchange_pb2 import Grant
from tests.executor.test_lease_book import Numbers

PUSH_S = 0.002
LEAF_S = 0.1


class Cluster:
    """Workers that take `leaf_s(worker, now)` seconds for a micro-batch and PUSH_S for a push; one server."""

    def __init__(self, workers: int, leaf_s: Callable[[int, float], float], micro_batches: int, steps: int) -> None:
        spec = TrainingSpec(
            model=models.lenet5(),
            criterion=nn.NLLLoss(),
            dataset=Numbers(64 * steps),
            optimizer=optim.SGD(learning_rate=0.1),
            batch_size=64,
            end_when=trigger.max_epoch(1),
            micro_batches=micro_batches,
        )
        self.plan = StepPlan(64 * steps, 64, micro_batches)
        digest = index_hashes(np.arange(64 * steps, dtype=np.int64))
        self.book = LeaseBook(spec, self.plan, 1, 1, digest, False, Resumable())
        self.leaf_s = leaf_s
        self.now = 0.0
        self.commits: list[float] = []
        self.exact: list[bool] = []
        self.pushes = 0
        self.duplicates = 0
        self.revoked = 0
        self.ends: dict[str, list[float]] = {}  # of each micro-batch
        self.tree = ReductionTree(self.plan.leaves(1))
        self.events: list[tuple[float, int, str, Grant | int]] = []  # a push, or what was done of a revoked lease
        self.order = itertools.count()
        for k in range(workers):
            self.do(self.book.worker_joined(f"{k}", LEAF_S, 0.0))
            self.do(self.book.lease_wanted(f"{k}", 0.0))
        self.do(self.book.begin(0.0))

    def do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case GiveLease(worker, grant):
                    seconds = [PUSH_S]
                    for _ in range(grant.first, grant.last):
                        seconds.append(seconds[-1] + self.leaf_s(int(worker), self.now + seconds[-1]))
                    self.ends[worker] = [self.now + s for s in seconds]
                    heapq.heappush(self.events, (self.ends[worker][-1], next(self.order), worker, grant))
                case RevokeLease(worker, _):
                    done, end = next((k, end) for k, end in enumerate(self.ends[worker]) if end >= self.now)
                    self.events = [event for event in self.events if event[2] != worker]
                    heapq.heapify(self.events)
                    heapq.heappush(self.events, (end, next(self.order), worker, done))
                    self.revoked += 1
                case Report(message):
                    self.commits += [self.now for _ in message.steps]
                    self.exact += [epoch.exact for epoch in message.epochs]
                case Fail():
                    raise AssertionError(action.summary)

    def run(self) -> float:
        """Trains to the end; steps per second of the second half of the steps."""
        while self.book.phase is Phase.TRAINING:
            deadline = self.book.next_deadline()
            if deadline is not None and (not self.events or deadline <= self.events[0][0]):
                self.now = max(self.now, deadline)
                self.do(self.book.tick(self.now))
                continue
            self.now, _, worker, grant = heapq.heappop(self.events)
            if isinstance(grant, Grant):
                self.push(worker, grant)
            else:
                self.do(self.book.lease_wanted(worker, self.now, grant))
        assert self.exact == [True]
        half = len(self.commits) // 2
        return (len(self.commits) - half) / (self.commits[-1] - self.commits[half - 1])

    def push(self, worker: str, grant: Grant) -> None:
        node, step = Node(grant.level, grant.index), grant.step
        self.pushes += 1
        if step == self.book.step:
            begin = self.plan.micro_batch(step, grant.first)[0]
            end = self.plan.micro_batch(step, grant.last - 1)[1]
            digest = index_hashes(np.arange(begin, end, dtype=np.int64))
            value = Partial(np.zeros(1, np.float32), float(end - begin), end - begin, digest)
            self.duplicates += not self.tree.add(node, value)
        else:
            self.duplicates += 1
        self.do(self.book.node_pushed(worker, step, node, self.now))
        self.do(self.book.lease_wanted(worker, self.now))
        if self.tree.result is not None:
            result, self.tree = self.tree.result, ReductionTree(self.plan.leaves(step + 1))
            self.do(self.book.server_prepared(0, step, self.now, result.loss, result.samples, result.digest))


def best_steps_per_s(speeds: Sequence[float], leaves: int) -> float:
    """What no schedule of whole micro-batches can beat: the fastest workers do each its whole number of them."""
    times = sorted(k * LEAF_S / speed for speed in speeds for k in range(1, leaves + 1))
    return 1 / times[leaves - 1]


def test_one_worker_at_a_quarter_of_its_speed() -> None:
    full = Cluster(4, lambda worker, now: LEAF_S, 16, 40).run()
    slowed = Cluster(4, lambda worker, now: LEAF_S * (4 if worker == 0 else 1), 16, 40).run()
    assert slowed >= 0.95 * 13 / 16 * full  # 16 micro-batches: 5, 5, 5 and 1
    assert slowed >= 0.9 * 3.25 / 4 * full


def test_equal_workers_push_once_each_in_a_step() -> None:
    cluster = Cluster(4, lambda worker, now: LEAF_S * (1 + 0.05 * worker), 16, 20)
    cluster.run()
    assert cluster.pushes == 4 * 20
    assert cluster.duplicates == 0


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from([0.1, 0.25, 0.4, 0.5, 0.7, 0.9, 1.0, 1.0, 1.0, 1.5, 2.0]), min_size=1, max_size=8))
def test_any_speeds_come_near_the_best_schedule(speeds: list[float]) -> None:
    cluster = Cluster(len(speeds), lambda worker, now: LEAF_S / speeds[worker], 32, 24)
    assert cluster.run() >= 0.75 * best_steps_per_s(speeds, 32)


def test_a_worker_that_stops_holds_a_step_up_for_twice_its_time_at_the_most() -> None:
    """Stopped for good in the middle of a step: long before the lease expires another one has done its part."""
    cluster = Cluster(4, lambda worker, now: LEAF_S if worker or now < 2.0 else 1e6, 16, 40)
    cluster.run()
    gaps = np.diff([0.0, *cluster.commits])
    assert max(gaps) < 4 * LEAF_S * 4
    assert np.median(gaps[-10:]) < 1.1 * 6 * LEAF_S  # 16 micro-batches by three workers


def test_a_worker_that_recovers_is_used_again() -> None:
    cluster = Cluster(4, lambda worker, now: LEAF_S * (20 if worker == 0 and now < 4.0 else 1), 16, 80)
    cluster.run()
    assert np.median(np.diff(cluster.commits)[-10:]) == pytest.approx(4 * LEAF_S + PUSH_S, rel=0.05)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 8), st.sampled_from([1, 2, 8, 16]), st.integers(0, 2**32))
def test_speeds_that_change_at_random_lose_nothing(workers: int, micro_batches: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    Cluster(workers, lambda worker, now: LEAF_S * float(random.choice([0.2, 1, 1, 5, 50])), micro_batches, 10).run()
