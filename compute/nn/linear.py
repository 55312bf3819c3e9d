"""Fully connected layer."""

from __future__ import annotations

from compute.errors import InputError
from compute.nn.init import FanIn, Initializer
from compute.nn.module import Module, Parameter, Shape, positive


class Linear(Module):
    """y = x @ weight.T + bias for flat samples, as torch.nn.Linear.

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
        if input_shape != (self.in_features,):
            raise InputError(f"needs ({self.in_features},)")
        return (self.out_features,)

    def parameters(self, input_shape: Shape) -> list[Parameter]:
        weight = Parameter("weight", (self.out_features, self.in_features), self.weight_init)
        if not self.bias:
            return [weight]
        return [weight, Parameter("bias", (self.out_features,), self.bias_init)]
