"""Data sets in memory: arrays, or lists of items such as sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compute.data.dataset import Dataset
from compute.data.items import SEQUENCES, TEXT, TOKENS, Flow, Items, item_array
from compute.data.source import Indices, Source, Tensors, check_indices
from compute.errors import InputError
from compute.spec import TensorSpec


def spec_of(array: NDArray[Any]) -> TensorSpec:
    """The spec of the samples in an array (n, *shape): int64 for whole numbers of 32 bits and more, else float32."""
    whole = array.dtype.kind in "iu" and array.dtype.itemsize >= 4
    return TensorSpec(array.shape[1:], "int64" if whole else "float32")


def target_spec_of(array: NDArray[Any]) -> TensorSpec:
    """The same for targets, where whole numbers of any width are labels."""
    return TensorSpec(array.shape[1:], "int64" if array.dtype.kind in "iu" else "float32")


class ArraySource(Source):
    """Arrays that travel with the job; for small data."""

    concurrent = True

    def __init__(
        self,
        inputs: tuple[NDArray[Any], ...],
        targets: tuple[NDArray[Any], ...],
        classes: int | None,
        specs: Flow | None = None,
    ) -> None:
        self._inputs, self._targets, self._classes = inputs, targets, classes
        self._specs = tuple(spec_of(array) for array in inputs) if specs is None else specs

    def __len__(self) -> int:
        return len(self._inputs[0])

    @property
    def input_specs(self) -> Flow:
        return self._specs

    @property
    def target_specs(self) -> Flow:
        return tuple(target_spec_of(array) for array in self._targets)

    @property
    def classes(self) -> int | None:
        return self._classes

    def read(self, indices: Indices) -> tuple[Tensors, Tensors]:
        check_indices(indices, len(self), "the data set")
        x, target = (tuple(array[indices] for array in arrays) for arrays in (self._inputs, self._targets))
        return (x[0] if len(x) == 1 else x), (target[0] if len(target) == 1 else target)

    def lengths(self) -> NDArray[np.int64] | None:
        if not isinstance(self._specs[0], Items):
            return None
        return np.array([len(item) for item in self._inputs[0]], dtype=np.int64)

    def check(self) -> None:
        if self._classes is None or not len(self):
            return
        labels = self._targets[0]
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self._classes:
            raise InputError(f"labels must be in 0..{self._classes - 1}, found {low}..{high}; correct the labels")


def from_arrays(
    x: ArrayLike | tuple[ArrayLike, ...], target: ArrayLike | tuple[ArrayLike, ...] = (), classes: int | None = None
) -> Dataset:
    """A data set in memory, pickled with the job.

    Args:
        x: samples (n, *shape), or a tuple of such for samples of several tensors. Whole numbers of 32 bits and more
            are int64 in the end, all others float32.
        target: labels (n,) or any targets (n, *shape), or a tuple of such; () for none. Whole numbers are int64.
        classes: if the target is a label: the number of classes.

    Raises:
        InputError: the lengths differ, there is no sample dimension, or the arrays hold no numbers.
    """
    inputs = tuple(np.asarray(array) for array in (x if isinstance(x, tuple) else (x,)))
    targets = tuple(np.asarray(array) for array in (target if isinstance(target, tuple) else (target,)))
    shapes = [array.shape for array in (*inputs, *targets)]
    if not inputs or not all(shape and shape[0] == shapes[0][0] for shape in shapes):
        said = " and ".join(str(shape) for shape in shapes)
        raise InputError(f"from_arrays needs x (n, ...) and as many targets, such as integer labels (n,), got {said}")
    for array in (*inputs, *targets):
        if array.dtype.kind not in "fiub":
            raise InputError(f"from_arrays takes arrays of numbers, got one of {array.dtype}")
    _check_classes("from_arrays", targets, classes)
    return Dataset(ArraySource(inputs, _labels(targets), classes))


def from_items(
    items: Sequence[str] | Sequence[Sequence[str]] | Sequence[ArrayLike],
    target: ArrayLike | tuple[ArrayLike, ...] = (),
    classes: int | None = None,
) -> Dataset:
    """A data set of texts (str), token lists (lists of str) or sequences of numbers (length, *shape), in memory.

    Sequences may differ in length; `data.pad` makes tensors of them. Whole numbers are int64, all others float32.

    Args:
        target: as for `from_arrays`.

    Raises:
        InputError: the items are of different kinds, or the lengths differ.
    """
    listed = list(items)
    targets = tuple(np.asarray(array) for array in (target if isinstance(target, tuple) else (target,)))
    if not listed or not all(array.ndim and len(array) == len(listed) for array in targets):
        raise InputError(f"from_items needs items and as many targets, got {len(listed)} items")
    _check_classes("from_items", targets, classes)
    if all(isinstance(item, str) for item in listed):
        spec = Items(TEXT)
    elif all(isinstance(item, list | tuple) and all(isinstance(token, str) for token in item) for item in listed):
        spec = Items(TOKENS)
    else:
        arrays = [np.asarray(item) for item in listed]
        kinds = {(array.shape[1:], array.dtype.kind in "iu") for array in arrays if array.size}
        if len(kinds) != 1 or not all(array.ndim and array.dtype.kind in "fiub" for array in arrays):
            raise InputError("from_items takes texts, lists of tokens, or sequences of numbers, not a mixture of them")
        ((shape, whole),) = kinds
        spec = Items(SEQUENCES, "int64" if whole else "float32", shape)
        kind = np.int64 if whole else np.float32
        listed = [array.astype(kind).reshape(-1, *shape) for array in arrays]
    return Dataset(ArraySource((item_array(listed),), _labels(targets), classes, (spec,)))


def _check_classes(name: str, targets: tuple[NDArray[Any], ...], classes: int | None) -> None:
    if classes is not None and (len(targets) != 1 or targets[0].ndim != 1 or targets[0].dtype.kind not in "iu"):
        raise InputError(f"{name}: classes are for targets that are integer labels (n,)")


def _labels(targets: tuple[NDArray[Any], ...]) -> tuple[NDArray[Any], ...]:
    return tuple(array.astype(np.int64) if array.dtype.kind in "iu" else array for array in targets)
