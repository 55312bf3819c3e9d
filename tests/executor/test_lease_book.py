"""The lease book against every order of joins, deaths, delays and duplicates that hypothesis can think of."""

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute import TrainingSpec, TrainingState, Validation, models, nn, optim, trigger
from compute.data import Dataset
from executor.lease_book import (
    MIN_LEASE_S,
    Action,
    CommitStep,
    Fail,
    Finish,
    GiveLease,
    LeaseBook,
    Paused,
    Phase,
    Report,
    Resumable,
)
from executor.leases import OVERDUE_FACTOR
from executor.reduction_tree import Node, Partial, ReductionTree
from executor.step_plan import StepPlan, index_hashes
from proto import control_pb2 as control
from proto.exchange_pb2 import Grant

EVENTS = ("join", "leave", "work", "work", "work", "hold", "late", "half", "tick", "write", "renew")


class Numbers(Dataset):
    """As many samples as asked for; never read here."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return (1,)

    def check(self) -> None:
        pass

    def batch(self, indices: np.ndarray, key: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError("the lease book reads no data")


def make_spec(samples: int, batch_size: int, epochs: int, validation: int = 0, every: int = 0) -> TrainingSpec:
    return TrainingSpec(
        model=models.lenet5(),
        criterion=nn.NLLLoss(),
        dataset=Numbers(samples),
        optimizer=optim.SGD(learning_rate=0.1),
        batch_size=batch_size,
        end_when=trigger.max_epoch(epochs),
        micro_batches=4,
        validation=Validation(trigger.every_epoch(), Numbers(validation), [optim.Top1Accuracy()], batch_size=3)
        if validation
        else None,
        checkpoint_when=trigger.several_iteration(every) if every else None,
    )


@dataclass
class Simulation:
    """Workers and servers around a lease book; the trees of `servers` servers are the real ones."""

    spec: TrainingSpec
    servers: int = 2
    start: Resumable = field(default_factory=Resumable)
    checkpoints: bool = True
    now: float = 0.0
    leases: dict[str, list[Grant]] = field(default_factory=dict)
    committed: list[int] = field(default_factory=list)
    ordered: list[int] = field(default_factory=list)
    progress: control.Progress = field(default_factory=control.Progress)
    finished: list[int] = field(default_factory=list)
    failed: list[Fail] = field(default_factory=list)
    paused: list[int] = field(default_factory=list)  # at which step
    loss: float = 1.0

    def __post_init__(self) -> None:
        count = len(self.spec.dataset)
        self.plan = StepPlan(count, self.spec.batch_size, self.spec.micro_batches)
        digest = index_hashes(np.arange(count, dtype=np.int64))
        self.book = LeaseBook(self.spec, self.plan, self.servers, 1, digest, self.checkpoints, self.start)
        self.trees: dict[int, list[ReductionTree]] = {}
        self.prepared: set[tuple[int, int]] = set()
        self.do(self.book.begin(self.now))

    def do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case GiveLease(worker, grant):
                    assert self.book.phase in (Phase.TRAINING, Phase.VALIDATING)
                    self.leases[worker].append(grant)
                case CommitStep(step, checkpoint):
                    if not self.committed or step != self.committed[-1]:
                        expected = self.committed[-1] + 1 if self.committed else self.start.step + 1
                        assert step == expected or step == self.start.step
                        self.committed.append(step)
                    if checkpoint:
                        self.ordered.append(step)
                case Report(message):
                    self.progress.MergeFrom(message)
                case Finish(reason):
                    self.finished.append(reason)
                case Paused():
                    self.paused.append(self.book.committed)
                case Fail():
                    self.failed.append(action)

    def join(self, worker: str) -> None:
        self.leases[worker] = []
        self.do(self.book.worker_joined(worker, 0.01, self.now))
        self.do(self.book.lease_wanted(worker, self.now))

    def leave(self, worker: str) -> None:
        del self.leases[worker]
        self.do(self.book.worker_left(worker, self.now))

    def deliver(self, worker: str, grant: Grant, reaches: int | None = None) -> None:
        """The worker's answer to a lease; it dies when only `reaches` servers have it."""
        if grant.kind == Grant.VALIDATE:
            sums = [[float(grant.last - grant.first), float(grant.last - grant.first)]]
            self.do(self.book.scored(worker, grant.step, grant.index, sums, grant.last - grant.first, self.now))
            return
        step, node = grant.step, Node(grant.level, grant.index)
        begin = self.plan.micro_batch(step, grant.first)[0]
        end = self.plan.micro_batch(step, grant.last - 1)[1]
        digest = index_hashes(np.arange(begin, end, dtype=np.int64))
        trees = self.trees.setdefault(step, [ReductionTree(self.plan.leaves(step)) for _ in range(self.servers)])
        for k in range(self.servers if reaches is None else reaches):
            if step > self.book.committed and (k, step) not in self.prepared:
                trees[k].add(node, Partial(np.zeros(1, np.float32), self.loss * (end - begin), end - begin, digest))
            if k == 0:
                self.do(self.book.node_pushed(worker, step, node, self.now))
        if reaches is None:
            self.do(self.book.lease_wanted(worker, self.now))
        for k, tree in enumerate(trees):
            if tree.result is not None and (k, step) not in self.prepared:
                self.prepared.add((k, step))
                result = tree.result
                self.do(
                    self.book.server_prepared(k, step, self.now, result.loss, result.samples, result.digest)
                )

    def write_checkpoints(self) -> None:
        for step in self.ordered:
            self.do(self.book.checkpoint_written(step, f"c/{step}", self.now))

    def finish(self) -> None:
        """One more worker that works properly must be able to end the job."""
        self.join("saviour")
        for _ in range(5000):
            if self.finished or self.failed:
                return
            self.write_checkpoints()
            if self.leases["saviour"]:
                self.deliver("saviour", self.leases["saviour"].pop(0))
            else:
                deadline = self.book.next_deadline()
                if deadline is not None:
                    self.now = max(self.now, deadline)
                self.do(self.book.tick(self.now))
        raise AssertionError("the job does not end")


