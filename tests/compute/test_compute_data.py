"""Transforms, orders and data sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute import InputError, data
from compute.philox import Stream

PIXELS = np.arange(2 * 3 * 2 * 2, dtype=np.uint8).reshape(2, 3, 2, 2) * 10


class AddNoise(data.Transform):
    """A user's random transform."""

    def apply(self, x: np.ndarray, target: np.ndarray, stream: Stream) -> tuple[np.ndarray, np.ndarray]:
        return x + stream.uniform(x.shape), target


class FirstChannel(data.Transform):
    """A user's transform that changes the shape."""

    def __init__(self, promise: bool) -> None:
        self.promise = promise

    def output_shape(self, sample_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (1, *sample_shape[1:]) if self.promise else sample_shape

    def apply(self, x: np.ndarray, target: np.ndarray, stream: Stream) -> tuple[np.ndarray, np.ndarray]:
        return x[:, :1], target


def arrays(classes: int | None = None) -> data.Dataset:
    """A data set of two coloured samples."""
    return data.from_arrays(PIXELS, np.array([1, 0]), classes)


def test_to_float_and_normalize() -> None:
    both = np.array([1, 0])
    x, target = (arrays() >> data.to_float()).batch(both, (0, 0, 0))
    np.testing.assert_allclose(x, PIXELS[both] / 255, rtol=1e-6)
    np.testing.assert_array_equal(target, [0, 1])
    expected = (PIXELS[both] / 255 - 0.25) / 0.5
    for dataset in (arrays() >> data.normalize(0.25, 0.5), arrays() >> data.to_float() >> data.normalize(0.25, 0.5)):
        np.testing.assert_allclose(dataset.batch(both, (0, 0, 0))[0], expected, rtol=1e-5, atol=1e-6)
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.25, 1.0])
    found, _ = (arrays() >> data.normalize(list(mean), list(std))).batch(both, (0, 0, 0))
    column = (1, 3, 1, 1)
    np.testing.assert_allclose(
        found, (PIXELS[both] / 255 - mean.reshape(column)) / std.reshape(column), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(arrays().batch(both, (0, 0, 0))[0], PIXELS[both].astype(np.float32))


def test_custom_transforms_draw_from_the_micro_batch_s_key() -> None:
    dataset = arrays() >> data.to_float() >> AddNoise() >> AddNoise()
    indices = np.array([0, 1])
    x, _ = dataset.batch(indices, (1, 5, 2))
    np.testing.assert_array_equal(x, dataset.batch(indices, (1, 5, 2))[0])
    for key in ((2, 5, 2), (1, 6, 2), (1, 5, 3)):
        assert not np.array_equal(x, dataset.batch(indices, key)[0])
    # Two transforms of one pipeline draw different numbers.
    plain, _ = (arrays() >> data.to_float()).batch(indices, (1, 5, 2))
    once, _ = (arrays() >> data.to_float() >> AddNoise()).batch(indices, (1, 5, 2))
    assert not np.allclose(x - once, once - plain, atol=1e-3)


def test_shapes_through_transforms() -> None:
    assert (arrays() >> FirstChannel(True)).sample_shape == (1, 2, 2)
    (arrays() >> FirstChannel(True)).check()
    with pytest.raises(InputError, match=r"promise samples of shape \(3, 2, 2\) but make \(1, 2, 2\)"):
        (arrays() >> FirstChannel(False)).check()
    with pytest.raises(InputError, match="normalize has 2 means"):
        _ = (arrays() >> data.normalize([0.1, 0.2], [1, 1])).sample_shape


def test_wrong_use_is_refused() -> None:
    with pytest.raises(InputError, match=r"after >> there must be a data\.Transform"):
        _ = arrays() >> 3  # type: ignore[operator]
    with pytest.raises(InputError, match="std must be positive"):
        data.normalize(0.1, 0.0)
    with pytest.raises(InputError, match="one number per channel"):
        data.normalize([0.1, 0.2], [1.0])
    with pytest.raises(InputError, match=r"labels must be in 0\.\.0, found 0\.\.1"):
        arrays(classes=1).check()
    with pytest.raises(InputError, match="integer labels"):
        data.from_arrays(PIXELS, np.array([1]))
    with pytest.raises(InputError, match="no samples"):
        data.from_arrays(PIXELS[:0], np.zeros(0, dtype=np.int64)).check()


@settings(deadline=None)
@given(n=st.integers(0, 3000), seed=st.integers(0, 2**63 - 1), epoch=st.integers(1, 10**6))
def test_an_order_is_a_permutation(n: int, seed: int, epoch: int) -> None:
    order = data.epoch_order(n, seed, epoch)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    np.testing.assert_array_equal(order, data.epoch_order(n, seed, epoch))


def test_orders_differ_and_mix() -> None:
    first = data.epoch_order(5000, 1, 1)
    for other in (data.epoch_order(5000, 1, 2), data.epoch_order(5000, 2, 1)):
        # Two random permutations agree in one place on average.
        assert np.count_nonzero(first == other) < 12
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.08
    assert abs(np.corrcoef(first, np.arange(5000))[0, 1]) < 0.08


@settings(max_examples=50, deadline=None)
@given(
    first=st.tuples(*[st.integers(0, 2**64 - 1)] * 4),
    second=st.tuples(*[st.integers(0, 2**64 - 1)] * 4),
)
def test_streams_are_named_by_all_their_words(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    a, b = Stream("test", *first).bits(4), Stream("test", *second).bits(4)
    assert np.array_equal(a, b) == (first == second)
    assert not np.array_equal(a, Stream("other", *first).bits(4))


def test_uniform_numbers_are_uniform() -> None:
    for values in (Stream("test", 1).uniform(100_000), Stream("test", 1).uniform64(100_000)):
        assert values.min() >= 0
        assert values.max() < 1
        assert abs(float(values.mean()) - 0.5) < 0.005
        assert abs(float(values.var()) - 1 / 12) < 0.001
    with pytest.raises(ValueError, match="at most 3 indices"):
        Stream("test", 1, 2, 3, 4, 5)
    with pytest.raises(ValueError, match=r"2\*\*64"):
        Stream("test", -1)
