"""Shapes and types of what flows through a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError

Shape = tuple[int, ...]
"""Shape of one sample, without the batch dimension; () for a number per sample."""

DTYPES = ("float32", "int64")
"""What tensors may hold: values, or whole numbers such as labels and token ids."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a sample: its shape without the batch dimension, and its type, "float32" or "int64"."""

    shape: Shape
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not all(isinstance(size, int | np.integer) and size >= 1 for size in self.shape):
            raise InputError(f"a sample's shape must have whole sizes of at least 1, got {tuple(self.shape)}")
        if self.dtype not in DTYPES:
            raise InputError(f"a tensor's type must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join(str(size) for size in self.shape)})"


Specs = tuple[TensorSpec, ...]
"""The tensors of a sample: a data set's inputs or targets, or a layer's inputs or outputs."""

SpecsLike = TensorSpec | Shape | Iterable[TensorSpec | Shape]
"""What `as_specs` takes: a shape alone means one float32 tensor."""

Arrays = tuple[NDArray[Any], ...]
"""A batch of samples: for each spec an array (n, *shape) of its type."""


def as_specs(value: SpecsLike) -> Specs:
    """Specs from a spec, a shape (one float32 tensor) or a sequence of specs and shapes.

    Raises:
        InputError: it is none of these, or there is no tensor.
    """
    if isinstance(value, TensorSpec):
        return (value,)
    try:
        items: tuple[Any, ...] = tuple(value)
    except TypeError:
        items = ()
    if items and all(isinstance(item, TensorSpec) for item in items):
        return items
    if items and all(isinstance(item, int | np.integer) for item in items):
        return (TensorSpec(items),)
    if items and all(isinstance(item, TensorSpec | tuple) for item in items):
        return tuple(spec for item in items for spec in as_specs(item))
    raise InputError(f"tensors of a sample are given as a shape or as compute.TensorSpec, got {value!r}")


def as_arrays(value: NDArray[Any] | Iterable[NDArray[Any]]) -> Arrays:
    """A tuple of arrays from one array or several.

    Raises:
        InputError: it is neither.
    """
    arrays = tuple(value) if isinstance(value, tuple | list) else (value,)
    for array in arrays:
        if not isinstance(array, np.ndarray):
            raise InputError(f"batches are numpy arrays or tuples of them, got {type(array).__name__}")
    return arrays
