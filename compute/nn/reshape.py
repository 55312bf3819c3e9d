"""Layers that only name the same elements differently."""

from __future__ import annotations

import math

from compute.errors import InputError
from compute.nn.layer import Array, Arrayed, LayerContext, UnaryLayer
from compute.spec import Shape


class Reshape(UnaryLayer):
    """Gives each sample the shape `shape`; one size may be -1 and follows from the others."""

    def __init__(self, *shape: int | tuple[int, ...], name: str | None = None) -> None:
        super().__init__(name)
        sizes: list[int] = []
        for item in shape:
            sizes.extend([item] if isinstance(item, int) else item)
        if not sizes or not all(isinstance(s, int) and (s >= 1 or s == -1) for s in sizes) or sizes.count(-1) > 1:
            raise InputError(f"Reshape needs whole numbers of at least 1 (one may be -1), got {tuple(sizes)}")
        self.shape = tuple(sizes)

    def output_shape(self, input_shape: Shape) -> Shape:
        size = math.prod(input_shape)
        known = math.prod(s for s in self.shape if s != -1)
        if size % known or (-1 not in self.shape and size != known):
            raise InputError(f"cannot give {size} elements the shape {self.shape}")
        return tuple(size // known if s == -1 else s for s in self.shape)

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        return x.reshape(len(x), *self.output_shape(x.shape[1:]))

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        return grad_y.reshape(x.shape)


class Flatten(Reshape):
    """Gives each sample one dimension."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(-1, name=name)
