"""Gradients of the weights of convolutions over small images, as one matrix product for each place in the kernel.

Kernels for convolutions walk along the rows of an image; where these are only a few pixels long they spend their time
on the way (and compute what the padding contributes: zeros). With pixels in front of the samples, (h, w, n, channels),
all that one weight W[:, :, ky, kx] meets are consecutive rows of a matrix:

    grad W[:, :, ky, kx] (K, C) = sum over valid (y, x) of grad_y[y, x] (n, K).T @ x[y + ky - pad, x + kx - pad] (n, C)

so that the sums over y and n are one product of matrices without a copy. Where the kernel's column reaches beyond the
image, rows of the matrix must be left out: for each kernel column the inputs and gradients that meet are copied.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from compute.engines import dnnl
from compute.engines.blocked.layout import Layout
from compute.engines.blocked.plan import BlockedPlan
from compute.engines.dnnl import Descriptor
from compute.engines.dnnl.constants import BF16, DST, F32, SRC, WEIGHTS
from compute.engines.tensor import Tensor
from compute.nn.conv import Convolution

MOST_PIXELS = 64
"""Of an image. Measured on AVX-512: at 8x8 the products are slightly ahead, at 4x4 two and at 2x2 ten times as fast."""

LEAST_CHANNELS = 128
"""Below, the copies cost more than what is won."""

Array = NDArray[np.float32]


class Meeting(NamedTuple):
    """What an index of the kernel meets along one dimension: outputs start .. start + count - 1, inputs `shift` on."""

    start: int
    count: int
    shift: int


def suits(layer: Convolution, source: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether a convolution of (n, C, h, w) into (n, K, h, w) has faster products than kernels."""
    return (
        layer.rank == 2
        and layer.groups == 1
        and set(layer.stride) == {1}
        and max(layer.kernel_size) > 1
        and source[2] * source[3] <= MOST_PIXELS
        and all(channels % 16 == 0 and channels >= LEAST_CHANNELS for channels in (source[1], target[1]))
    )


def weight_gradient(
    plan: BlockedPlan, layer: Convolution, x: Tensor, grad_y: Tensor, weight: Array, bias: Array | None
) -> None:
    """Emits the gradients of a convolution's weight (K, C, kh, kw) and bias (K,) to where they belong."""
    source, target = plan.describe(x), plan.describe(grad_y)
    n, channels, *size = source.dims
    _, outputs, *out = target.dims
    rows, columns = (
        [_meeting(layer, axis, index, size[axis], out[axis]) for index in range(layer.kernel_size[axis])]
        for axis in range(2)
    )
    taps = _array(plan, (len(rows), len(columns), outputs, channels))
    known: dict[tuple[int, int, int], Tensor] = {}

    def matrix(tensor: Tensor, which: int, start: int, count: int) -> Tensor:
        """Columns start .. start + count - 1 of the images, as (h, count, n, channels)."""
        if (which, start, count) not in known:
            known[which, start, count] = _pixels_first(plan, tensor, start, count)
        return known[which, start, count]

    for kx, across in enumerate(columns):
        for ky, down in enumerate(rows):
            tap = taps[ky, kx]
            if across.count <= 0 or down.count <= 0:
                plan.emit(partial(tap.fill, 0.0), uses=(tap,))
                continue
            inputs = matrix(x, 0, across.start + across.shift, across.count)
            grads = matrix(grad_y, 1, across.start, across.count)
            step = across.count * n
            grads = _rows(grads, down.start * step, down.count * step, outputs)
            inputs = _rows(inputs, (down.start + down.shift) * step, down.count * step, channels)
            _product(plan, grads, inputs, down.count * step, tap)
    if bias is not None:
        _sums(plan, _pixels_first(plan, grad_y, 0, out[1]), n * out[0] * out[1], bias)
    order = (channels, 1, len(columns) * outputs * channels, outputs * channels)
    described = plan.api.strided((outputs, channels, len(rows), len(columns)), order)
    plan.reorder(Tensor(taps, Layout(described)), Tensor(weight))


def _meeting(layer: Convolution, axis: int, index: int, size: int, out: int) -> Meeting:
    shift = index * layer.dilation[axis] - layer.padding[axis]
    start = max(0, -shift)
    return Meeting(start, min(out, size - shift) - start, shift)


def _array(plan: BlockedPlan, shape: tuple[int, ...]) -> Array:
    return plan.rows(shape).array


def _pixels_first(plan: BlockedPlan, tensor: Tensor, start: int, count: int) -> Tensor:
    """Some columns of images (n, channels, h, w), as a dense array (h, count, n, channels)."""
    described = plan.describe(tensor)
    n, channels, height, _ = described.dims
    part = described.part((n, channels, height, count), (0, 0, 0, start))
    order = (channels, 1, count * n * channels, n * channels)
    found = Tensor(
        plan.buffer(part.dtype.size_bytes * n * channels * height * count),
        Layout(plan.api.strided((n, channels, height, count), order, part.dtype)),
    )
    plan.extract(tensor, part, found)
    return found


def _rows(matrix: Tensor, first: int, count: int, columns: int) -> Tensor:
    """Consecutive rows of a matrix, with no layout of their own."""
    row_bytes = _dtype(matrix).size_bytes * columns
    return Tensor(matrix.array[first * row_bytes : (first + count) * row_bytes], matrix.layout)


def _dtype(tensor: Tensor) -> dnnl.DataType:
    assert isinstance(tensor.layout, Layout)
    return tensor.layout.descriptor.dtype


def _product(plan: BlockedPlan, grads: Tensor, inputs: Tensor, rows: int, tap: Array) -> None:
    """tap (K, C) = grads (rows, K).T @ inputs (rows, C)."""
    outputs, channels = tap.shape
    left = plan.api.strided((outputs, rows), (1, outputs), _dtype(grads))
    right = plan.api.strided((rows, channels), dtype=_dtype(inputs))
    _multiply(plan, (grads, left), (inputs, right), Tensor(tap))


def _sums(plan: BlockedPlan, grads: Tensor, rows: int, bias: Array) -> None:
    """bias (K,) = sums of grads (rows, K) over the rows."""
    dtype = _dtype(grads)
    left = plan.api.strided((len(bias), rows), (1, len(bias)), dtype)
    right = plan.api.strided((rows, 1), dtype=dtype)
    ones = plan.empty((rows,), dtype.numpy)
    # bfloat16 is the upper half of a float32.
    ones.fill(0x3F80 if dtype == BF16 else 1.0)
    _multiply(plan, (grads, left), (Tensor(ones), right), Tensor(bias.reshape(-1, 1)))


def _multiply(
    plan: BlockedPlan, left: tuple[Tensor, Descriptor], right: tuple[Tensor, Descriptor], result: Tensor
) -> None:
    operation = dnnl.matmul(plan.api, left[1], right[1], None, plan.api.strided(result.array.shape, dtype=F32))
    (grads, first), (inputs, second) = left, right
    arguments = {SRC: Tensor(grads.array, Layout(first)), WEIGHTS: Tensor(inputs.array, Layout(second)), DST: result}
    plan.run(operation, arguments)


