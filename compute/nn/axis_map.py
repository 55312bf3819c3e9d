"""Layers that apply one linear map to each spatial dimension in turn: means of bins, interpolation."""

from __future__ import annotations

import numpy as np

from compute.nn.layer import Array, Arrayed, LayerContext
from compute.nn.spatial import Spatial


class AxisMapped(Spatial):
    """Base: y = A1 applied along the first spatial dimension, A2 along the second, and so on."""

    def matrix(self, axis: int, size: int) -> Array | None:
        """The map of spatial dimension `axis`, float32 (out, size); None for the identity."""
        raise NotImplementedError

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        y = x
        for axis in range(self.rank):
            y = apply_along(self.matrix(axis, x.shape[2 + axis]), y, 2 + axis)
        return y

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        grad = grad_y
        for axis in reversed(range(self.rank)):
            matrix = self.matrix(axis, x.shape[2 + axis])
            grad = apply_along(None if matrix is None else matrix.T, grad, 2 + axis)
        return grad


def apply_along(matrix: Array | None, x: Array, axis: int) -> Array:
    """The matrix (out, size) times x along one of its dimensions."""
    if matrix is None:
        return x
    if axis == x.ndim - 1:
        last: Array = x @ matrix.T
        return last
    shape = x.shape
    flat: Array = np.matmul(matrix, x.reshape(*shape[:axis], shape[axis], -1))
    return flat.reshape(*shape[:axis], len(matrix), *shape[axis + 1 :])
