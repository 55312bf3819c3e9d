"""Layers that take or give tables."""

from __future__ import annotations

import numpy as np

from compute.errors import InputError
from compute.nn.layer import Array, Arrayed, Layer, LayerContext
from compute.spec import Arrays, Shape


class JoinTable(Layer):
    """Joins the parts of a table along dimension `dim` of the sample; negative ones count from the end."""

    def __init__(self, dim: int = 0, name: str | None = None) -> None:
        super().__init__(name)
        self.dim = dim

    def output_shape(self, *input_shapes: Shape) -> Shape:
        first = input_shapes[0]
        if not -len(first) <= self.dim < len(first):
            raise InputError(f"the samples have no dimension {self.dim}")
        dim = self.dim % len(first)
        if any(s[:dim] != first[:dim] or s[dim + 1 :] != first[dim + 1 :] for s in input_shapes):
            raise InputError(f"the parts may differ in dimension {self.dim} only")
        return (*first[:dim], sum(shape[dim] for shape in input_shapes), *first[dim + 1 :])

    def axis(self, rank: int) -> int:
        """The dimension in arrays of `rank`, the batch's included."""
        return self.dim + 1 if self.dim >= 0 else self.dim + rank

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        return (np.concatenate(inputs, axis=self.axis(inputs[0].ndim)),)

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        axis = self.axis(inputs[0].ndim)
        ends = np.cumsum([x.shape[axis] for x in inputs])
        return tuple(np.split(grad_outputs[0], ends[:-1], axis=axis))


class CAddTable(Layer):
    """Sum of the parts of a table, which broadcast as numpy's do."""

    def output_shape(self, *input_shapes: Shape) -> Shape:
        try:
            return tuple(np.broadcast_shapes(*input_shapes))
        except ValueError:
            raise InputError("the parts' shapes do not broadcast") from None

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        total = inputs[0] + inputs[1] if len(inputs) > 1 else inputs[0].copy()
        for x in inputs[2:]:
            total = total + x
        return (total,)

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        return tuple(unbroadcast(grad_outputs[0], x.shape) for x in inputs)


def unbroadcast(grad: Array, shape: Shape) -> Array:
    """Sums a gradient over the dimensions along which an array of `shape` (n, ...) was broadcast."""
    rank = len(shape)
    # Samples broadcast among each other, so missing dimensions are behind the batch's.
    full = (shape[0], *(1,) * (grad.ndim - rank), *shape[1:])
    axes = tuple(i for i, size in enumerate(full) if size == 1 and grad.shape[i] != 1)
    return (grad.sum(axis=axes, keepdims=True) if axes else grad).reshape(shape)
