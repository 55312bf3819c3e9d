"""Exact sums against math.fsum, which rounds once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute import ParameterInfo, optim
from compute.optim import ExactSum, ParameterUpdate, sum_block

numbers = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=80)


@given(numbers, st.integers(0, 80))
def test_a_sum_is_rounded_once_wherever_it_is_cut(values: list[float], cut: int) -> None:
    parts = [np.array(part, dtype=np.float64) for part in (values[:cut], values[cut:])]
    total = ExactSum.of(parts[0]) + ExactSum.of(parts[1])
    assert total == ExactSum.of(np.array(values, dtype=np.float64))
    try:
        expected = math.fsum(values)
    except OverflowError:
        return  # fsum gives up in the middle where the sum itself may be finite
    assert float(total) == expected


def test_many_numbers_of_all_sizes() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(20_000) * 2.0 ** rng.integers(-1070, 1000, 20_000)
    assert float(ExactSum.of(values)) == math.fsum(values)
    assert float(ExactSum.of(np.full(5000, 5e-324))) == 5000 * 5e-324
    assert float(ExactSum.of(np.full(5000, np.finfo(np.float64).max))) == math.inf
    assert float(ExactSum.of(np.full(50, -np.finfo(np.float64).max))) == -math.inf


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], 0.0), ([math.inf, 1.0], math.inf), ([-math.inf], -math.inf), ([math.inf, -math.inf], math.nan),
     ([math.nan, math.inf], math.nan)],
)  # fmt: skip
def test_numbers_that_are_not_finite(values: list[float], expected: float) -> None:
    halves = ExactSum.of(np.array(values[:1])) + ExactSum.of(np.array(values[1:]))
    for total in (halves, ExactSum.of(np.array(values))):
        assert float(total) == expected or (math.isnan(expected) and math.isnan(float(total)))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300_000))
def test_blocks_leave_room_for_servers(parameters: int) -> None:
    block = sum_block(parameters)
    assert 1 <= block <= 1024
    assert parameters < 64 or parameters // block >= 64


def test_a_norm_is_that_of_the_products_rounded_once_per_block() -> None:
    rng = np.random.default_rng(1)
    g = rng.standard_normal(100_000).astype(np.float32)
    layout = [ParameterInfo("w", g.shape, 0)]
    (share,) = ParameterUpdate(layout, optim.SGD(0.1), optim.ClipNorm(1.0)).sums(g, g)
    assert float(share) == pytest.approx(math.fsum(float(v) ** 2 for v in g), rel=1e-14)
