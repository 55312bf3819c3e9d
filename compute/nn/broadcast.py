"""Broadcasting of samples: their dimensions are matched from the last, as numpy's; the batch stays in front."""

from __future__ import annotations

import numpy as np

from compute.errors import InputError
from compute.nn.layer import Array
from compute.spec import Arrays, Shape


def broadcast_shape(*shapes: Shape) -> Shape:
    """The samples' common shape.

    Raises:
        InputError: they have none.
    """
    try:
        return tuple(int(size) for size in np.broadcast_shapes(*shapes))
    except ValueError:
        raise InputError("the parts' shapes do not broadcast") from None


def aligned_ranks(arrays: Arrays) -> Arrays:
    """The arrays (n, ...) with dimensions of size 1 put behind the batch's, so that all have the same rank."""
    rank = max(array.ndim for array in arrays)
    return tuple(
        array.reshape(len(array), *(1,) * (rank - array.ndim), *array.shape[1:]) if array.ndim < rank else array
        for array in arrays
    )


def unbroadcast(grad: Array, shape: Shape) -> Array:
    """Sums a gradient (n, ...) over what an array of `shape` (n, ...) was broadcast along."""
    if grad.shape == shape:
        return grad
    full = (shape[0], *(1,) * (grad.ndim - len(shape)), *shape[1:])
    axes = tuple(axis for axis, size in enumerate(full) if size == 1 and grad.shape[axis] != 1)
    return sum_over(grad, axes).reshape(shape)


def sum_for_parameter(grad: Array, shape: Shape) -> Array:
    """Sums a gradient (n, ...) over the batch and over what a parameter of `shape` was broadcast along."""
    full = (1,) * (grad.ndim - len(shape)) + tuple(shape)
    axes = tuple(axis for axis, size in enumerate(full) if size == 1 and grad.shape[axis] != 1)
    return sum_over(grad, axes).reshape(shape)


def sum_over(x: Array, axes: tuple[int, ...] | int) -> Array:
    """Sum over axes, which stay with size 1; added up in float64, rounded once."""
    if axes == ():
        return x
    return np.asarray(x.sum(axis=axes, keepdims=True, dtype=np.float64), dtype=np.float32)
