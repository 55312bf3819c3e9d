"""Local response normalization across channels."""

from __future__ import annotations

from collections.abc import Sequence

from compute import nn
from compute.engines import dnnl
from compute.engines.blocked.convolution import fast
from compute.engines.blocked.plan import BlockedPlan, workspace_of
from compute.engines.dnnl.constants import DIFF_DST, DIFF_SRC, DST, SRC
from compute.engines.staged import Stage
from compute.engines.tensor import Tensor
from compute.graph import Node


class LocalResponseNormStage(Stage):
    """Local response normalization in the layout of its input.

    Raises:
        Unimplemented: oneDNN has no kernel for it but its reference.
    """

    plan: BlockedPlan

    def __init__(self, plan: BlockedPlan, nodes: Sequence[Node], x: Tensor) -> None:
        super().__init__(plan, nodes)
        layer = nodes[0].layer
        assert isinstance(layer, nn.LocalResponseNorm)
        self._x = plan.typed(x)
        data = plan.describe(self._x)
        self._forward = fast(
            dnnl.local_response_normalization(
                plan.api, data, data, layer.size, layer.alpha, layer.beta, layer.k, training=plan.training
            )
        )
        if plan.training:
            self._backward = fast(dnnl.local_response_normalization_backward(self._forward, data, data, data))
        y = plan.tensor(data)
        self._workspace = workspace_of(plan, self._forward)
        plan.run(self._forward, {SRC: self._x, DST: y, **self._workspace})
        self.outputs = (y,)

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        plan, data = self.plan, self.plan.describe(self._x)
        grad_y, grad_x = plan.to(grads[0], data), plan.tensor(data)
        plan.run(self._backward, {SRC: self._x, DIFF_DST: grad_y, DIFF_SRC: grad_x, **self._workspace})
        return [grad_x]
