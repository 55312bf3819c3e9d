"""Dropout in any layout."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
        self._context = LayerContext(nodes[0].index, plan.current, (True,), {})
        dims = plan.shape(nodes[0].outputs[0])
        self._x = x
        plain = plan.api.strided(dims, dtype=U8)
        drawn = plan.tensor(plain)
        self._drawn = drawn.array.view(np.bool_)
        plan.emit(self._draw, uses=(drawn.array,))
        self._mask = drawn
        if x.layout != ROWS:
            self._mask = plan.tensor(plan.retyped(plan.describe(x), U8))
            plan.reorder(drawn, self._mask)
        y = plan.tensor(plan.describe(x))
        self._multiply(x, y)
        self.outputs = (y,)

    @property
    def _is_identity(self) -> bool:
        return not self.plan.training or self._p == 0

    def _draw(self) -> None:
        np.copyto(self._drawn, keep_mask(self._context.stream(), math.prod(self._drawn.shape), self._p))

    def _multiply(self, x: Tensor, y: Tensor) -> None:
        data, mask = self.plan.describe(x), self.plan.describe(self._mask)
        # Not merged into the mask: a multiplication by 0 or 1 is exact, so that the result is that of the formula.
        attr = self.plan.api.attribute_of(EltwisePostOp(Eltwise.LINEAR, float(keep_scale(self._p)), 0.0))
        operation = dnnl.binary(self.plan.api, Binary.MUL, data, mask, data, attr=attr)
        self.plan.run(operation, {SRC: x, SRC_1: self._mask, DST: y})

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        if self._is_identity:
            return [grads[0]]
        grad_y = self.plan.to(grads[0], self.plan.describe(self._x))
        grad_x = self.plan.overwritable(grad_y)
        self._multiply(grad_y, grad_x)
        return [grad_x]


