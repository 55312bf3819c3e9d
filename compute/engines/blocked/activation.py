"""Element-wise functions, by themselves or behind another kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from compute import nn
from compute.engines import dnnl
from compute.engines.blocked.plan import BlockedPlan
from compute.engines.dnnl import EltwisePostOp
from compute.engines.dnnl.constants import DIFF_DST, DIFF_SRC, DST, SRC, Eltwise
from compute.engines.staged import Stage
from compute.engines.tensor import Tensor
from compute.graph import Node

Parameters = tuple[Eltwise, float, float]
"""Function, alpha and beta."""



def _gelu(layer: nn.Module) -> Parameters:
    assert isinstance(layer, nn.GELU)
    return (Eltwise.GELU_TANH if layer.approximate == "tanh" else Eltwise.GELU_ERF, 0.0, 0.0)


def _leaky(layer: nn.Module) -> Parameters:
    assert isinstance(layer, nn.LeakyReLU)
    return (Eltwise.RELU, layer.negative_slope, 0.0)


FORWARD: dict[type[nn.Module], Callable[[nn.Module], Parameters]] = {
    nn.ReLU: lambda layer: (Eltwise.RELU, 0.0, 0.0),
    nn.Tanh: lambda layer: (Eltwise.TANH, 0.0, 0.0),
    nn.Sigmoid: lambda layer: (Eltwise.LOGISTIC, 0.0, 0.0),
    nn.SiLU: lambda layer: (Eltwise.SWISH, 1.0, 0.0),
    nn.Mish: lambda layer: (Eltwise.MISH, 0.0, 0.0),
    nn.GELU: _gelu,
    nn.LeakyReLU: _leaky,
}
"""oneDNN's function for a layer."""

FROM_RESULT = {
    Eltwise.RELU: Eltwise.RELU_FROM_DST,
    Eltwise.TANH: Eltwise.TANH_FROM_DST,
    Eltwise.LOGISTIC: Eltwise.LOGISTIC_FROM_DST,
}
"""Functions whose gradient follows from their result, so that their argument need not be kept."""


def activation(layer: nn.Module) -> Parameters | None:
    """oneDNN's function for a layer; None if it has none."""
    make = FORWARD.get(type(layer))
    return None if make is None else make(layer)


def fusable(layer: nn.Module) -> bool:
    """Whether the activation may be computed by the kernel before it: its gradient follows from its result."""
    return type(layer) in (nn.ReLU, nn.Tanh, nn.Sigmoid)


def activation_post_op(layer: nn.Module) -> EltwisePostOp:
    """The activation as part of another operation."""
    return EltwisePostOp(*_known(layer))


def _known(layer: nn.Module) -> Parameters:
    known = activation(layer)
    if known is None:
        raise dnnl.Unimplemented(f"oneDNN has no function {layer.kind}")
    return known


def activation_backward(plan: BlockedPlan, layer: nn.Module, x: Tensor, y: Tensor, grad_y: Tensor) -> Tensor:
    """Emits and gives the gradient of an activation's argument x, given that of its result y, which it may overwrite.

    Of `fusable` activations x is not used.
    """
    algorithm, alpha, beta = _known(layer)
    data = plan.describe(y)
    forward = dnnl.eltwise(plan.api, algorithm, data, data, alpha, beta)
    grad_y = plan.to(grad_y, data)
    grad_x = plan.overwritable(grad_y)
    if fusable(layer):
        forward = dnnl.eltwise(plan.api, FROM_RESULT[algorithm], data, data, alpha, beta)
        operation = dnnl.eltwise_backward(forward, data, data, data)
        plan.run(operation, {DST: y, DIFF_DST: grad_y, DIFF_SRC: grad_x})
    else:
        operation = dnnl.eltwise_backward(forward, data, data, data)
        plan.run(operation, {SRC: x, DIFF_DST: grad_y, DIFF_SRC: grad_x})
    return grad_x


class ActivationStage(Stage):
    """An activation by itself, in any layout."""

    plan: BlockedPlan

    def __init__(self, plan: BlockedPlan, nodes: Sequence[Node], x: Tensor) -> None:
        super().__init__(plan, nodes)
        self._x = x
        data = plan.describe(x)
        algorithm, alpha, beta = _known(nodes[0].layer)
        operation = dnnl.eltwise(plan.api, algorithm, data, data, alpha, beta, plan.training)
        y = plan.tensor(data)
        plan.run(operation, {SRC: x, DST: y})
        self.outputs = (y,)

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        return [activation_backward(self.plan, self.nodes[0].layer, self._x, self.outputs[0], grads[0])]