def check_whole(simulation: Simulation, epochs: int) -> None:
    plan = simulation.plan
    assert not simulation.failed
    assert simulation.finished == [control.Finished.END_WHEN]
    steps = [report.step for report in simulation.progress.steps]
    assert steps == list(range(simulation.start.step + 1, epochs * plan.steps_per_epoch + 1))
    assert all(epoch.exact and epoch.samples == plan.samples for epoch in simulation.progress.epochs)


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 40), st.integers(1, 20), st.integers(1, 2), st.integers(1, 3), st.sampled_from([0, 7]),
    st.integers(0, 2**32),
)  # fmt: skip
def test_any_faults_end_in_exact_epochs(
    samples: int, batch: int, epochs: int, servers: int, validation: int, seed: int
) -> None:
    chance = random.Random(seed)
    simulation = Simulation(make_spec(samples, batch, epochs, validation, every=chance.choice([0, 2])), servers)
    held: list[tuple[str, Grant]] = []  # computed, delivered late or twice
    for turn in range(80):
        if simulation.finished:
            break
        simulation.now += chance.random() * chance.choice([0.1, 5.0])
        workers = list(simulation.leases)
        event = chance.choice(EVENTS)
        if event == "join" and len(workers) < 4:
            simulation.join(f"worker-{turn}")
        elif event == "leave" and workers:
            simulation.leave(chance.choice(workers))
        elif event in ("work", "hold", "half") and workers:
            worker = chance.choice(workers)
            if simulation.leases[worker]:
                grant = simulation.leases[worker].pop(0)
                if event == "work":
                    simulation.deliver(worker, grant)
                elif event == "hold":
                    held.append((worker, grant))
                else:
                    simulation.deliver(worker, grant, reaches=chance.randrange(servers + 1))
                    simulation.leave(worker)
        elif event == "late" and held:
            worker, grant = chance.choice(held)
            if worker in simulation.leases:
                simulation.deliver(worker, grant)
        elif event == "tick":
            simulation.do(simulation.book.tick(simulation.now))
        elif event == "write":
            simulation.write_checkpoints()
        elif event == "renew" and workers:
            simulation.do(simulation.book.renewed(chance.choice(workers), simulation.now))
    simulation.finish()
    check_whole(simulation, epochs)
    if validation:
        assert [v.metrics["Top1Accuracy"] for v in simulation.progress.validations] == [1.0] * epochs
        assert all(v.samples == validation for v in simulation.progress.validations)


