"""Layers that keep the memory and change its shape."""

from __future__ import annotations

from collections.abc import Sequence

from compute.engines.blocked.plan import BlockedPlan
from compute.engines.staged import Stage
from compute.engines.tensor import Tensor
from compute.graph import Node


class ReshapeStage(Stage):
    """The same memory under another shape, in row-major order."""

    plan: BlockedPlan

    def __init__(self, plan: BlockedPlan, nodes: Sequence[Node], x: Tensor) -> None:
        super().__init__(plan, nodes)
        self.outputs = (plan.reshaped(x, plan.shape(nodes[0].outputs[0])),)

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        return [self.plan.reshaped(grads[0], self.plan.shape(self.nodes[0].sources[0]))]
