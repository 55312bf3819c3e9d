"""Mean 0 and variance 1 for each row: what layer, group and instance normalization share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from compute.nn.layer import Array


class Standardized(NamedTuple):
    """Rows of mean 0 and variance 1, and what they were made with.

    Attributes:
        rows: float32 (n, m).
        inverse: float32 (n, 1): 1 / sqrt(variance + eps).
        mean, variance: float64 (n,); the variance is biased.
    """

    rows: Array
    inverse: Array
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]


def standardize(rows: Array, eps: float) -> Standardized:
    """(rows - mean) / sqrt(variance + eps) for rows float32 (n, m), in two passes."""
    count = rows.shape[1]
    rounded = rows.sum(axis=1, keepdims=True) / np.float32(count)
    result: Array = rows - rounded
    # What is left of the mean, which float32 cannot hold, is taken into account for the variance.
    rest = result.sum(axis=1, dtype=np.float64) / count
    result -= rest.astype(np.float32)[:, None]
    variance = (result * result).sum(axis=1).astype(np.float64) / count
    inverse = (1.0 / np.sqrt(variance + eps)).astype(np.float32)[:, None]
    result *= inverse
    return Standardized(result, inverse, rounded[:, 0] + rest, variance)


def standardize_backward(rows: Array, inverse: Array, grad: Array) -> Array:
    """The gradient for the rows that were standardized, given that for the standardized `rows`."""
    count = np.float32(rows.shape[1])
    result: Array = rows * ((grad * rows).sum(axis=1, keepdims=True) / -count)
    result += grad
    result -= grad.sum(axis=1, keepdims=True) / count
    result *= inverse
    return result
