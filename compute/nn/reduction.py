"""Sums, means and extremes over dimensions of the sample."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.dims import axis_of, check_dim
from compute.nn.layer import Array, Arrayed, LayerContext, UnaryLayer
from compute.spec import Shape


class Reduction(UnaryLayer):
    """Base of reductions over dimensions of the sample.

    Args:
        dim: one dimension, several, or None for all.
        keepdim: whether they stay, with size 1.
    """

    def __init__(
        self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False, name: str | None = None
    ) -> None:
        super().__init__(name)
        several = (dim,) if isinstance(dim, int) else dim
        self.dim = None if several is None else tuple(check_dim(self.kind, one) for one in several)
        self.keepdim = keepdim

    def axes(self, rank: int) -> tuple[int, ...]:
        """Axes in a batch's array of samples with `rank` dimensions.

        Raises:
            InputError: a dimension does not exist or is named twice.
        """
        axes = tuple(range(1, rank + 1)) if self.dim is None else tuple(axis_of(dim, rank) for dim in self.dim)
        if len(set(axes)) != len(axes):
            raise InputError(f"dim {self.dim} names a dimension twice")
        return axes

    def output_shape(self, input_shape: Shape) -> Shape:
        axes = self.axes(len(input_shape))
        sizes = [1 if axis in axes else size for axis, size in enumerate(input_shape, 1)]
        return tuple(size for axis, size in enumerate(sizes, 1) if self.keepdim or axis not in axes)

    def spread(self, grad_y: Array, x: Array) -> Array:
        """The output's gradient, for each element that it is the sum of."""
        return np.broadcast_to(self._expanded(grad_y, x), x.shape).copy()

    def _expanded(self, y: Array, x: Array) -> Array:
        """y with the dimensions that were reduced, of size 1."""
        axes = self.axes(x.ndim - 1)
        return y.reshape(tuple(1 if axis in axes else size for axis, size in enumerate(x.shape)))


class Sum(Reduction):
    """Sum over dimensions of the sample, added up in float64. torch.sum(dim, keepdim)."""

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        axes = self.axes(x.ndim - 1)
        return np.asarray(x.sum(axis=axes, keepdims=self.keepdim, dtype=np.float64), dtype=np.float32)

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        return self.spread(grad_y, x)


class Mean(Reduction):
    """Mean over dimensions of the sample, added up in float64. torch.mean(dim, keepdim)."""

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        axes = self.axes(x.ndim - 1)
        return np.asarray(x.mean(axis=axes, keepdims=self.keepdim, dtype=np.float64), dtype=np.float32)

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        count = math.prod(x.shape[axis] for axis in self.axes(x.ndim - 1))
        return self.spread(grad_y / np.float32(count), x)


class Extreme(Reduction):
    """Base of the largest and the smallest element over one dimension."""

    def __init__(self, dim: int = -1, keepdim: bool = False, name: str | None = None) -> None:
        super().__init__(check_dim(self.kind, dim), keepdim, name)

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        (axis,) = self.axes(x.ndim - 1)
        place = np.expand_dims(self._place(x, axis), axis)
        context.saved["place"] = place
        y = np.take_along_axis(x, place, axis)
        return y if self.keepdim else y.squeeze(axis)

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        (axis,) = self.axes(x.ndim - 1)
        grad_x = np.zeros_like(x)
        np.put_along_axis(grad_x, context.saved["place"], self._expanded(grad_y, x), axis)
        return grad_x

    def _place(self, x: Array, axis: int) -> NDArray[np.intp]:
        """The place of the element along the axis."""
        raise NotImplementedError


class Max(Extreme):
    """Largest element over one dimension of the sample; the gradient goes to the first largest.

    Gives the values of torch.max(dim, keepdim), not their places.
    """

    def _place(self, x: Array, axis: int) -> NDArray[np.intp]:
        return np.asarray(x.argmax(axis))


class Min(Extreme):
    """Smallest element over one dimension of the sample; the gradient goes to the first smallest.

    Gives the values of torch.min(dim, keepdim), not their places.
    """

    def _place(self, x: Array, axis: int) -> NDArray[np.intp]:
        return np.asarray(x.argmin(axis))
