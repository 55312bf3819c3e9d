"""Steps, micro-batches and slices cover everything exactly once."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from compute.optim import sum_block
from executor.step_plan import StepPlan, index_hashes, slice_bounds

plans = st.builds(
    StepPlan,
    samples=st.integers(1, 500),
    batch_size=st.integers(1, 600),
    micro_batches=st.sampled_from([1, 2, 4, 8, 16, 32]),
)


@given(plans, st.integers(1, 3))
def test_an_epoch_covers_every_position_once(plan: StepPlan, epoch: int) -> None:
    positions: list[int] = []
    for step in range((epoch - 1) * plan.steps_per_epoch + 1, epoch * plan.steps_per_epoch + 1):
        assert plan.epoch(step) == epoch
        assert plan.ends_epoch(step) == (step == epoch * plan.steps_per_epoch)
        assert 1 <= plan.leaves(step) <= plan.micro_batches
        before = len(positions)
        for leaf in range(plan.leaves(step)):
            begin, end = plan.micro_batch(step, leaf)
            assert 0 < end - begin <= plan.micro_batch_size
            positions.extend(range(begin, end))
        assert len(positions) - before == plan.step_samples(step)
    assert positions == list(range(plan.samples))


@given(st.integers(0, 10_000), st.integers(1, 50))
def test_slices_are_contiguous_and_even(parameters: int, servers: int) -> None:
    bounds = [slice_bounds(parameters, servers, k) for k in range(servers)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == parameters
    assert all(a[1] == b[0] for a, b in itertools.pairwise(bounds))
    assert max(e - b for b, e in bounds) - min(e - b for b, e in bounds) <= sum_block(parameters)


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=50, unique=True), st.randoms())
def test_the_digest_ignores_order_and_tells_sets_apart(indices: list[int], random: object) -> None:
    whole = index_hashes(np.array(indices, dtype=np.int64))
    assert whole == index_hashes(np.array(indices[::-1], dtype=np.int64))
    assert whole == sum(index_hashes(np.array([i], dtype=np.int64)) for i in indices) % 2**64
    assert whole != index_hashes(np.array(indices + indices[:1], dtype=np.int64))
    assert whole != index_hashes(np.array(indices[1:], dtype=np.int64))
