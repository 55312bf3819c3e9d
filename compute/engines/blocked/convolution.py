"""Convolutions of any rank and transposed ones, with the activation behind them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import ClassVar, TypeVar

from compute.engines import dnnl
from compute.engines.blocked import tap_products
from compute.engines.blocked.activation import activation_backward, activation_post_op
from compute.engines.blocked.layout import Layout
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
from compute.nn.conv_transpose import TransposedConvolution
from compute.nn.layer import Arrayed
from compute.spec import Shape

T = TypeVar("T")


class ConvolutionStage(Stage):
    """activation(conv(x) + bias).

    Raises:
        Unimplemented: oneDNN has no kernel for it but its reference.
    """

    plan: BlockedPlan
    _make: ClassVar[Callable[..., Operation]] = staticmethod(dnnl.convolution)

    def __init__(self, plan: BlockedPlan, nodes: Sequence[Node], x: Tensor) -> None:
        super().__init__(plan, nodes)
        layer = nodes[0].layer
        assert isinstance(layer, Convolution | TransposedConvolution)
        self._layer = layer
        self._activation = nodes[1].layer if len(nodes) > 1 else None
        self._gradients = plan.gradients(nodes[0])
        self._parameters = plan.parameters(nodes[0])
        api = plan.api
        source, target = plan.shape(nodes[0].sources[0]), plan.shape(nodes[0].outputs[0])
        self._dims, self._strides = self._seen()
        self._bias = api.strided((layer.out_channels,)) if layer.bias else None
        self._by_products = plan.training and self._suits_products(source, target)
        self._forward, self._backward_weights = first_of(
            [(plan.any(source), plan.any(target)), (self._channels_last(source), self._channels_last(target))],
            self._prepare,
        )
        self._source, self._target = self._forward.layout(SRC), self._forward.layout(DST)
        self._backward_data = None
        if plan.training and plan.needed[nodes[0].sources[0]]:
            self._backward_data = first_of(
                [
                    (self._source, self._target),
                    (plan.any(source), plan.any(target)),
                    (self._channels_last(source), self._channels_last(target)),
                ],
                self._prepare_backward_data,
            )
        self._x = plan.to(x, self._source)
        y = plan.tensor(self._target)
        weight = self._weight(self._forward)
        plan.run(self._forward, {SRC: self._x, WEIGHTS: weight, DST: y, **bias_argument(BIAS, self._parameters)})
        self.outputs = (y,)

    def _seen(self) -> tuple[Shape, Shape | None]:
        """The weight's dimensions as kernels see them, and its strides if these are not row-major."""
        dims, groups = self._parameters["weight"].shape, self._layer.groups
        return (dims if groups == 1 else (groups, dims[0] // groups, *dims[1:])), None

    def _suits_products(self, source: Shape, target: Shape) -> bool:
        return isinstance(self._layer, Convolution) and tap_products.suits(self._layer, source, target)

    def _overhangs(self, source: Descriptor, target: Descriptor) -> bool:
        return self._layer.window.overhangs(source.dims[2:], target.dims[2:])

    def _weight(self, operation: Operation) -> Tensor:
        """The weight in an operation's layout."""
        return self.plan.weight(
            self._parameters["weight"], self._dims, operation.layout(WEIGHTS), self._strides
        )

    def _channels_last(self, dims: Shape) -> Descriptor:
        letters = "abcde"[: len(dims)]
        return self.plan.api.tagged(dims, f"a{letters[2:]}b", self.plan.dtype)

    def _prepare_forward(self, source: Descriptor, target: Descriptor) -> Operation:
        plan, layer = self.plan, self._layer
        attr = None
        if self._activation is not None:
            attr = plan.api.attribute_of(activation_post_op(self._activation))
        return self._make(
            plan.api,
            source,
            plan.any(self._dims),
            self._bias,
            target,
            layer.stride,
            layer.padding,
            layer.dilation,
            training=plan.training,
            attr=attr,
        )

    def _prepare(self, source: Descriptor, target: Descriptor) -> tuple[Operation, Operation | None]:
        """The forward pass and the weights' gradient, whose layouts of x and y are the same."""
        forward = fast(self._prepare_forward(source, target))
        if not self.plan.training or self._by_products:
            return forward, None
        weights = self.plan.api.any(self._dims, F32)
        arguments = (forward, forward.layout(SRC), weights, self._bias, forward.layout(DST))
        backward = fast(dnnl.convolution_backward_weights(*arguments))
        if self._overhangs(source, target) and "gemm" not in backward.implementation:
            # oneDNN 3.2's other kernels leave uninitialized memory for some of such a window's weights.
            raise Unimplemented("windows wider than the image")
        return forward, backward

    def _prepare_backward_data(self, source: Descriptor, target: Descriptor) -> Operation:
        forward = self._prepare_forward(source, target)
        return fast(dnnl.convolution_backward_data(forward, source, self.plan.any(self._dims), target))

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        plan = self.plan
        grad_y = plan.to(grads[0], self._target)
        if self._activation is not None:
            grad_y = activation_backward(plan, self._activation, self.outputs[0], self.outputs[0], grad_y)
        self._emit_weight_gradient(grad_y)
        if not needed[0] or self._backward_data is None:
            return [None]
        operation = self._backward_data
        weight = self._weight(operation)
        grad_x = plan.tensor(operation.layout(DIFF_SRC))
        grad_y = plan.to(grad_y, operation.layout(DIFF_DST))
        plan.run(operation, {DIFF_DST: grad_y, WEIGHTS: weight, DIFF_SRC: grad_x})
        return [grad_x]

    def _emit_weight_gradient(self, grad_y: Tensor) -> None:
        plan, operation, gradient = self.plan, self._backward_weights, self._gradients["weight"]
        if operation is None:
            assert isinstance(self._layer, Convolution)
            tap_products.weight_gradient(plan, self._layer, self._x, grad_y, gradient, self._gradients.get("bias"))
            return
        found = plan.weight_gradient(gradient, self._dims, operation.layout(DIFF_WEIGHTS))
        bias = bias_argument(DIFF_BIAS, self._gradients)
        plan.run(operation, {SRC: self._x, DIFF_DST: grad_y, DIFF_WEIGHTS: found, **bias})
        plan.store(found, gradient, self._dims)


class TransposedConvolutionStage(ConvolutionStage):
    """activation(transposed conv(x) + bias): what is the gradient for the input of a convolution from y to x.

    Raises:
        Unimplemented: oneDNN has no kernel for it but its reference.
    """

    _make: ClassVar[Callable[..., Operation]] = staticmethod(dnnl.deconvolution)

    def _seen(self) -> tuple[Shape, Shape | None]:
        # The parameter is (in, out / groups, *kernel), as of the convolution; kernels want (groups, out, in, *kernel).
        inputs, outputs, *kernel = self._parameters["weight"].shape
        groups, taps = self._layer.groups, math.prod(kernel)
        inside = tuple(math.prod(kernel[axis + 1 :]) for axis in range(len(kernel)))
        dims, strides = (outputs, inputs // groups, *kernel), (taps, outputs * taps, *inside)
        if groups == 1:
            return dims, strides
        return (groups, *dims), (inputs // groups * outputs * taps, *strides)

    def _prepare_forward(self, source: Descriptor, target: Descriptor) -> Operation:
        layer = self._layer
        assert isinstance(layer, TransposedConvolution)
        if any(e - p >= s for e, p, s in zip(layer.output_padding, layer.padding, layer.stride, strict=True)):
            raise Unimplemented("a stride or more of the output that no window reaches")
        return super()._prepare_forward(source, target)

    def _suits_products(self, source: Shape, target: Shape) -> bool:
        return False

    def _overhangs(self, source: Descriptor, target: Descriptor) -> bool:
        return super()._overhangs(target, source)

    def _emit_weight_gradient(self, grad_y: Tensor) -> None:
        plan, operation = self.plan, self._backward_weights
        assert operation is not None
        found = plan.tensor(operation.layout(DIFF_WEIGHTS))
        bias = bias_argument(DIFF_BIAS, self._gradients)
        plan.run(operation, {SRC: self._x, DIFF_DST: grad_y, DIFF_WEIGHTS: found, **bias})
        place = Layout(plan.api.strided(self._dims, self._strides))
        plan.reorder(found, Tensor(self._gradients["weight"], place))


def first_of(choices: Sequence[tuple[Descriptor, Descriptor]], prepare: Callable[[Descriptor, Descriptor], T]) -> T:
    """What `prepare` makes of the first choice that it has kernels for. Raises Unimplemented if there is none."""
    for choice in choices[:-1]:
        with suppress(Unimplemented):
            return prepare(*choice)
    return prepare(*choices[-1])


def fast(operation: Operation) -> Operation:
    """The operation. Raises Unimplemented if only the library's reference implementation, many times slower, has it."""
    if "ref" in operation.implementation:
        raise Unimplemented(f"{operation.kind} has no kernel for these arguments")
    return operation


def bias_argument(argument: int, values: Arrayed) -> dict[int, Tensor]:
    """The bias, or its gradient, as an argument where there is one."""
    return {argument: vector(values["bias"])} if "bias" in values else {}
