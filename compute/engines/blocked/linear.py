"""Fully connected layers with the activation behind them."""

from __future__ import annotations

from collections.abc import Sequence

from compute import nn
from compute.engines.blocked.activation import activation_backward, activation_post_op
from compute.engines.blocked.linear_map import LinearMap
from compute.engines.blocked.plan import BlockedPlan
from compute.engines.staged import Stage
from compute.engines.tensor import Tensor
from compute.graph import Node


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
        self.reads_outputs = self._activation is not None
        self._parameters, self._gradients = plan.parameters(nodes[0]), plan.gradients(nodes[0])
        inputs = self._parameters["weight"].shape[1]
        self._x_shape = plan.shape(nodes[0].sources[0])
        rows = plan.rows_of(self._x_shape)
        # What the model gives is float32, and what layers' own formulas take.
        dtype = plan.result_dtype(nodes[-1].outputs[0])
        post_ops = () if self._activation is None else (activation_post_op(self._activation),)
        bias = self._parameters.get("bias")
        self._map = LinearMap(plan, self._parameters["weight"], rows, bias is not None, dtype, post_ops)
        self._x = plan.reshaped(plan.typed(x), (rows, inputs))
        self._y = plan.tensor(self._map.target)
        self._map.forward(self._x, self._y, bias)
        self.outputs = (plan.reshaped(self._y, plan.shape(nodes[0].outputs[0])),)

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        plan, outputs = self.plan, self._gradients["weight"].shape[0]
        rows = (plan.rows_of(self._x_shape), outputs)
        grad_y = plan.reshaped(grads[0], rows)
        if self._activation is not None:
            grad_y = activation_backward(plan, self._activation, self._y, self._y, grad_y)
        grad_y = plan.to(grad_y, plan.plain(rows))
        self._map.backward_weight(self._x, grad_y, self._gradients["weight"], self._gradients.get("bias"))
        if not needed[0]:
            return [None]
        grad_x = plan.tensor(self._map.source)
        self._map.backward_data(grad_y, grad_x)
        return [plan.reshaped(grad_x, self._x_shape)]
