"""Fully connected layers with the activation behind them."""

from __future__ import annotations

from collections.abc import Sequence

from compute import nn
from compute.engines import dnnl
from compute.engines.blocked.activation import activation_backward, activation_post_op
from compute.engines.blocked.convolution import bias_argument
from compute.engines.blocked.plan import BlockedPlan
from compute.engines.dnnl.constants import (
    BIAS,
    DIFF_BIAS,
    DIFF_DST,
    DIFF_SRC,
    DIFF_WEIGHTS,
    DST,
    F32,
    SRC,
    WEIGHTS,
)
from compute.engines.staged import Stage
from compute.engines.tensor import Tensor
from compute.graph import Node

FEW_ROWS = 64
"""Below, float32 kernels take the weights as they are: reading them to copy them costs more than it gains."""


class LinearStage(Stage):
    """activation(x @ weight.T + bias) on rows (m, in), whose m are all dimensions but the last.

    Of an nn.Linear, or of an nn.Embedding that is the tied output layer.
    """

    plan: BlockedPlan

    def __init__(self, plan: BlockedPlan, nodes: Sequence[Node], x: Tensor) -> None:
        super().__init__(plan, nodes)
        layer = nodes[0].layer
        assert isinstance(layer, nn.Linear | nn.Embedding)
        self._activation = nodes[1].layer if len(nodes) > 1 else None
        self._parameters, self._gradients = plan.parameters(nodes[0]), plan.gradients(nodes[0])
        self._dims = outputs, inputs = self._parameters["weight"].shape
        self._x_shape = plan.shape(nodes[0].sources[0])
        api, y_shape = plan.api, plan.shape(nodes[0].outputs[0])
        rows = plan.rows_of(self._x_shape)
        source = plan.plain((rows, inputs))
        # What the model gives is float32, and what layers' own formulas take.
        target = api.strided((rows, outputs), dtype=plan.result_dtype(nodes[-1].outputs[0]))
        self._target = plan.plain((rows, outputs))
        self._bias = api.strided((outputs,)) if "bias" in self._parameters else None
        self._forward = dnnl.inner_product(
            api,
            source,
            self._weights(),
            self._bias,
            target,
            plan.training,
            attr=None if self._activation is None else api.attribute_of(activation_post_op(self._activation)),
        )
        self._x = plan.reshaped(plan.typed(x), (rows, inputs))
        self._y = plan.tensor(target)
        weight = plan.weight(self._parameters["weight"], self._dims, self._forward.layout(WEIGHTS))
        plan.run(self._forward, {SRC: self._x, WEIGHTS: weight, DST: self._y, **bias_argument(BIAS, self._parameters)})
        self.outputs = (plan.reshaped(self._y, y_shape),)

    def _weights(self) -> dnnl.Descriptor:
        # bfloat16 products are as fast on a plain copy, and float32 ones need none. See docs/kernels.md.
        wanted = self.plan.dtype == F32 and self._target.dims[0] >= FEW_ROWS
        return self.plan.any(self._dims) if wanted else self.plan.plain(self._dims)

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        plan, api = self.plan, self.plan.api
        rows = self._target.dims
        grad_y = plan.reshaped(grads[0], rows)
        if self._activation is not None:
            grad_y = activation_backward(plan, self._activation, self._y, self._y, grad_y)
        grad_y = plan.to(grad_y, self._target)
        source = plan.describe(self._x)
        wanted = api.strided(self._dims)
        operation = dnnl.inner_product_backward_weights(self._forward, source, wanted, self._bias, self._target)
        gradient = self._gradients["weight"]
        found = plan.weight_gradient(gradient, self._dims, operation.layout(DIFF_WEIGHTS))
        bias = bias_argument(DIFF_BIAS, self._gradients)
        plan.run(operation, {SRC: self._x, DIFF_DST: grad_y, DIFF_WEIGHTS: found, **bias})
        plan.store(found, gradient, self._dims)
        if not needed[0]:
            return [None]
        grad_x = plan.tensor(source)
        parameter = self._parameters["weight"]
        if plan.dtype == F32:
            operation = dnnl.inner_product_backward_data(self._forward, source, plan.plain(self._dims), self._target)
            weight = plan.weight(parameter, self._dims, operation.layout(WEIGHTS))
            plan.run(operation, {DIFF_DST: grad_y, WEIGHTS: weight, DIFF_SRC: grad_x})
        else:
            # A product of its own: the kernels for this gradient are slower.
            operation = dnnl.matmul(api, self._target, plan.any(self._dims), None, source)
            weight = plan.weight(parameter, self._dims, operation.layout(WEIGHTS))
            plan.run(operation, {SRC: grad_y, WEIGHTS: weight, DST: grad_x})
        return [plan.reshaped(grad_x, self._x_shape)]
