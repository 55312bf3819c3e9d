"""Pieces of a slice: the cut, what is known of them, and that cutting changes no bit."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compute import ParameterInfo, optim
from compute.optim import ParameterUpdate
from executor import pieces
from executor.parameter_slice import ParameterSlice, Verdict
from executor.pieces import PIECE, Readiness, piece_bounds, piece_count, runs, whole_pieces
from executor.reduction_tree import Node
from executor.step_plan import StepPlan


@given(st.integers(0, 5 * PIECE))
@example(PIECE + 1)
def test_pieces_cover_a_slice(size: int) -> None:
    bounds = [piece_bounds(size, index) for index in range(piece_count(size))]
    assert [begin for begin, _ in bounds] == ([0, *(end for _, end in bounds[:-1])] if bounds else [])
    assert (bounds[-1][1] if bounds else 0) == size
    for index, (begin, end) in enumerate(bounds):
        assert whole_pieces(size, begin, end) == range(index, index + 1)
        assert whole_pieces(size, begin, end + 1) is None or end + 1 == size  # with a last piece of one element
        assert whole_pieces(size, begin + 1, end) is None


@given(st.sets(st.integers(0, 60)), st.integers(1, 9))
def test_runs_are_consecutive_and_cover(chosen: set[int], longest: int) -> None:
    found = list(runs(sorted(chosen), longest))
    assert [index for run in found for index in run] == sorted(chosen)
    assert all(1 <= len(run) <= longest for run in found)


@settings(max_examples=50)
@given(st.integers(1, 5 * PIECE), st.lists(st.integers(0, 5 * PIECE), max_size=12), st.randoms())
def test_a_piece_is_ready_when_all_of_it_is_known(size: int, cuts: list[int], order: random.Random) -> None:
    bounds = sorted({0, size, *(cut for cut in cuts if cut < size)})
    spans = list(itertools.pairwise(bounds))
    order.shuffle(spans)
    readiness = Readiness(size)
    known = np.zeros(size, dtype=bool)
    found: list[int] = []
    for begin, end in spans:
        assert not readiness.complete
        known[begin:end] = True
        found += readiness.known(begin, end)
        whole = [k for k in range(piece_count(size)) if known[slice(*piece_bounds(size, k))].all()]
        assert sorted(found) == whole
    assert readiness.complete


LAYOUT = [
    ParameterInfo("a.weight", (700,), 0),
    ParameterInfo("a.bias", (9,), 700),
    ParameterInfo("b.weight", (900,), 709, l2=1e-3),
    ParameterInfo("b.running", (20,), 1609, kind="statistic"),
]
SIZE = 1629
PLAN = StepPlan(samples=8, batch_size=8, micro_batches=4)


def gradient(step: int, first: int, last: int) -> np.ndarray:
    """Of a node, added up as the tree does."""
    if last - first == 1:
        return np.random.default_rng((step, first)).standard_normal(SIZE).astype(np.float32)
    middle = (first + last) // 2
    return gradient(step, first, middle) + gradient(step, middle, last)


@settings(max_examples=40, deadline=None)
@given(order=st.randoms(), optimizer=st.sampled_from([optim.SGD(0.1, momentum=0.9), optim.Adam(0.01)]))
def test_pieces_in_any_order_give_the_same_bits(order: random.Random, optimizer: optim.Optimizer) -> None:
    """Nodes of any level, some pushed twice or only in part; every piece goes its own way."""
    size = pieces.PIECE
    pieces.PIECE = 100
    try:
        start = np.linspace(-1, 1, SIZE, dtype=np.float32)
        whole, update = start.copy(), ParameterUpdate(LAYOUT, optimizer)
        held = ParameterSlice(0, SIZE, 0, start.copy(), ParameterUpdate(LAYOUT, optimizer), PLAN)
        for step in (1, 2, 3):
            update.step(whole, gradient(step, 0, 4), step, PLAN.epoch(step))
            nodes = order.choice([[Node(2, 0)], [Node(1, 0), Node(1, 1)], [Node(1, 0), Node(0, 2), Node(0, 3)]])
            again = [*nodes, Node(1, 1), Node(0, 1)]
            events = [(node, index) for node in [*nodes, *again[: order.randrange(6)]] for index in range(17)]
            order.shuffle(events)
            held.commit(step - 1)
            seen = []
            for node, index in events:
                begin, end = piece_bounds(SIZE, index)
                value = gradient(step, *node.leaves(4))[begin:end]
                value.flags.writeable = False
                assert held.push(step, node, begin, value) in (Verdict.TAKEN, Verdict.DUPLICATE)
                if order.random() < 0.5:
                    seen += held.apply()
                assert held.version == step - 1
            for node in nodes:
                assert held.end_node(step, node, 1.0, 2) is Verdict.TAKEN
            seen += held.apply()
            assert sorted(seen) == list(range(17))
            assert held.advance()
            np.testing.assert_array_equal(held.parameters, whole)
            for name, array in update.state.items():
                np.testing.assert_array_equal(held.update.state[name], array)
    finally:
        pieces.PIECE = size


def test_an_update_that_needs_sums_has_no_parts() -> None:
    update = ParameterUpdate(LAYOUT, optim.SGD(0.1), optim.ClipNorm(1.0))
    with pytest.raises(ValueError, match="no parts"):
        update.part(0, 100)
