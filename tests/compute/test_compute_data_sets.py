"""Data sets of several tensors, parts of data sets, orders."""

from __future__ import annotations

import pickle
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from compute import InputError, data
from compute.data.order import block_order, bucket_order
from compute.data.source import Indices
from compute.philox import Stream
from compute.spec import Shape, TensorSpec

KEY = (1, 5, 2)
EVERY = np.arange(6)


class Squares(data.Source):
    """A user's simple source."""

    def __init__(self) -> None:
        self.active = self.most = 0

    def __len__(self) -> int:
        return 6

    @property
    def sample_shape(self) -> Shape:
        return (2,)

    def read(self, indices: Indices) -> tuple[NDArray[np.float64], Indices]:
        self.active += 1
        self.most = max(self.most, self.active)
        result = np.stack([indices, indices**2], axis=1).astype(np.float64), indices % 3
        self.active -= 1
        return result


class Noise(data.Transform):
    """A user's random transform of the first of several tensors."""

    def apply(self, x: tuple[np.ndarray, ...], target: np.ndarray, stream: Stream) -> tuple[object, object]:
        return (x[0] + stream.uniform(x[0].shape), *x[1:]), target


def several() -> data.Dataset:
    rng = np.random.default_rng(0)
    x = rng.random((6, 3)), rng.integers(0, 9, (6, 2)), rng.integers(0, 256, (6, 1, 4, 4), dtype=np.uint8)
    return data.from_arrays(x, (np.arange(6, dtype=np.uint8), rng.random((6, 2, 2))))


def test_a_simple_source_of_one_s_own() -> None:
    dataset = data.Dataset(Squares()) >> data.to_float(2)
    dataset.check()
    assert dataset.input_specs == (TensorSpec((2,)),)
    assert dataset.target_specs == (TensorSpec((), "int64"),)
    x, target = dataset.batch(np.array([3, 1]), KEY)
    np.testing.assert_array_equal(x, [[6, 18], [2, 2]])
    np.testing.assert_array_equal(target, [0, 1])


