"""Activations."""

from __future__ import annotations

import numpy as np

from compute.nn.layer import Array, Arrayed, LayerContext, UnaryLayer


class Tanh(UnaryLayer):
    """Hyperbolic tangent, element by element."""

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        return np.tanh(x)

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        grad_x: Array = (np.float32(1) - y * y) * grad_y
        return grad_x


class ReLU(UnaryLayer):
    """max(x, 0), element by element; its gradient at 0 is 0."""

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        return np.maximum(x, np.float32(0))

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        return grad_y * (x > 0)


class LogSoftmax(UnaryLayer):
    """log(softmax(x)) over the last dimension."""

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        y: Array = x - x.max(axis=-1, keepdims=True)
        y -= np.log(np.exp(y).sum(axis=-1, keepdims=True))
        return y

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        grad_x: Array = np.exp(y)
        grad_x *= -grad_y.sum(axis=-1, keepdims=True)
        grad_x += grad_y
        return grad_x
