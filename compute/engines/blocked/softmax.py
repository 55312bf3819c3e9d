"""Softmax over the last dimension."""

from __future__ import annotations

from collections.abc import Sequence

from compute.engines import dnnl
from compute.engines.blocked.plan import BlockedPlan
from compute.engines.dnnl.constants import DIFF_DST, DIFF_SRC, DST, SRC
from compute.engines.staged import Stage
from compute.engines.tensor import Tensor
from compute.graph import Node


class SoftmaxStage(Stage):
    """exp(x) / sum of exp(x) over the last dimension, in row-major order."""

    plan: BlockedPlan

    def __init__(self, plan: BlockedPlan, nodes: Sequence[Node], x: Tensor) -> None:
        super().__init__(plan, nodes)
        self._data = plan.plain(plan.shape(nodes[0].outputs[0]))
        self._forward = dnnl.softmax(plan.api, self._data, self._data, len(self._data.dims) - 1, training=plan.training)
        y = plan.tensor(self._data)
        plan.run(self._forward, {SRC: plan.to(x, self._data), DST: y})
        self.outputs = (y,)

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        plan, data = self.plan, self._data
        operation = dnnl.softmax_backward(self._forward, data, data, data)
        grad_x = plan.tensor(data)
        plan.run(operation, {DST: self.outputs[0], DIFF_DST: plan.to(grads[0], data), DIFF_SRC: grad_x})
        return [grad_x]
