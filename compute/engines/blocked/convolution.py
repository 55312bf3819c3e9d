"""Convolutions of any rank, with the activation behind them."""

from __future__ import annotations

from collections.abc import Sequence

from compute.engines import dnnl
from compute.engines.blocked import tap_products
from compute.engines.blocked.activation import activation_backward, activation_post_op
from compute.engines.blocked.plan import BlockedPlan, vector
from compute.engines.dnnl import Descriptor, Operation, Unimplemented
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
from compute.nn.conv import Convolution
from compute.nn.layer import Arrayed


class ConvolutionStage(Stage):
    """activation(conv(x) + bias).

    Raises:
        Unimplemented: oneDNN has no kernel for it but its reference.
    """

    plan: BlockedPlan

    def __init__(self, plan: BlockedPlan, nodes: Sequence[Node], x: Tensor) -> None:
        super().__init__(plan, nodes)
        layer = nodes[0].layer
        assert isinstance(layer, Convolution)
        self._layer = layer
        self._activation = nodes[1].layer if len(nodes) > 1 else None
        self._gradients = plan.gradients(nodes[0])
        self._parameters = plan.parameters(nodes[0])
        api = plan.api
        source, target = plan.shape(nodes[0].sources[0]), plan.shape(nodes[0].outputs[0])
        self._dims = self._parameters["weight"].shape
        if layer.groups > 1:
            self._dims = (layer.groups, self._dims[0] // layer.groups, *self._dims[1:])
        self._bias = api.strided((layer.out_channels,)) if layer.bias else None
        self._forward = fast(
            dnnl.convolution(
                api,
                plan.any(source),
                plan.any(self._dims),
                self._bias,
                plan.any(target),
                layer.stride,
                layer.padding,
                layer.dilation,
                plan.training,
                attr=None if self._activation is None else api.attribute_of(activation_post_op(self._activation)),
            )
        )
        self._source, self._target = self._forward.layout(SRC), self._forward.layout(DST)
        if plan.training:
            self._by_products = tap_products.suits(layer, source, target)
            self._backward_weights = None if self._by_products else self._prepare_backward_weights()
            self._backward_data = self._prepare_backward_data(source, target)
        self._x = plan.to(x, self._source)
        y = plan.tensor(self._target)
        weight = plan.weight(self._parameters["weight"], self._dims, self._forward.layout(WEIGHTS))
        plan.run(self._forward, {SRC: self._x, WEIGHTS: weight, DST: y, **bias_argument(BIAS, self._parameters)})
        self.outputs = (y,)

    def _prepare_backward_weights(self) -> Operation:
        weights = self.plan.api.any(self._dims, F32)
        arguments = (self._forward, self._source, weights, self._bias, self._target)
        return fast(dnnl.convolution_backward_weights(*arguments))

    def _prepare_backward_data(self, source: Sequence[int], target: Sequence[int]) -> Operation | None:
        plan, node = self.plan, self.nodes[0]
        if not plan.needed[node.sources[0]]:
            return None
        weights = plan.any(self._dims)
        try:
            return fast(dnnl.convolution_backward_data(self._forward, self._source, weights, self._target))
        except Unimplemented:
            free: tuple[Descriptor, Descriptor] = (plan.any(source), plan.any(target))
            return fast(dnnl.convolution_backward_data(self._forward, free[0], weights, free[1]))

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        plan = self.plan
        grad_y = plan.to(grads[0], self._target)
        if self._activation is not None:
            grad_y = activation_backward(plan, self._activation, self.outputs[0], self.outputs[0], grad_y)
        self._emit_weight_gradient(grad_y)
        if not needed[0] or self._backward_data is None:
            return [None]
        operation = self._backward_data
        weight = plan.weight(self._parameters["weight"], self._dims, operation.layout(WEIGHTS))
        grad_x = plan.tensor(operation.layout(DIFF_SRC))
        grad_y = plan.to(grad_y, operation.layout(DIFF_DST))
        plan.run(operation, {DIFF_DST: grad_y, WEIGHTS: weight, DIFF_SRC: grad_x})
        return [grad_x]

    def _emit_weight_gradient(self, grad_y: Tensor) -> None:
        plan, operation, gradient = self.plan, self._backward_weights, self._gradients["weight"]
        if operation is None:
            tap_products.weight_gradient(plan, self._layer, self._x, grad_y, gradient, self._gradients.get("bias"))
            return
        found = plan.weight_gradient(gradient, self._dims, operation.layout(DIFF_WEIGHTS))
        bias = bias_argument(DIFF_BIAS, self._gradients)
        plan.run(operation, {SRC: self._x, DIFF_DST: grad_y, DIFF_WEIGHTS: found, **bias})
        plan.store(found, gradient, self._dims)


def fast(operation: Operation) -> Operation:
    """The operation. Raises Unimplemented if only the library's reference implementation, many times slower, has it."""
    if operation.implementation.startswith("ref"):
        raise Unimplemented(f"{operation.kind} has no kernel for these arguments")
    return operation


def bias_argument(argument: int, values: Arrayed) -> dict[int, Tensor]:
    """The bias, or its gradient, as an argument where there is one."""
    return {argument: vector(values["bias"])} if "bias" in values else {}
