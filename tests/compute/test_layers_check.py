"""The check of layers itself: it accepts what is right and finds each kind of mistake."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from layer_check import check_layer

from compute import TensorSpec, nn

functional = torch.nn.functional


def test_right_layers_pass() -> None:
    check_layer(nn.Linear(3, 2), [(5, 3)], functional.linear)
    check_layer(nn.Conv2d(2, 3, 3), [(2, 5, 6)], functional.conv2d, batch=1)
    check_layer(nn.CAddTable(), [(3, 2), (1, 2)], torch.add)
    check_layer(
        nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)),
        [(3,)],
        lambda x, linear_0_weight, linear_0_bias, linear_2_weight, linear_2_bias: functional.linear(
            torch.tanh(functional.linear(x, linear_0_weight, linear_0_bias)), linear_2_weight, linear_2_bias
        ),
    )


class Twice(nn.CustomLayer):
    """2 x, with mistakes to choose from."""

    def __init__(self, mistake: str) -> None:
        super().__init__()
        self.mistake = mistake
        self.calls = 0

    def parameters(self, input_shape: nn.Shape) -> list[nn.Parameter]:
        return [nn.Parameter("factor", (1,), nn.init.Ones())]

    def forward(self, x: Any, parameters: Any, context: Any) -> Any:
        self.calls += 1
        if self.mistake == "writes":
            x += 1
        factor = parameters["factor"] * (1.1 if self.mistake == "evaluation" and not context.training else 1)
        if self.mistake == "changes":
            factor = factor * (1 + 3e-7 * (self.calls // 2 % 2))
        return x * factor * (1.0001 if self.mistake == "output 0" else 1)

    def backward(self, x: Any, y: Any, grad_y: Any, parameters: Any, gradients: Any, context: Any) -> Any:
        gradients["factor"] += (grad_y * x).sum() * (1.0001 if self.mistake == "gradient of factor" else 1)
        return grad_y * parameters["factor"] * (1.0001 if self.mistake == "gradient of input 0" else 1)


@pytest.mark.parametrize(
    "mistake",
    ["output 0", "gradient of input 0", "gradient of factor", "evaluation", "changes", "writes"],
)
def test_mistakes_are_found(mistake: str) -> None:
    check_layer(Twice(""), [(4,)], lambda x, factor: x * factor)
    with pytest.raises(AssertionError, match=mistake):
        check_layer(Twice(mistake), [(4,)], lambda x, factor: x * factor)


def test_whole_numbers_have_no_gradient() -> None:
    class Ids(nn.Layer):
        def output_specs(self, *inputs: TensorSpec) -> tuple[TensorSpec, ...]:
            return (TensorSpec(inputs[0].shape),)

        def forward_many(self, inputs: Any, parameters: Any, context: Any) -> Any:
            return (inputs[0] * 0.5,)

        def backward_many(self, *arguments: Any) -> Any:
            return (None,)

    check_layer(Ids(), [TensorSpec((3,), "int64")], lambda ids: ids * 0.5)