def test_a_source_of_one_s_own_is_read_by_one_thread_at_a_time() -> None:
    source = Squares()
    dataset = data.Dataset(source)
    threads = [threading.Thread(target=lambda: [dataset.batch(EVERY, KEY) for _ in range(300)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert source.most == 1


def test_several_tensors_of_each_type() -> None:
    dataset = several()
    assert dataset.input_specs == (TensorSpec((3,)), TensorSpec((2,), "int64"), TensorSpec((1, 4, 4)))
    assert dataset.target_specs == (TensorSpec((), "int64"), TensorSpec((2, 2)))
    x, target = dataset.batch(EVERY, KEY)
    assert [array.dtype.name for array in (*x, *target)] == ["float32", "int64", "float32", "int64", "float32"]
    assert all(array.flags.c_contiguous for array in (*x, *target))
    with pytest.raises(InputError, match="3 tensors and no one shape"):
        _ = dataset.sample_shape
    with pytest.raises(InputError, match=r"normalize takes one input tensor, the samples have 3; .*data\.on_input"):
        _ = (dataset >> data.normalize(0, 1)).flow
    changed = dataset >> data.on_input(data.normalize(0.5, 2), 2) >> data.on_target(data.to_float(10), 1) >> Noise()
    changed.check()
    (noisy, same, normalized), (label, scaled) = changed.batch(EVERY, KEY)
    np.testing.assert_array_equal(same, x[1])
    np.testing.assert_allclose(normalized, (x[2] / 255 - 0.5) / 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(label, target[0])
    np.testing.assert_allclose(scaled, 10 * target[1], rtol=1e-6)
    assert 0 <= (noisy - x[0]).min() < (noisy - x[0]).max() <= 1
    with pytest.raises(InputError, match="there is no input 3"):
        _ = (dataset >> data.on_input(data.to_float(), 3)).flow
    with pytest.raises(InputError, match=r"on_input takes a transform such as data\.to_float"):
        data.on_input(data.one_hot(3), 0)  # type: ignore[arg-type]


def test_functions_as_transforms() -> None:
    dataset = data.from_arrays(np.arange(12.0).reshape(6, 2), EVERY, classes=6)
    x, target = (dataset >> data.map(np.sqrt) >> data.map_target(lambda t: t // 2, classes=3)).batch(EVERY, KEY)
    np.testing.assert_allclose(x, np.sqrt(np.arange(12.0)).reshape(6, 2), rtol=1e-6)
    np.testing.assert_array_equal(target, EVERY // 2)
    split = dataset >> data.map(lambda x: (x[:, :1], x[:, 1].astype(int)), [TensorSpec((1,)), TensorSpec((), "int64")])
    split.check()
    one, two = split.batch(EVERY, KEY)[0]
    np.testing.assert_array_equal(one[:, 0] + 1, two)
    with pytest.raises(InputError, match="promise samples of shape"):
        (dataset >> data.map(lambda x: x[:, :1])).check()
    with pytest.raises(InputError, match="promise 1 tensors of samples but make 2"):
        (dataset >> data.map(lambda x: (x, x))).check()
    with pytest.raises(InputError, match="promise int64 targets but make float64"):
        (dataset >> data.map_target(lambda t: t / 2)).check()
    with pytest.raises(InputError, match="no array of 1 of"):
        (dataset >> data.map(lambda x: x[:0])).check()
    with pytest.raises(InputError, match=r"no array of 1 of float32 .*, but str"):
        (dataset >> data.map(lambda x: ("text",))).check()
    with pytest.raises(InputError, match="sample 2: the samples hold a NaN"):
        (dataset >> data.map(lambda x: np.where(x == 5, np.nan, x))).batch(EVERY[::-1], KEY)
    big = data.from_arrays(np.full((6, 40), 1e38, np.float32))
    np.testing.assert_array_equal(
        big.batch(EVERY, KEY)[0], np.full((6, 40), np.float32(1e38))
    )  # only the sum overflows
    with pytest.raises(InputError, match="map takes a function"):
        data.map(3)  # type: ignore[arg-type]


def test_parts_of_a_data_set() -> None:
    dataset = data.from_arrays(np.arange(20.0).reshape(10, 2), np.arange(10), 10) >> data.to_float(2)
    assert [len(dataset.take(count)) for count in (1, 10, 99)] == [1, 10, 10]
    np.testing.assert_array_equal(dataset.take(4).batch(np.array([3]), KEY)[1], [3])
    picked = dataset.subset([7, 2, 9])
    np.testing.assert_array_equal(picked.batch(np.array([2, 0]), KEY)[0], 2 * np.array([[18, 19], [14, 15]]))
    first, second = dataset.split(0.7, seed=3)
    assert (len(first), len(second)) == (7, 3)
    members = [set(part.batch(np.arange(len(part)), KEY)[1].tolist()) for part in (first, second)]  # type: ignore[union-attr]
    assert members[0] | members[1] == set(range(10))
    assert not members[0] & members[1]
    assert set(dataset.split(0.7, seed=4)[0].batch(np.arange(7), KEY)[1].tolist()) != members[0]  # type: ignore[union-attr]
    for part in (first, picked, dataset.take(4)):
        part.check()
        assert part.classes == 10
        np.testing.assert_array_equal(np.sort(part.order(1, 2)), np.arange(len(part)))
        assert len(pickle.dumps(part)) < 3000
        again = pickle.loads(pickle.dumps(part))
        np.testing.assert_array_equal(again.order(1, 2), part.order(1, 2))
    for wrong, message in ((lambda: dataset.take(0), "take needs"), (lambda: dataset.split(1.0), "fraction between"),
                           (lambda: dataset.subset([1, 1]), "named twice"),
                           (lambda: dataset.subset([0.5]), "whole numbers"),
                           (lambda: len(dataset.subset([10])), "index 10 of a data set of 10")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            wrong()


def test_parts_keep_the_order_s_neighbours() -> None:
    """A subset of a bucketed data set is still bucketed."""
    lengths = np.random.default_rng(0).integers(1, 1000, 4096)
    dataset = data.from_items([[1] * int(length) for length in lengths]).bucket_by_length(16)
    part, _ = dataset.split(0.5)
    order = part.order(1, 1)
    own = part.source.lengths()
    assert own is not None
    spread = np.abs(np.diff(own[order])).mean()
    assert spread < 0.2 * np.abs(np.diff(own)).mean()  # an eighth: it jumps between buckets


def test_concat_gives_each_part_its_transforms() -> None:
    one = data.from_arrays(np.arange(8.0).reshape(4, 2), np.arange(4), 5) >> data.to_float(1)
    two = data.from_arrays(np.arange(6.0).reshape(3, 2), np.arange(3), 7) >> data.to_float(100)
    both = data.concat(one, two) >> data.map(lambda x: x + 1)
    both.check()
    assert (len(both), both.classes) == (7, 7)
    x, target = both.batch(np.array([6, 0, 4, 3]), KEY)
    np.testing.assert_array_equal(x, np.array([[400, 500], [0, 1], [0, 100], [6, 7]]) + 1)
    np.testing.assert_array_equal(target, [2, 0, 0, 3])
    assert len(pickle.dumps(data.concat(one, two))) < 3000
    noisy = data.concat(one >> Jitter(), one >> Jitter())
    found, _ = noisy.batch(np.array([0, 4]), KEY)
    assert not np.array_equal(found[0], found[1])  # type: ignore[call-overload]  # the parts draw different numbers
    np.testing.assert_array_equal(found, noisy.batch(np.array([0, 4]), KEY)[0])
    with pytest.raises(InputError, match=r"part 0 gives .* part 1 gives"):
        data.concat(one, data.from_arrays(np.zeros((2, 3)), [0, 1])).check()
    pixels = data.from_arrays(np.zeros((2, 2), np.uint8), [0, 1])
    with pytest.raises(InputError, match="the parts give float32 and uint8"):
        data.concat(one, pixels).check()
    ragged = data.from_items([[1, 2], [3]]) >> data.pad(5)
    with pytest.raises(InputError, match="pad behind concat"):
        data.concat(ragged, data.from_items([[1, 2, 3]]) >> data.pad(5)).batch(np.arange(3), KEY)
    joined = data.concat(data.from_items([[1, 2], [3]]), data.from_items([[4, 5, 6]])) >> data.pad(5)
    np.testing.assert_array_equal(joined.batch(np.arange(3), KEY)[0], [[1, 2, 0], [3, 0, 0], [4, 5, 6]])
    assert joined.source.lengths().tolist() == [2, 1, 3]  # type: ignore[union-attr]
    with pytest.raises(InputError, match="concat takes data sets"):
        data.concat()


class Jitter(data.Transform):
    """Replaces a sample by noise."""

    def apply(self, x: np.ndarray, target: np.ndarray, stream: Stream) -> tuple[np.ndarray, np.ndarray]:
        return stream.uniform(x.shape), target


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 50), max_size=300), st.integers(1, 40), st.integers(1, 5))
def test_bucket_orders_are_permutations(lengths: list[int], bucket: int, epoch: int) -> None:
    array = np.array(lengths, dtype=np.int64)
    order = bucket_order(array, bucket, 1, epoch)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(len(array)))
    np.testing.assert_array_equal(order, bucket_order(array, bucket, 1, epoch))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 25))
def test_block_orders_are_permutations_within_windows(sizes: list[int], window: int) -> None:
    array = np.array(sizes, dtype=np.int64)
    order = block_order(array, window, 1, 2)
    np.testing.assert_array_equal(np.sort(order), np.arange(array.sum()))
    block = np.repeat(np.arange(len(array)), array)[order]
    for number in range(len(array)):  # whatever a block is read for lies within the window it is in
        place = np.flatnonzero(block == number)
        assert len(np.unique(block[place[0] : place[-1] + 1])) <= window or window >= len(array)


def test_buckets_save_padding_and_still_mix() -> None:
    lengths = np.random.default_rng(0).geometric(0.05, 5003)
    dataset = data.from_items([[1] * int(length) for length in lengths]).bucket_by_length(32) >> data.pad(500)
    orders = [dataset.order(1, epoch) for epoch in (1, 2)]
    for order in orders:
        padded = sum(lengths[order[begin : begin + 32]].max() * 32 for begin in range(0, 4992, 32))
        assert padded < 1.1 * lengths.sum()
        assert (
            abs(np.corrcoef(lengths[order][:-1:32], np.arange(len(order[:-1:32])))[0, 1]) < 0.2
        )  # buckets are shuffled
    assert np.count_nonzero(orders[0] == orders[1]) < 30
    x, _ = dataset.batch(orders[0][:32], KEY)
    assert x.shape[1] == lengths[orders[0][:32]].max()  # type: ignore[union-attr]
    given = data.from_arrays(np.zeros((4, 2))).bucket_by_length(2, lengths=[5, 1, 5, 1])
    assert {frozenset(pair) for pair in given.order(1, 1).reshape(2, 2).tolist()} == {
        frozenset((0, 2)),
        frozenset((1, 3)),
    }
    with pytest.raises(InputError, match="does not know its lengths"):
        data.from_arrays(np.zeros((4, 2))).bucket_by_length(2).check()
    with pytest.raises(InputError, match="3 lengths for 4 samples"):
        data.from_arrays(np.zeros((4, 2))).bucket_by_length(2, lengths=[1, 2, 3]).check()
    with pytest.raises(InputError, match="at least 1"):
        data.from_arrays(np.zeros((4, 2))).bucket_by_length(0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((np.zeros((2, 2)), np.zeros((3, 2))),), "from_arrays needs"),
        ((np.zeros((2, 2)), ([0, 1], [0])), "from_arrays needs"),
        ((np.array(["a", "b"]),), "arrays of numbers"),
        ((np.zeros((2, 2)), [0.5, 1.0], 2), "integer labels"),
        ((3.0,), "from_arrays needs"),
    ],
)
def test_arrays_that_are_no_samples(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        data.from_arrays(*arguments)  # type: ignore[arg-type]


def test_the_documentation_lists_every_name() -> None:
    """docs/data.md has a line for each reader and transform, and none for what does not exist."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text()
    internal = {"InputTransform", "Key", "Prefetcher", "epoch_order"}
    called = r"([a-zA-Z_0-9]+)[(.]"
    named = set(re.findall(rf"(?:\| |, )`(?:data\.)?{called}", text)) | set(re.findall(rf"\bdata\.{called}", text))
    assert set(data.__all__) - internal <= named | {"Dataset", "Source", "Transform"}
    assert named - {"dataset", "from_"} <= set(data.__all__)