def test_a_stopped_workers_lease_goes_to_another() -> None:
    simulation = Simulation(make_spec(8, 8, 1))
    simulation.join("stopped")
    (grant,) = simulation.leases["stopped"]
    simulation.now = grant.lease_s
    simulation.do(simulation.book.tick(simulation.now))
    simulation.join("other")
    assert [g.index for g in simulation.leases["other"]] == [grant.index]


def test_an_overdue_lease_goes_to_an_idle_worker_as_well_before_it_expires() -> None:
    simulation = Simulation(make_spec(16, 8, 1))
    simulation.join("late")
    (grant,) = simulation.leases["late"]
    simulation.join("other")
    due = OVERDUE_FACTOR * 4 * 0.01  # four micro-batches
    simulation.now = due - 0.001
    simulation.do(simulation.book.tick(simulation.now))
    assert simulation.leases["other"] == []
    simulation.now = due
    assert simulation.book.next_deadline() == pytest.approx(due)
    simulation.do(simulation.book.tick(simulation.now))
    (copy,) = simulation.leases["other"]
    assert (copy.step, copy.first, copy.last) == (grant.step, grant.first, grant.last)
    simulation.deliver("other", simulation.leases["other"].pop())
    assert simulation.committed == [1]
    simulation.deliver("late", simulation.leases["late"].pop(0))  # dropped
    assert simulation.committed == [1]
    simulation.finish()
    check_whole(simulation, 1)


def test_a_dead_workers_lease_goes_to_another_at_once() -> None:
    simulation = Simulation(make_spec(8, 8, 1))
    simulation.join("dead")
    simulation.join("other")
    simulation.leave("dead")
    assert len(simulation.leases["other"]) == 1


def test_renewing_keeps_a_lease() -> None:
    simulation = Simulation(make_spec(8, 8, 1))
    simulation.join("slow")
    for _ in range(5):
        simulation.now += MIN_LEASE_S * 0.9
        simulation.do(simulation.book.renewed("slow", simulation.now))
        simulation.do(simulation.book.tick(simulation.now))
    simulation.join("first")
    assert len(simulation.leases["first"]) == 1  # a copy
    simulation.join("second")
    assert simulation.leases["second"] == []


def test_two_workers_share_a_step() -> None:
    simulation = Simulation(make_spec(48, 16, 1))
    simulation.join("a")
    simulation.join("b")
    simulation.now = 4 * 0.01
    simulation.deliver("a", simulation.leases["a"].pop(0))  # step 1, granted while alone
    shares = [[(g.step, g.first, g.last) for g in simulation.leases[w]] for w in "ab"]
    assert sorted(shares) == [[(2, 0, 2)], [(2, 2, 4)]]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_job_uncommitted(loss: float) -> None:
    simulation = Simulation(make_spec(32, 16, 1, every=1))
    simulation.loss = loss
    simulation.join("a")
    simulation.deliver("a", simulation.leases["a"].pop(0))
    assert simulation.committed == []
    assert [f.kind for f in simulation.failed] == [control.Failure.DIVERGED]
    assert "step 1 (epoch 1)" in simulation.failed[0].summary
    assert "lower the learning rate (0.1)" in simulation.failed[0].summary


def test_a_stop_waits_for_the_running_step_and_its_checkpoint() -> None:
    simulation = Simulation(make_spec(64, 16, 1))
    simulation.join("a")
    simulation.deliver("a", simulation.leases["a"].pop(0))
    simulation.do(simulation.book.stop_wanted(True, simulation.now))
    assert simulation.ordered == []
    simulation.deliver("a", simulation.leases["a"].pop(0))
    assert simulation.ordered == [2]
    assert simulation.finished == []
    assert simulation.leases["a"] == []
    simulation.write_checkpoints()
    assert simulation.finished == [control.Finished.STOPPED]


def test_a_stop_without_workers_ends_at_once() -> None:
    simulation = Simulation(make_spec(64, 16, 1))
    simulation.do(simulation.book.stop_wanted(True, simulation.now))
    assert simulation.finished == [control.Finished.STOPPED]
    assert simulation.ordered == []  # version 0 is no checkpoint


