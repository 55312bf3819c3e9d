"""A data set of arrays in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.data.dataset import Dataset, Labels, Source
from compute.errors import InputError


class ArraySource(Source):
    """Arrays that travel with the job; for small data."""

    def __init__(self, x: NDArray[Any], target: NDArray[Any], classes: int | None) -> None:
        self._x, self._target, self._classes = x, target, classes

    def __len__(self) -> int:
        return len(self._x)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self._x.shape[1:]

    @property
    def classes(self) -> int | None:
        return self._classes

    def read(self, indices: Labels) -> tuple[NDArray[Any], Labels]:
        return self._x[indices], self._target[indices]

    def check(self) -> None:
        if self._classes is not None and len(self._target):
            low, high = int(self._target.min()), int(self._target.max())
            if low < 0 or high >= self._classes:
                raise InputError(f"labels must be in 0..{self._classes - 1}, found {low}..{high}; correct the labels")


def from_arrays(x: NDArray[Any], target: NDArray[Any], classes: int | None = None) -> Dataset:
    """A data set of samples x (n, *shape) and labels (n,), kept in memory and pickled with the job.

    Raises:
        InputError: the lengths differ or there is no sample dimension.
    """
    x, target = np.asarray(x), np.asarray(target)
    if x.ndim < 2 or target.shape != (len(x),) or not np.issubdtype(target.dtype, np.integer):
        raise InputError(f"from_arrays needs x (n, ...) and integer labels (n,), got {x.shape} and {target.shape}")
    return Dataset(ArraySource(x, target.astype(np.int64), classes))
