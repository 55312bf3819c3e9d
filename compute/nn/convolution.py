"""Cross-correlation of any rank by im2col and matrix products, and its gradients.

A transposed convolution is the gradient of a convolution for its input, so the three functions here serve both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from compute.nn.layer import Array
from compute.nn.window import Window
from compute.spec import Shape

BLOCK_ELEMENTS = 2**20
"""About how many elements of gathered windows are held at a time: 4 MB, so that they stay in the cache."""


def convolve(x: Array, weight: Array, window: Window, groups: int, out: Shape) -> Array:
    """y[n, o, p..] = sum over c, k.. of weight[o, c, k..] * x[n, c, p * stride + k * dilation - padding ..].

    The sum runs over the channels c of o's group.

    Args:
        x: float32 (n, C, *size).
        weight: float32 (O, C / groups, *kernel).
        out: how many windows per dimension.

    Returns:
        float32 (n, O, *out).
    """
    padded = window.pad(x, out)
    matrix = weight.reshape(groups, len(weight) // groups, -1)
    y = np.empty((len(x), len(weight), *out), dtype=np.float32)
    for block in _blocks(len(x), x.shape[1], window, out):
        product = np.matmul(matrix, _columns(padded[block], window, groups, out))
        y[block] = product.reshape(len(weight), -1, *out).swapaxes(0, 1)
    return y


def convolve_grad_input(grad_y: Array, weight: Array, window: Window, groups: int, size: Shape) -> Array:
    """The gradient of `convolve` for x, float32 (n, C, *size), given that for y, float32 (n, O, *out)."""
    out, channels = grad_y.shape[2:], weight.shape[1] * groups
    matrix = weight.reshape(groups, len(weight) // groups, -1).swapaxes(1, 2)
    padded = np.zeros((len(grad_y), channels, *window.padded_size(size, out)), dtype=np.float32)
    for block in _blocks(len(grad_y), channels, window, out):
        product = np.matmul(matrix, _rows(grad_y[block], groups)).reshape(channels, *window.kernel, -1, *out)
        target = window.view(padded[block], out)
        for place in np.ndindex(*window.kernel):
            target[(slice(None), slice(None), *place)] += product[(slice(None), *place)].swapaxes(0, 1)
    return window.crop(padded, size)


def convolve_grad_weight(x: Array, grad_y: Array, window: Window, groups: int) -> Array:
    """The gradient of `convolve` for the weight, float32 (O, C / groups, *kernel), given that for y."""
    out, outputs, channels = grad_y.shape[2:], grad_y.shape[1], x.shape[1]
    padded = window.pad(x, out)
    grad = np.zeros((groups, outputs // groups, channels // groups * math.prod(window.kernel)), dtype=np.float32)
    for block in _blocks(len(x), channels, window, out):
        columns = _columns(padded[block], window, groups, out)
        grad += np.matmul(_rows(grad_y[block], groups), columns.swapaxes(1, 2))
    return grad.reshape(outputs, channels // groups, *window.kernel)


def _blocks(n: int, channels: int, window: Window, out: Shape) -> Iterator[slice]:
    """Slices of the batch whose windows have about BLOCK_ELEMENTS elements."""
    size = max(1, BLOCK_ELEMENTS // (channels * math.prod(window.kernel) * math.prod(out)))
    for start in range(0, n, size):
        yield slice(start, start + size)


def _columns(padded: Array, window: Window, groups: int, out: Shape) -> Array:
    """Gathered windows (groups, C / groups * elements of the kernel, n * elements of out)."""
    rank = window.rank
    order = (1, *range(2, 2 + rank), 0, *range(2 + rank, 2 + 2 * rank))
    columns = np.ascontiguousarray(window.view(padded, out).transpose(order))
    return columns.reshape(groups, -1, len(padded) * math.prod(out))


def _rows(y: Array, groups: int) -> Array:
    """(n, O, *out) as (groups, O / groups, n * elements of out)."""
    return np.ascontiguousarray(y.swapaxes(0, 1)).reshape(groups, y.shape[1] // groups, -1)
