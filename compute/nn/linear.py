"""Fully connected layer."""

from __future__ import annotations

from compute.errors import InputError
from compute.nn.init import FanIn, Initializer
from compute.nn.layer import Array, Arrayed, LayerContext, UnaryLayer
from compute.nn.module import Parameter, positive
from compute.spec import Shape


class Linear(UnaryLayer):
    """y = x @ weight.T + bias over the last dimension, as torch.nn.Linear: (*, in_features) to (*, out_features).

    Parameters: `weight` (out_features, in_features), `bias` (out_features,) unless bias=False. Both start uniform in
    +-1/sqrt(in_features).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        weight_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        positive("Linear", in_features=in_features, out_features=out_features)
        self.in_features = in_features
        self.out_features = out_features
        self.bias = bias
        self.weight_init = weight_init or FanIn(in_features)
        self.bias_init = bias_init or FanIn(in_features)

    def output_shape(self, input_shape: Shape) -> Shape:
        if not input_shape or input_shape[-1] != self.in_features:
            raise InputError(f"needs (..., {self.in_features})")
        return (*input_shape[:-1], self.out_features)

    def parameters(self, input_shape: Shape) -> list[Parameter]:
        weight = Parameter("weight", (self.out_features, self.in_features), self.weight_init)
        if not self.bias:
            return [weight]
        return [weight, Parameter("bias", (self.out_features,), self.bias_init)]

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        y: Array = x @ parameters["weight"].T
        if self.bias:
            y += parameters["bias"]
        return y

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        rows = grad_y.reshape(-1, self.out_features)
        gradients["weight"] += rows.T @ x.reshape(-1, self.in_features)
        if self.bias:
            gradients["bias"] += rows.sum(axis=0)
        return grad_y @ parameters["weight"]
