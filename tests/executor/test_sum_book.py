"""Shares of sums, and slices that wait for them, in every order, twice and late; messages as they travel."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute import ParameterInfo, optim
from compute.optim import ExactSum, ParameterUpdate
from executor.parameter_slice import ParameterSlice, Verdict
from executor.reduction_tree import Node
from executor.step_plan import StepPlan, slice_bounds
from executor.sum_book import SumBook
from executor.sum_message import decoded, encoded
from proto.exchange_pb2 import ExactSum as ExactSumMessage
from proto.frames import FrameError

floats = st.floats(allow_nan=False)


@given(st.lists(floats, max_size=50))
def test_a_sum_travels_without_loss(values: list[float]) -> None:
    value = ExactSum.of(np.array(values, dtype=np.float64))
    message = ExactSumMessage.FromString(encoded(value).SerializeToString())
    back = decoded(message)
    assert back.units == value.units
    assert np.array_equal(back.special, value.special, equal_nan=True)
    assert len(message.units) < 280


def test_a_sum_that_cannot_be_is_refused() -> None:
    for message in (ExactSumMessage(units=b"\1", shift=2**31), ExactSumMessage(units=b"\1" * 600)):
        with pytest.raises(FrameError):
            decoded(message)


def one(value: float) -> list[ExactSum]:
    return [ExactSum.of(np.array([value]))]


def test_shares_count_once_and_only_in_their_step() -> None:
    book = SumBook(3)
    assert book.share(2, 1, one(1.0)) is None
    assert book.share(2, 1, one(50.0)) is None  # again, from a connection that was lost
    assert book.share(0, 1, one(2.0), 0.25) is None
    done = book.share(1, 1, one(4.0))
    assert done == (1, [7.0], 0.25) == book.last
    assert book.share(1, 1, one(4.0)) is None
    assert book.share(0, 2, one(2.0), 0.5) is None
    assert book.share(2, 1, one(9.0)) is None
    assert book.share(1, 2, one(2.0)) is None
    assert book.share(2, 2, one(2.0)) == (2, [6.0], 0.5)
    with pytest.raises(ValueError, match="another number"):
        book.share(0, 3, one(1.0), 0.0), book.share(1, 3, [])


LAYOUT = [ParameterInfo("a.weight", (3000,), 0), ParameterInfo("b.weight", (2500,), 3000)]
PLAN = StepPlan(samples=8, batch_size=8, micro_batches=4)
STEPS = 4


def make_slice(begin: int, end: int, told_rates: bool) -> ParameterSlice:
    start = np.linspace(-1, 1, 5500, dtype=np.float32)[begin:end].copy()
    update = ParameterUpdate(LAYOUT, {"": optim.LARS(0.5), "b": optim.LBFGS()}, None, begin, end)
    return ParameterSlice(begin, end, 0, start, update, PLAN, told_rates)


def gradient(step: int, leaf: int) -> np.ndarray:
    return np.random.default_rng((step, leaf)).standard_normal(5500).astype(np.float32)


def reference(told_rates: bool) -> bytes:
    p = np.linspace(-1, 1, 5500, dtype=np.float32)
    update = ParameterUpdate(LAYOUT, {"": optim.LARS(0.5), "b": optim.LBFGS()})
    for step in range(1, STEPS + 1):
        leaves = [gradient(step, leaf) for leaf in range(4)]
        g = (leaves[0] + leaves[1]) + (leaves[2] + leaves[3])
        update.step(p, g, step, step, step / 4, [0.1 * step, 0.7] if told_rates else None)
    return p.tobytes()


@settings(max_examples=60, deadline=None)
@given(servers=st.integers(1, 4), told_rates=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_slices_advance_together_whatever_the_order_of_messages(servers: int, told_rates: bool, seed: int) -> None:
    """Every message is delivered at least once, in any order that a connection per pair of servers allows."""
    rng = random.Random(seed)
    slices = [make_slice(*slice_bounds(5500, servers, k), told_rates) for k in range(servers)]
    book = SumBook(servers)
    for step in range(1, STEPS + 1):
        rates = [0.1 * step, 0.7]
        events = [("push", k, leaf) for k in range(servers) for leaf in range(4)]
        events += [("commit", k, 0) for k in range(servers)]
        events += [("rates", k, 0) for k in range(servers)] if told_rates else []
        events += rng.sample(events, len(events) // 3)
        rng.shuffle(events)
        while events or any(held.version < step for held in slices):
            if events:
                kind, k, leaf = events.pop()
                held = slices[k]
                if kind == "push":
                    part = gradient(step, leaf)[held.begin : held.end]
                    held.end_node(step, Node(0, leaf), 1.0 * step / 2, 2)
                    verdict = held.push(step, Node(0, leaf), 0, part)
                    assert verdict in (Verdict.TAKEN, Verdict.DUPLICATE, Verdict.STALE)
                elif kind == "commit":
                    held.commit(step - 1)
                else:
                    held.rates_known(step, rates)
            k = rng.randrange(servers)
            held = slices[k]
            share, complete = held.share(), held.complete
            if share is not None and complete is not None:
                loss = complete.loss / complete.samples if k == 0 else None
                done = book.share(k, held.version + 1, share, loss)
                if done is not None:
                    assert all(other.version == step - 1 for other in slices), "someone went ahead without the totals"
                    assert done.loss == step / 4
            if book.last is not None:
                target = rng.choice(slices)
                target.total(*book.last)
                target.apply()
                target.advance()
                target.total(*book.last)
                assert not target.apply()
                assert not target.advance()
        assert {held.version for held in slices} == {step}
        assert len({str(held.update.memory) for held in slices}) == 1
    assert b"".join(held.parameters.tobytes() for held in slices) == reference(told_rates)


def test_nothing_is_applied_before_commit_rates_and_totals() -> None:
    what = ("commit", "rates", "totals")
    for missing in [*itertools.combinations(what, 1), *itertools.combinations(what, 2)]:
        held = make_slice(0, 5500, True)
        held.rates_known(1, [0.1, 0.1])
        held.push(1, Node(2, 0), 0, gradient(1, 0))
        held.end_node(1, Node(2, 0), 1.0, 8)
        held.total(1, [float(s) for s in held.share() or []], 0.1)
        assert held.apply()
        assert held.advance()
        held.push(2, Node(2, 0), 0, gradient(2, 0))
        held.end_node(2, Node(2, 0), 1.0, 8)
        if "commit" not in missing:
            held.commit(1)
        if "rates" not in missing:
            held.rates_known(2, [0.1, 0.1])
        if "totals" not in missing:
            held.total(2, [1.0] * 100, 0.1)
        assert not held.apply(), missing
        assert not held.advance(), missing
