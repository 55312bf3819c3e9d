"""Dropout in any layout, by itself and as a part of other stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from compute import nn
from compute.engines import dnnl
from compute.engines.blocked.plan import BlockedPlan
from compute.engines.dnnl import EltwisePostOp
from compute.engines.dnnl.constants import DST, SRC, SRC_1, U8, Binary, Eltwise
from compute.engines.staged import Stage
from compute.engines.tensor import ROWS, Tensor
from compute.graph import Node
from compute.nn.dropout import keep_mask, keep_scale
from compute.nn.layer import LayerContext
from compute.philox import Stream
from compute.spec import Shape


class DropoutStage(Stage):
    """y = x * mask * scale. The mask is drawn in row-major order, a byte an element, then brought into x's layout."""

    plan: BlockedPlan

    def __init__(self, plan: BlockedPlan, nodes: Sequence[Node], x: Tensor) -> None:
        super().__init__(plan, nodes)
        layer = nodes[0].layer
        assert isinstance(layer, nn.Dropout)
        self._p = layer.p
        self.outputs = (x,)
        if self._is_identity:
            return
        self._x = x
        self._mask = drawn_mask(plan, stream_of(plan, nodes[0]), self._p, plan.shape(nodes[0].outputs[0]))
        if x.layout != ROWS:
            self._mask = plan.to(self._mask, plan.retyped(plan.describe(x), U8))
        y = plan.tensor(plan.describe(x))
        drop(plan, x, self._mask, self._p, y)
        self.outputs = (y,)

    @property
    def _is_identity(self) -> bool:
        return not self.plan.training or self._p == 0

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        if self._is_identity:
            return [grads[0]]
        grad_y = self.plan.to(grads[0], self.plan.describe(self._x))
        grad_x = self.plan.overwritable(grad_y)
        drop(self.plan, grad_y, self._mask, self._p, grad_x)
        return [grad_x]


def stream_of(plan: BlockedPlan, node: Node) -> Callable[[], Stream]:
    """What gives a layer's random numbers of the pass that the plan is in."""
    return LayerContext(node.index, plan.current, (True,), {}).stream


def drawn_mask(plan: BlockedPlan, stream: Callable[[], Stream], p: float, dims: Shape) -> Tensor:
    """Emits the drawing of a mask of 0 with probability p and 1, a byte an element, row-major."""
    mask = plan.tensor(plan.api.strided(dims, dtype=U8))
    flags = mask.array.view(np.bool_)

    def draw() -> None:
        keep_mask(stream(), flags.size, p, flags)

    plan.emit(draw, uses=(flags,))
    return mask


def drop(plan: BlockedPlan, x: Tensor, mask: Tensor, p: float, y: Tensor) -> None:
    """Emits y = x * mask / (1 - p); y may be x."""
    data = plan.describe(x)
    # Not merged into the mask: a multiplication by 0 or 1 is exact, so that the result is that of the formula.
    attr = plan.api.attribute_of(EltwisePostOp(Eltwise.LINEAR, float(keep_scale(p)), 0.0))
    operation = dnnl.binary(plan.api, Binary.MUL, data, plan.describe(mask), data, attr=attr)
    plan.run(operation, {SRC: x, SRC_1: mask, DST: y})
