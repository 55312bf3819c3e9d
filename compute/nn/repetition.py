"""Layers that repeat elements of the sample. They take float32 and int64 alike."""

from __future__ import annotations

import numpy as np

from compute.errors import InputError
from compute.nn.broadcast import sum_over, unbroadcast
from compute.nn.dims import axis_of, check_dim
from compute.nn.layer import Array, Arrayed, LayerContext
from compute.nn.module import positive
from compute.nn.reshape import AnyType
from compute.spec import Shape


class Expand(AnyType):
    """Repeats the sample to the shape `sizes`: dimensions of size 1 grow, -1 keeps, more sizes add dimensions in front.

    float32 or int64. torch.Tensor.expand; BigDL's ExpandSize.
    """

    def __init__(self, *sizes: int, name: str | None = None) -> None:
        super().__init__(name)
        if not sizes or not all(isinstance(s, int) and not isinstance(s, bool) and (s >= 1 or s == -1) for s in sizes):
            raise InputError(f"Expand needs whole sizes of at least 1, or -1 to keep one, got {sizes}")
        self.sizes = sizes

    def output_shape(self, input_shape: Shape) -> Shape:
        extra = len(self.sizes) - len(input_shape)
        if extra < 0 or -1 in self.sizes[:extra]:
            raise InputError(f"cannot grow to {self.sizes}")
        padded = (1,) * extra + input_shape
        wanted = tuple(old if new == -1 else new for old, new in zip(padded, self.sizes, strict=True))
        if any(old not in (1, new) for old, new in zip(padded, wanted, strict=True)):
            raise InputError(f"cannot grow to {self.sizes}: only dimensions of size 1 can")
        return wanted

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        shape = self.output_shape(x.shape[1:])
        aligned = x.reshape(len(x), *(1,) * (len(shape) - x.ndim + 1), *x.shape[1:])
        return np.broadcast_to(aligned, (len(x), *shape)).copy()

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        return unbroadcast(grad_y, x.shape)


class Replicate(AnyType):
    """Repeats the sample `count` times along a new dimension `dim`. float32 or int64. BigDL's Replicate."""

    def __init__(self, count: int, dim: int = 0, name: str | None = None) -> None:
        super().__init__(name)
        positive(self.kind, count=count)
        self.count = count
        self.dim = check_dim(self.kind, dim)

    def output_shape(self, input_shape: Shape) -> Shape:
        dim = axis_of(self.dim, len(input_shape) + 1) - 1
        return (*input_shape[:dim], self.count, *input_shape[dim:])

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        return np.repeat(np.expand_dims(x, axis_of(self.dim, x.ndim)), self.count, axis=axis_of(self.dim, x.ndim))

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        return sum_over(grad_y, axis_of(self.dim, x.ndim)).reshape(x.shape)


class Tile(AnyType):
    """`copies` of the sample behind each other along dimension `dim`. float32 or int64. torch.tile; BigDL's Tile."""

    def __init__(self, dim: int = 0, copies: int = 2, name: str | None = None) -> None:
        super().__init__(name)
        positive(self.kind, copies=copies)
        self.dim = check_dim(self.kind, dim)
        self.copies = copies

    def output_shape(self, input_shape: Shape) -> Shape:
        dim = axis_of(self.dim, len(input_shape)) - 1
        return (*input_shape[:dim], input_shape[dim] * self.copies, *input_shape[dim + 1 :])

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        return np.concatenate([x] * self.copies, axis=axis_of(self.dim, x.ndim - 1))

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        axis = axis_of(self.dim, x.ndim - 1)
        parts = grad_y.reshape(*x.shape[:axis], self.copies, *x.shape[axis:])
        return sum_over(parts, axis).reshape(x.shape)
