"""Shares of a step by speed, against the best schedule of whole micro-batches."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.shares import LEASE_OVERHEAD, shares

speeds = st.lists(st.floats(0.05, 20.0), min_size=1, max_size=6)


def finish(share: int, leaf_s: float) -> float:
    return leaf_s * (share + LEASE_OVERHEAD * int(share).bit_count())


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), speeds)
def test_shares_cover_the_work_and_nobody_ends_long_after_the_others(leaves: int, leaf_s: list[float]) -> None:
    given_out = shares(leaves, np.zeros(len(leaf_s)), np.array(leaf_s))
    assert given_out.sum() >= leaves
    last = max(finish(share, s) for share, s in zip(given_out.tolist(), leaf_s, strict=True))
    ends = sorted(finish(share, s) for s in leaf_s for share in range(1, leaves + 1))
    assert last <= next(end for end in ends if sum(most(end, s, leaves) for s in leaf_s) >= leaves) * (1 + 1e-6)


def most(time: float, leaf_s: float, leaves: int) -> int:
    """Micro-batches that a worker can have done by `time`."""
    return max(share for share in range(leaves + 1) if finish(share, leaf_s) <= time * (1 + 1e-9))


def test_equal_workers_get_a_node_each_when_they_are_a_power_of_two() -> None:
    for workers in (1, 2, 4, 8):
        assert shares(8, np.zeros(workers), np.ones(workers)).tolist() == [8 // workers] * workers
    assert shares(8, np.zeros(3), np.ones(3)).tolist() == [3, 3, 3]  # the last one takes what is left


def test_a_quarter_of_the_speed_is_a_quarter_of_the_work() -> None:
    assert shares(13, np.zeros(4), np.array([1.0, 1.0, 1.0, 4.0])).tolist() == [4, 4, 4, 1]


def test_who_is_busy_gets_less() -> None:
    assert shares(8, np.array([0.0, 4.0]), np.ones(2)).tolist() == [6, 2]


def test_large_clocks_lose_nothing() -> None:
    assert shares(1, np.array([1e9]), np.array([1e-6])).tolist() == [1]
