"""Softmax and its relatives: distributions over one dimension."""

from __future__ import annotations

import numpy as np

from compute.errors import InputError
from compute.nn.dims import axis_of, check_dim
from compute.nn.layer import Array, Arrayed, LayerContext, UnaryLayer
from compute.nn.smooth import sigmoid
from compute.spec import Shape


def softmax(x: Array, axis: int) -> Array:
    """exp(x) / sum of exp(x) along an axis."""
    y: Array = x - x.max(axis=axis, keepdims=True)
    np.exp(y, out=y)
    y /= y.sum(axis=axis, keepdims=True)
    return y


def softmax_gradient(y: Array, grad_y: Array, axis: int) -> Array:
    """The gradient for what `softmax` gave y for, given that for y."""
    grad_x: Array = grad_y * y
    grad_x -= y * grad_x.sum(axis=axis, keepdims=True)
    return grad_x


class OverDim(UnaryLayer):
    """Base of layers that keep the shape and compute along dimension `dim` of the sample."""

    def __init__(self, dim: int = -1, name: str | None = None) -> None:
        super().__init__(name)
        self.dim = check_dim(self.kind, dim)

    def output_shape(self, input_shape: Shape) -> Shape:
        axis_of(self.dim, len(input_shape))
        return input_shape


class Softmax(OverDim):
    """exp(x) / sum of exp(x) over dimension `dim` of the sample, by default its last. torch.nn.Softmax."""

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        return softmax(x, axis_of(self.dim, x.ndim - 1))

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        return softmax_gradient(y, grad_y, axis_of(self.dim, x.ndim - 1))


class Softmin(OverDim):
    """softmax(-x) over dimension `dim` of the sample, by default its last. torch.nn.Softmin."""

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        return softmax(-x, axis_of(self.dim, x.ndim - 1))

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        return -softmax_gradient(y, grad_y, axis_of(self.dim, x.ndim - 1))


class LogSoftmax(OverDim):
    """log(softmax(x)) over dimension `dim` of the sample, by default its last. torch.nn.LogSoftmax."""

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        axis = axis_of(self.dim, x.ndim - 1)
        y: Array = x - x.max(axis=axis, keepdims=True)
        y -= np.log(np.exp(y).sum(axis=axis, keepdims=True))
        return y

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        grad_x: Array = np.exp(y)
        grad_x *= -grad_y.sum(axis=axis_of(self.dim, x.ndim - 1), keepdims=True)
        grad_x += grad_y
        return grad_x


class GLU(OverDim):
    """a * sigmoid(b), a and b being the halves of x along dimension `dim` of the sample. torch.nn.GLU."""

    def output_shape(self, input_shape: Shape) -> Shape:
        dim = axis_of(self.dim, len(input_shape)) - 1
        if input_shape[dim] % 2:
            raise InputError(f"needs an even size in dimension {self.dim}")
        return (*input_shape[:dim], input_shape[dim] // 2, *input_shape[dim + 1 :])

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        a, b = np.split(x, 2, axis=axis_of(self.dim, x.ndim - 1))
        return a * sigmoid(b)

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        axis = axis_of(self.dim, x.ndim - 1)
        a, b = np.split(x, 2, axis=axis)
        gate = sigmoid(b)
        return np.concatenate([grad_y * gate, grad_y * a * gate * (np.float32(1) - gate)], axis=axis)
