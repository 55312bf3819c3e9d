"""Positional encodings: what tells a Transformer the order of its inputs."""

from __future__ import annotations

import numpy as np

from compute.errors import InputError
from compute.nn.init import Initializer, RandomNormal
from compute.nn.layer import Array, Arrayed, LayerContext, UnaryLayer
from compute.nn.module import Parameter, positive
from compute.spec import Shape


class PositionalEncoding(UnaryLayer):
    """y = scale * x + P for x (times, features), with P[t, 2i] = sin(t / 10000^(2i / features)) and P[t, 2i+1] = cos.

    Args:
        scale: usually sqrt(features) behind an embedding.

    Vaswani et al., Attention Is All You Need (2017), sections 3.4 and 3.5.
    """

    def __init__(self, scale: float = 1.0, name: str | None = None) -> None:
        super().__init__(name)
        self.scale = float(scale)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 2:
            raise InputError("needs (times, features)")
        return input_shape

    def table(self, times: int, features: int) -> Array:
        """P, float32 (times, features)."""
        even = np.arange(0, features, 2)
        angles = np.arange(times)[:, None] * np.exp(even * (-np.log(10000.0) / features))
        table = np.empty((times, features), dtype=np.float32)
        table[:, 0::2] = np.sin(angles)
        table[:, 1::2] = np.cos(angles[:, : features // 2])
        return table

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        y = x * np.float32(self.scale)
        y += self.table(*x.shape[1:])
        return y

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        return grad_y * np.float32(self.scale)


class LearnedPositionalEncoding(UnaryLayer):
    """y = x + weight[:times] for x (times, features): a trained vector for each position.

    Parameters: `weight` (max_length, features), normal with standard deviation 0.02.

    Gehring et al., Convolutional Sequence to Sequence Learning (2017), section 3.1.
    """

    def __init__(
        self, max_length: int, features: int, weight_init: Initializer | None = None, name: str | None = None
    ) -> None:
        super().__init__(name)
        positive(self.kind, max_length=max_length, features=features)
        self.max_length = max_length
        self.features = features
        self.weight_init = weight_init or RandomNormal(0.0, 0.02)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 2 or input_shape[1] != self.features or input_shape[0] > self.max_length:
            raise InputError(f"needs (times, {self.features}) with at most {self.max_length} times (max_length)")
        return input_shape

    def parameters(self, input_shape: Shape) -> list[Parameter]:
        return [Parameter("weight", (self.max_length, self.features), self.weight_init)]

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        y: Array = x + parameters["weight"][: x.shape[1]]
        return y

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        gradients["weight"][: x.shape[1]] += grad_y.sum(axis=0)
        return grad_y
