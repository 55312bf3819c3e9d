"""Pooling: the maximum or the mean of sliding windows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import repeat
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.layer import Array, Arrayed, LayerContext
from compute.nn.module import positive, sizes
from compute.nn.spatial import Spatial
from compute.nn.window import Window
from compute.spec import Shape


class Pool(Spatial):
    """Base of poolings: (channels, *size) to (channels, *out).

    out = floor((size + 2 padding - dilation (kernel_size - 1) - 1) / stride) + 1, or with ceil_mode rounded up as in
    PyTorch and Caffe: a last window may reach beyond the padding, if it starts within the input or before it.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None,
        padding: int | tuple[int, ...],
        dilation: int | tuple[int, ...],
        ceil_mode: bool,
        name: str | None,
    ) -> None:
        super().__init__(name)
        self.kernel_size = sizes(self.kind, "kernel_size", kernel_size, self.rank, 1)
        self.stride = self.kernel_size if stride is None else sizes(self.kind, "stride", stride, self.rank, 1)
        self.padding = sizes(self.kind, "padding", padding, self.rank, 0)
        self.dilation = sizes(self.kind, "dilation", dilation, self.rank, 1)
        self.ceil_mode = ceil_mode
        if any(2 * p > k for p, k in zip(self.padding, self.kernel_size, strict=True)):
            raise InputError(f"{self.kind}: padding {self.padding} is more than half the kernel {self.kernel_size}")
        self.window = Window(self.kernel_size, self.stride, self.padding, self.dilation)

    def output_shape(self, input_shape: Shape) -> Shape:
        out = self.window.count(self.check(input_shape), self.padding, self.ceil_mode)
        if min(out) < 1:
            raise InputError(f"the window {self.window.span} is larger than the padded image")
        return (input_shape[0], *out)

    def places(self, padded: Array, out: Shape) -> list[Array]:
        """For each element of the kernel, in row order, a view (n, channels, *out) of it in all windows."""
        view = self.window.view(padded, out)
        return [view[(slice(None), slice(None), *place)] for place in np.ndindex(*self.kernel_size)]

    def scatter(self, grads: Iterable[Array], x: Array, y: Array) -> Array:
        """The gradient for x, given that for each element of the kernel, in row order, in all windows."""
        size, out = x.shape[2:], y.shape[2:]
        padded = np.zeros((*x.shape[:2], *self.window.padded_size(size, out)), dtype=np.float32)
        for place, grad in zip(self.places(padded, out), grads, strict=True):
            place += grad
        return self.window.crop(padded, size)


class MaxPool(Pool):
    """Base of MaxPool1d, MaxPool2d and MaxPool3d."""

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None = None,
        padding: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        *,
        ceil_mode: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, name)

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        out = self.output_shape(x.shape[1:])[1:]
        places = self.places(self.window.pad(x, out, -np.inf), out)
        y = places[0].copy()
        choice = np.zeros(y.shape, dtype=np.min_scalar_type(len(places)))
        for index, place in enumerate(places[1:], start=1):
            np.putmask(choice, place > y, index)
            np.maximum(y, place, out=y)
        context.saved["choice"] = choice
        return y

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        choice = context.saved["choice"]
        count = math.prod(self.kernel_size)
        return self.scatter((grad_y * (choice == index) for index in range(count)), x, y)


class AvgPool(Pool):
    """Base of AvgPool1d, AvgPool2d and AvgPool3d."""

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None = None,
        padding: int | tuple[int, ...] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, 1, ceil_mode, name)
        self.count_include_pad = count_include_pad
        if divisor_override is not None:
            positive(self.kind, divisor_override=divisor_override)
        self.divisor_override = divisor_override

    def divisors(self, size: Shape) -> NDArray[np.float32]:
        """What the sum of each window is divided by, float32 (*out)."""
        out = self.window.count(size, self.padding, self.ceil_mode)
        if self.divisor_override is not None:
            return np.full(out, self.divisor_override, dtype=np.float32)
        divisors = np.ones((), dtype=np.float32)
        for n, count, k, stride, pad in zip(size, out, self.kernel_size, self.stride, self.padding, strict=True):
            start = np.arange(count) * stride - pad
            end = np.minimum(start + k, n + pad)  # a window that ceil_mode adds is cut at the end of the padding
            if not self.count_include_pad:
                start, end = np.maximum(start, 0), np.minimum(end, n)
            divisors = np.multiply.outer(divisors, (end - start).astype(np.float32))
        return divisors

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        out = self.output_shape(x.shape[1:])[1:]
        total = np.zeros((*x.shape[:2], *out), dtype=np.float64)
        for place in self.places(self.window.pad(x, out), out):
            total += place
        total /= self.divisors(x.shape[2:])
        return total.astype(np.float32)

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        grad = grad_y / self.divisors(x.shape[2:])
        return self.scatter(repeat(grad, math.prod(self.kernel_size)), x, y)


_MAX = """ samples, as in torch.nn.

    y[c, p..] = max over k.. of x[c, p * stride + k * dilation - padding ..]; what padding adds never wins. The gradient
    goes to the first largest element of a window, in row order.

    Output: (channels, *out), out = floor((size + 2 padding - dilation (kernel_size - 1) - 1) / stride) + 1; ceil_mode
    rounds up, as PyTorch and Caffe do: a last window may be cut off, if it starts within the input or before it.

    Args:
        kernel_size, stride, padding, dilation: one number or one for each dimension; stride is kernel_size by default.
    """
_AVG = """ samples, as in torch.nn.

    y[c, p..] = sum over k.. of x[c, p * stride + k - padding ..] / divisor, x being 0 outside.

    Output: (channels, *out), out = floor((size + 2 padding - kernel_size) / stride) + 1; ceil_mode rounds up, as
    PyTorch and Caffe do: a last window may be cut off, if it starts within the input or before it.

    Args:
        kernel_size, stride, padding: one number or one for each dimension; stride is kernel_size by default.
        count_include_pad: the divisor counts the elements of a window and its padding; else only those of the input.
        divisor_override: the divisor, whatever it would be.
    """


class MaxPool1d(MaxPool):
    __doc__ = "Maximum over windows of (channels, length)" + _MAX
    rank: ClassVar[int] = 1


class MaxPool2d(MaxPool):
    __doc__ = "Maximum over windows of (channels, height, width)" + _MAX
    rank: ClassVar[int] = 2


class MaxPool3d(MaxPool):
    __doc__ = "Maximum over windows of (channels, depth, height, width)" + _MAX
    rank: ClassVar[int] = 3


class AvgPool1d(AvgPool):
    __doc__ = "Mean over windows of (channels, length)" + _AVG
    rank: ClassVar[int] = 1


class AvgPool2d(AvgPool):
    __doc__ = "Mean over windows of (channels, height, width)" + _AVG
    rank: ClassVar[int] = 2


class AvgPool3d(AvgPool):
    __doc__ = "Mean over windows of (channels, depth, height, width)" + _AVG
    rank: ClassVar[int] = 3
