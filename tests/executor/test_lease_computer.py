"""What a worker computes for a lease, whatever it read ahead."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest

import compute
from compute import InputError, TrainingSpec, data, nn, optim, trigger
from compute.data.source import Indices
from executor import lease_computer
from executor.job import LoadedJob
from executor.lease_computer import LeaseComputer, _NextLease
from executor.step_plan import StepPlan, index_hashes
from proto import control_pb2 as control
from proto.exchange_pb2 import Grant

SAMPLES, BATCH = 45, 16  # three steps, the last short
SEED = 3


class Slow(data.Source):
    """Random samples; record `broken` cannot be read."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.x, self.y = rng.random((SAMPLES, 4)), rng.integers(0, 3, SAMPLES)
        self.broken = -1

    def __len__(self) -> int:
        return SAMPLES

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return (4,)

    def lengths(self) -> Indices:
        return np.arange(SAMPLES, dtype=np.int64) % 7

    def read(self, indices: Indices) -> tuple[np.ndarray, Indices]:
        if self.broken in indices:
            raise InputError(f"the file, record {self.broken}: damaged")
        return self.x[indices], self.y[indices]


class Noise(data.Transform):
    """Draws from the micro-batch's stream."""

    def apply(self, x: np.ndarray, target: np.ndarray, stream: compute.philox.Stream) -> tuple[np.ndarray, np.ndarray]:
        return x + stream.uniform(x.shape), target


def load(dataset: data.Dataset, micro_batches: int = 4) -> LoadedJob:
    model = nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax())
    spec = TrainingSpec(model, nn.NLLLoss(), dataset, optim.SGD(0.1), BATCH, trigger.max_epoch(2),
                        micro_batches=micro_batches, seed=SEED, engine="numpy")  # fmt: skip
    return LoadedJob(control.Job(), spec, StepPlan(len(dataset), BATCH, micro_batches))


@pytest.fixture(params=[0.0, 1000.0], ids=["threads", "inline"])
def computer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[LeaseComputer]:
    """Reads everything ahead, or nothing."""

    def prefetcher(read: object, ahead: int) -> data.Prefetcher[object, object]:
        return data.Prefetcher(read, ahead=ahead, least_s=request.param)  # type: ignore[arg-type]

    monkeypatch.setattr(lease_computer, "Prefetcher", prefetcher)
    before = set(threading.enumerate())
    made = LeaseComputer(load((data.Dataset(Slow()) >> Noise()).bucket_by_length(BATCH)), 1)
    made.warm_up()
    yield made
    made.close()
    assert set(threading.enumerate()) <= before


def grant(step: int, level: int, index: int, leaves: int) -> Grant:
    first = index << level
    last = min(first + (1 << level), leaves)
    return Grant(kind=Grant.TRAIN, step=step, level=level, index=index, first=first, last=last)


def test_a_lease_is_the_sum_of_its_micro_batches(computer: LeaseComputer) -> None:
    """In the data set's own order, with each micro-batch's own random numbers, in any order of leases."""
    job = computer._job
    program = compute.compile(job.spec.model, job.spec.criterion, (4,), engine="numpy", threads=1)
    program.parameters[:] = job.initial_parameters()
    program.parameters_changed()
    for step, level, index in ((1, 2, 0), (2, 1, 1), (2, 0, 0), (3, 2, 0), (4, 1, 0), (1, 0, 3), (6, 2, 0)):
        leaves = job.plan.leaves(step)
        asked = grant(step, level, index, leaves)
        calls: list[None] = []
        partial = computer.train(asked, lambda calls=calls: calls.append(None))
        order = job.spec.dataset.order(SEED, job.plan.epoch(step))
        losses, gradients, members = [], [], []
        for leaf in range(asked.first, asked.last):
            begin, end = job.plan.micro_batch(step, leaf)
            members.append(order[begin:end])
            x, target = job.spec.dataset.batch(order[begin:end], (SEED, step, leaf))
            losses.append(program.forward_backward(x, target, 1 / job.plan.step_samples(step), (SEED, step, leaf)))
            gradients.append(program.gradients.copy())
        pairs = [sum(gradients[place + 1 : place + 2], gradients[place]) for place in range(0, len(gradients), 2)]
        expected = sum(pairs[1:], pairs[0])
        np.testing.assert_array_equal(partial.gradient, expected)
        assert partial.loss == pytest.approx(sum(losses))
        assert partial.samples == sum(map(len, members))
        assert partial.digest == index_hashes(np.concatenate(members))
        assert len(calls) == len(gradients)


def test_an_epoch_of_a_bucketed_data_set_is_exact(computer: LeaseComputer) -> None:
    job = computer._job
    digest = sum(computer.train(grant(step, 2, 0, job.plan.leaves(step)), lambda: None).digest for step in (1, 2, 3))
    assert digest % 2**64 == job.epoch_digest()


def test_a_damaged_record_fails_the_lease_that_needs_it(computer: LeaseComputer) -> None:
    job = computer._job
    order = job.spec.dataset.order(SEED, 1)
    source = job.spec.dataset.source.base  # type: ignore[attr-defined]
    source.broken = int(order[20])  # of step 2
    first = computer.train(grant(1, 2, 0, 4), lambda: None)
    assert first.samples == 16
    with pytest.raises(InputError, match=f"record {order[20]}: damaged"):
        computer.train(grant(2, 2, 0, 4), lambda: None)
    source.broken = -1
    assert computer.train(grant(2, 2, 0, 4), lambda: None).samples == 16


def test_a_wrong_label_is_told_with_its_record() -> None:
    source = Slow()
    source.y[29] = 3
    made = LeaseComputer(load(data.Dataset(source), micro_batches=1), 1)
    step, place = divmod(int(np.flatnonzero(made._job.spec.dataset.order(SEED, 1) == 29)[0]), BATCH)
    try:
        with pytest.raises(InputError, match=rf"^sample 29: label 3 is not in 0..2 \(sample {place} of the batch\)"):
            made.train(grant(step + 1, 0, 0, 1), lambda: None)
    finally:
        made.close()


def test_the_next_lease_is_guessed_while_guesses_prove_right() -> None:
    guess = _NextLease()
    assert guess.after(1, 0) is None  # nothing is known yet
    assert guess.after(2, 0) == (3, 0)
    assert guess.after(3, 0) == (4, 0)
    assert guess.after(4, 4) == (5, 4)  # one wrong guess is no habit
    assert guess.after(5, 0) is None
    assert guess.after(6, 0) == (7, 0)