def test_a_pause_comes_after_the_running_step_its_validation_and_its_checkpoint() -> None:
    simulation = Simulation(make_spec(16, 16, 3, validation=3, every=1))
    simulation.join("a")
    simulation.deliver("a", simulation.leases["a"].pop(0))
    simulation.now += 100.0
    simulation.do(simulation.book.tick(simulation.now))  # a lease that has expired may be pushed yet
    simulation.do(simulation.book.pause_wanted(simulation.now))
    simulation.join("b")
    while simulation.leases["b"]:
        simulation.deliver("b", simulation.leases["b"].pop(0))
    assert (simulation.book.phase, simulation.book.committed, simulation.paused) == (Phase.PAUSED, 1, [])
    assert len(simulation.progress.validations) == 1
    simulation.write_checkpoints()
    assert simulation.paused == [1]
    simulation.join("c")
    assert simulation.leases["c"] == []
    simulation.do(simulation.book.pause_wanted(simulation.now))
    assert simulation.paused == [1, 1], "the driver asks again when it has not heard"
    simulation.do(simulation.book.stop_wanted(True, simulation.now))
    assert simulation.finished == [control.Finished.STOPPED]


def test_a_pause_before_anything_was_leased_is_there_at_once() -> None:
    simulation = Simulation(make_spec(16, 16, 1))
    simulation.do(simulation.book.pause_wanted(simulation.now))
    assert simulation.paused == [0]
    simulation.join("a")
    assert simulation.leases["a"] == []


def test_a_pause_waits_for_a_step_that_another_attempt_has_begun() -> None:
    spec = make_spec(32, 16, 1)
    book = LeaseBook(spec, StepPlan(32, 16, 4), 1, 2, 0, False, Resumable(step=1, epoch_samples=16))
    assert book.begin(0.0, validated=True) == []
    assert book.pause_wanted(0.0) == []
    assert book.phase is Phase.TRAINING


def test_a_job_that_ends_does_not_pause() -> None:
    simulation = Simulation(make_spec(16, 16, 1))
    simulation.join("a")
    simulation.do(simulation.book.pause_wanted(simulation.now))
    simulation.finish()
    assert (simulation.finished, simulation.paused) == ([control.Finished.END_WHEN], [])


def test_going_on_from_the_middle_of_an_epoch_counts_it_exactly() -> None:
    whole = Simulation(make_spec(40, 8, 2, validation=5))
    whole.join("a")
    while whole.book.committed < 7:
        whole.deliver("a", whole.leases["a"].pop(0))
    rest = Simulation(make_spec(40, 8, 2, validation=5), start=whole.book.resumable)
    rest.finish()
    check_whole(rest, 2)
    assert [epoch.epoch for epoch in rest.progress.epochs] == [2]


def test_going_on_from_an_epochs_end_makes_up_for_its_validation() -> None:
    whole = Simulation(make_spec(40, 8, 2, validation=5))
    whole.join("a")
    while whole.book.committed < 5:
        whole.deliver("a", whole.leases["a"].pop(0))
    rest = Simulation(make_spec(40, 8, 2, validation=5), start=whole.book.resumable)
    rest.finish()
    assert [v.epoch for v in rest.progress.validations] == [1, 2]


def test_a_finished_job_that_is_resumed_is_finished() -> None:
    spec = make_spec(8, 8, 1)
    whole = Simulation(spec)
    whole.finish()
    rest = Simulation(spec, start=whole.book.resumable)
    assert rest.finished == [control.Finished.END_WHEN]


def test_triggers_see_where_training_stands() -> None:
    seen: list[TrainingState] = []

    class Spy(trigger.Trigger):
        def __call__(self, state: TrainingState) -> bool:
            seen.append(state)
            return state.step >= 3

    spec = make_spec(16, 8, 1)
    spec.end_when = Spy()
    Simulation(spec).finish()
    assert [(s.step, s.epoch, s.epoch_finished) for s in seen] == [(1, 1, False), (2, 1, True), (3, 2, False)]
    assert all(s.loss == 1.0 for s in seen)
