"""Asynchronous training: any order, deaths, duplicates; every sample counts once, within the bound."""

import random
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute import InputError, TrainingSpec, optim, schedule, trigger
from compute.sync_mode import SyncMode
from executor.arrival_book import ArrivalBook
from executor.arrival_slice import ArrivalSlice
from executor.lease_actions import Action, CommitStep, Fail, Finish, GiveLease, Report
from executor.parameter_slice import Verdict
from executor.reduction_tree import Node
from executor.resumable import Resumable
from executor.step_plan import StepPlan, index_hashes
from proto import control_pb2 as control
from proto.exchange_pb2 import Grant
from tests.executor.test_lease_book import make_spec


class Bench:
    """A book, servers that remember what they have applied, and workers that hold grants."""

    def __init__(self, spec: TrainingSpec, servers: int, start: Resumable | None = None) -> None:
        count = len(spec.dataset)
        self.spec, self.plan = spec, StepPlan(count, spec.batch_size, spec.micro_batches)
        self.servers = servers
        self.now = 0.0
        self.applied: list[list[int]] = [list(range(1, (start.step if start else 0) + 1)) for _ in range(servers)]
        self.grants: dict[str, tuple[Grant, list[int], float]] = {}  # with the slices' versions, and since when
        self.refused = 0
        self.staleness: list[int] = []
        self.progress = control.Progress()
        self.finished = False
        self.commits: list[tuple[int, bool]] = []
        self.loss = 1.0
        digest = index_hashes(np.arange(count, dtype=np.int64))
        self.book = ArrivalBook(spec, self.plan, servers, 1, digest, True, start or Resumable())
        self.do(self.book.begin(0.0))

    def do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case GiveLease(worker, grant):
                    versions = [len(applied) for applied in self.applied]
                    if grant.kind == Grant.VALIDATE:  # at a point where exactly the steps up to one are applied
                        assert all(sorted(a) == list(range(1, grant.step + 1)) for a in self.applied)
                    else:
                        assert min(versions) >= grant.version
                    self.grants[worker] = (grant, versions, self.now)
                case CommitStep(step, checkpoint):
                    assert all(sorted(applied) == list(range(1, step + 1)) for applied in self.applied)
                    self.commits.append((step, checkpoint))
                    if checkpoint:
                        self.do(self.book.checkpoint_written(step, "c", self.now))
                case Report(message):
                    self.progress.MergeFrom(message)
                case Finish():
                    self.finished = True
                case Fail():
                    raise AssertionError(action.summary)

    def join(self, worker: str) -> None:
        self.do(self.book.worker_joined(worker, 0.01, self.now))
        self.do(self.book.lease_wanted(worker, self.now))

    def leave(self, worker: str) -> None:
        self.grants.pop(worker, None)
        self.do(self.book.worker_left(worker, self.now))

    def deliver(self, worker: str, reaches: int | None = None) -> None:
        grant, versions, given = self.grants.pop(worker)
        if grant.kind == Grant.VALIDATE:
            samples = grant.last - grant.first
            self.do(self.book.scored(worker, grant.step, grant.index, [[samples, samples]], samples, self.now))
            return
        step = grant.step
        begin = self.plan.micro_batch(step, grant.first)[0]
        end = self.plan.micro_batch(step, grant.last - 1)[1]
        digest = index_hashes(np.arange(begin, end, dtype=np.int64))
        for k in range(self.servers if reaches is None else reaches):
            bound = SyncMode.parse(self.spec.sync).staleness
            if step not in self.applied[k] and bound is not None and len(self.applied[k]) - versions[k] > bound:
                self.refused += 1
                assert grant.lease_s <= self.now - given  # only what comes after the lease
                continue
            new = step not in self.applied[k]
            if new:
                self.staleness.append(len(self.applied[k]) - versions[k])
                self.applied[k].append(step)
            if k == 0:
                self.do(self.book.node_pushed(worker, step, Node(grant.level, grant.index), self.now))
            if new:
                self.do(self.book.server_prepared(k, step, self.now, self.loss * (end - begin), end - begin, digest))
        if reaches is None:
            self.do(self.book.lease_wanted(worker, self.now))

    def finish(self) -> None:
        self.join("saviour")
        for _ in range(5000):
            if self.finished:
                return
            if "saviour" in self.grants:
                self.deliver("saviour")
            else:
                deadline = self.book.next_deadline()
                self.now = max(self.now, deadline if deadline is not None else self.now)
                self.do(self.book.tick(self.now))
        raise AssertionError("the job does not end")


def asynchronous(spec: TrainingSpec, sync: str) -> TrainingSpec:
    spec.sync = sync
    return spec


