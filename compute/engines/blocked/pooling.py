"""Maximum and average pooling of any rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from compute import nn
from compute.engines import dnnl
from compute.engines.blocked.plan import BlockedPlan, workspace_of
from compute.engines.dnnl import Unimplemented
from compute.engines.dnnl.constants import DIFF_DST, DIFF_SRC, DST, SRC, Pooling
from compute.engines.staged import Stage
from compute.engines.tensor import Tensor
from compute.graph import Node
from compute.nn.adaptive_pooling import AdaptiveAvgPool, AdaptiveMaxPool
from compute.nn.pooling import AvgPool, MaxPool
from compute.spec import Shape


class Window(NamedTuple):
    """What is pooled how."""

    algorithm: Pooling
    kernel: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]


class PoolingStage(Stage):
    """Pooling in the layout of its input.

    Raises:
        Unimplemented: oneDNN's average is not the layer's.
    """

    plan: BlockedPlan

    def __init__(self, plan: BlockedPlan, nodes: Sequence[Node], x: Tensor) -> None:
        super().__init__(plan, nodes)
        window = window_of(nodes[0].layer, nodes[0].input_shape, nodes[0].output_shape)
        # Beside rows of channels kernels have nothing for the vector registers.
        self._x = plan.typed(x)
        data = plan.describe(self._x)
        target = plan.any(plan.shape(nodes[0].outputs[0]))
        self._forward = dnnl.pooling(plan.api, window.algorithm, data, target, *window[1:], training=plan.training)
        y = plan.tensor(self._forward.layout(DST))
        self._workspace = workspace_of(plan, self._forward)
        plan.run(self._forward, {SRC: self._x, DST: y, **self._workspace})
        self.outputs = (y,)

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        plan, target = self.plan, self._forward.layout(DST)
        operation = dnnl.pooling_backward(self._forward, plan.describe(self._x), target)
        grad_y, grad_x = plan.to(grads[0], target), plan.tensor(plan.describe(self._x))
        plan.run(operation, {DIFF_DST: grad_y, DIFF_SRC: grad_x, **self._workspace})
        return [grad_x]


def window_of(layer: nn.Module, source: Shape, target: Shape) -> Window:
    """The window of a pooling layer. Raises Unimplemented if its average is not one of oneDNN's."""
    rank = len(source) - 1
    match layer:
        case MaxPool():
            return Window(Pooling.MAX, layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        case AvgPool():
            padded = layer.count_include_pad and any(layer.padding)
            # A last window that reaches beyond the padding has fewer elements, which oneDNN counts nevertheless.
            inside = all(
                (out - 1) * stride + kernel <= size + 2 * padding
                for size, out, kernel, stride, padding in zip(
                    source[1:], target[1:], layer.kernel_size, layer.stride, layer.padding, strict=True
                )
            )
            if (padded and not inside) or layer.divisor_override not in (None, math.prod(layer.kernel_size)):
                raise Unimplemented("oneDNN's averages divide by other numbers")
            if layer.divisor_override is not None and not inside:
                raise Unimplemented("oneDNN's averages divide by other numbers")
            counts_all = padded or layer.divisor_override is not None
            algorithm = Pooling.AVERAGE_INCLUDE_PADDING if counts_all else Pooling.AVERAGE_EXCLUDE_PADDING
            return Window(algorithm, layer.kernel_size, layer.stride, layer.padding, (1,) * rank)
        case AdaptiveAvgPool() | AdaptiveMaxPool():
            if any(size % out for size, out in zip(source[1:], target[1:], strict=True)):
                raise Unimplemented("oneDNN's windows all have one size")
            kernel = tuple(size // out for size, out in zip(source[1:], target[1:], strict=True))
            maximum = isinstance(layer, AdaptiveMaxPool)
            algorithm = Pooling.MAX if maximum else Pooling.AVERAGE_EXCLUDE_PADDING
            return Window(algorithm, kernel, kernel, (0,) * rank, (1,) * rank)
        case _:
            raise Unimplemented(f"{layer.kind} is no pooling")