@settings(deadline=None, max_examples=120)
@given(
    st.integers(1, 40), st.integers(1, 9), st.integers(1, 3), st.sampled_from([0, 7]),
    st.sampled_from(["async", "ssp:0", "ssp:1", "ssp:3"]), st.integers(0, 2**32),
)  # fmt: skip
def test_any_order_counts_every_sample_once_within_the_bound(
    samples: int, batch: int, servers: int, validation: int, sync: str, seed: int
) -> None:
    chance = random.Random(seed)
    bench = Bench(asynchronous(make_spec(samples, batch, 2, validation, every=chance.choice([0, 3])), sync), servers)
    for turn in range(60):
        bench.now += chance.random() * chance.choice([0.01, 0.1, 3.0])
        event, holders = chance.choice(["join", "leave", "half", "tick", *["work"] * 6]), list(bench.grants)
        if event == "join" and bench.book.workers < 5:
            bench.join(f"worker-{turn}")
        elif event == "tick":
            bench.do(bench.book.tick(bench.now))
        elif holders:
            worker = chance.choice(holders)
            if event == "leave":
                bench.leave(worker)
            elif event == "half":
                bench.deliver(worker, chance.randrange(servers + 1))
                bench.leave(worker)
            else:
                bench.deliver(worker)
    bench.finish()
    steps = 2 * bench.plan.steps_per_epoch
    assert [report.step for report in bench.progress.steps] == list(range(1, steps + 1))
    assert [(e.exact, e.samples) for e in bench.progress.epochs] == [(True, samples)] * 2
    assert all(sorted(applied) == list(range(1, steps + 1)) for applied in bench.applied)
    if validation:
        assert [v.metrics["Top1Accuracy"] for v in bench.progress.validations] == [1.0] * 2
    bound = SyncMode.parse(sync).staleness
    if bound is not None:
        assert max(bench.staleness) <= bound


@pytest.mark.parametrize(("sync", "at_once"), [("ssp:0", 1), ("ssp:2", 3), ("async", 5)])
def test_how_many_steps_are_under_way(sync: str, at_once: int) -> None:
    bench = Bench(asynchronous(make_spec(80, 8, 1), sync), 2)
    for k in range(5):
        bench.join(f"{k}")
    assert sorted(grant.step for grant, _, _ in bench.grants.values()) == list(range(1, at_once + 1))


def test_a_loss_that_ends_the_job_ends_it_after_what_is_under_way() -> None:
    spec = asynchronous(make_spec(800, 8, 1), "async")
    spec.end_when = trigger.min_loss(0.5)
    bench = Bench(spec, 2)
    for k in range(3):
        bench.join(f"{k}")
    bench.deliver("1")
    bench.loss = 0.4
    bench.deliver("2")
    bench.loss = 1.0
    assert not bench.finished
    for worker in list(bench.grants):
        bench.deliver(worker)
    assert bench.finished
    assert bench.commits[-1] == (len(bench.applied[0]), True)


def test_a_stop_ends_after_what_is_under_way_with_a_checkpoint() -> None:
    bench = Bench(asynchronous(make_spec(800, 8, 1), "async"), 1)
    bench.join("a")
    bench.join("b")
    bench.deliver("b")
    bench.do(bench.book.stop_wanted(True, bench.now))
    for worker in ("b", "a"):
        assert not bench.finished
        bench.deliver(worker)
    assert bench.finished
    assert bench.commits[-1] == (3, True)


def test_going_on_from_a_checkpoint() -> None:
    whole = Bench(asynchronous(make_spec(40, 8, 2, every=3), "ssp:1"), 1)
    whole.join("a")
    while not any(checkpoint for _, checkpoint in whole.commits):
        whole.deliver("a")
    rest = Bench(asynchronous(make_spec(40, 8, 2, every=3), "ssp:1"), 1, whole.book.resumable)
    rest.finish()
    assert [e.exact for e in rest.progress.epochs] == [True, True]
    assert rest.progress.steps[0].step == 4


def test_a_slice_applies_each_step_once_in_the_order_of_arrival() -> None:
    class Update:
        needs_sums = False

        def apply(self, parameters: np.ndarray, gradient: np.ndarray, step: int, epoch: int) -> None:
            parameters -= gradient * step

    held = ArrivalSlice(0, 2, 0, np.zeros(2, np.float32), Update(), StepPlan(64, 8, 4))  # type: ignore[arg-type]
    root = Node(2, 0)

    def push(step: int, value: float, node: Node = root) -> Verdict:
        verdict = held.push(step, node, 0, np.full(2, value, np.float32))
        assert held.end_node(step, node, samples=8) is verdict
        while held.apply():
            assert held.advance()
            assert held.finished == step
        return verdict

    assert push(3, 1.0) is Verdict.TAKEN
    assert push(3, 5.0) is Verdict.DUPLICATE
    assert push(1, 10.0) is Verdict.TAKEN
    assert push(2, 1.0, Node(0, 0)) is Verdict.INVALID
    assert held.parameters.tolist() == [-21.0, -21.0]
    assert (held.version, held.applied) == (2, (1, [3]))
    assert push(2, 0.0) is Verdict.TAKEN
    assert (held.version, held.applied) == (3, (3, []))


@pytest.mark.parametrize("text", ["", "ssp", "ssp:", "ssp:-1", "ssp:x", "bsp", "Async"])
def test_no_other_modes(text: str) -> None:
    with pytest.raises(InputError, match='"ssp:S"'):
        SyncMode.parse(text)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"clip": optim.ClipNorm(1.0)}, "ClipNorm"),
        ({"optimizer": optim.LARS(0.1)}, "LARS"),
        ({"optimizer": optim.LBFGS()}, "LBFGS"),
        ({"optimizer": optim.SGD(0.1, schedule=schedule.Plateau("loss"))}, "schedule"),
    ],
)
@pytest.mark.parametrize("sync", ["async", "ssp:4"])
def test_what_has_no_meaning_without_steps_is_refused(changes: dict[str, object], word: str, sync: str) -> None:
    spec = asynchronous(make_spec(80, 8, 1), sync)
    for name, value in changes.items():
        setattr(spec, name, value)
    with pytest.raises(InputError, match=f"{word}.*--sync {sync}.*--sync sync"):
        spec.check()


