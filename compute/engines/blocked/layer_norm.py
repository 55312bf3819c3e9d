"""Layer normalization over the last dimension."""

from __future__ import annotations

from collections.abc import Sequence

from compute import nn
from compute.engines import dnnl
from compute.engines.blocked.plan import BlockedPlan, vector
from compute.engines.dnnl.constants import (
    DIFF_DST,
    DIFF_SCALE,
    DIFF_SHIFT,
    DIFF_SRC,
    DST,
    MEAN,
    SCALE,
    SHIFT,
    SRC,
    USE_SCALE,
    USE_SHIFT,
    VARIANCE,
)
from compute.engines.staged import Stage
from compute.engines.tensor import Tensor
from compute.graph import Node
from compute.nn.layer import Arrayed


class LayerNormStage(Stage):
    """Layer normalization of rows."""

    plan: BlockedPlan

    def __init__(self, plan: BlockedPlan, nodes: Sequence[Node], x: Tensor) -> None:
        super().__init__(plan, nodes)
        layer = nodes[0].layer
        assert isinstance(layer, nn.LayerNorm)
        parameters, self._gradients = plan.parameters(nodes[0]), plan.gradients(nodes[0])
        self._shape = plan.shape(nodes[0].outputs[0])
        rows = plan.rows_of(self._shape)
        self._data = plan.plain((rows, self._shape[-1]))
        self._statistics = plan.api.strided((rows,))
        flags = (USE_SCALE if "weight" in parameters else 0) | (USE_SHIFT if "bias" in parameters else 0)
        self._forward = dnnl.layer_normalization(
            plan.api, self._data, self._data, self._statistics, layer.eps, flags, plan.training
        )
        self._x = plan.to(plan.reshaped(plan.typed(x), self._data.dims), self._data)
        y = plan.tensor(self._data)
        self._affine = _arguments(parameters, SCALE, SHIFT)
        self._moments: dict[int, Tensor] = {}
        if plan.training:
            self._moments = {MEAN: plan.rows((rows,)), VARIANCE: plan.rows((rows,))}
        plan.run(self._forward, {SRC: self._x, DST: y, **self._affine, **self._moments})
        self.outputs = (plan.reshaped(y, self._shape),)

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        plan, data = self.plan, self._data
        operation = dnnl.layer_normalization_backward(self._forward, data, data, data, self._statistics)
        grad_y = plan.to(plan.reshaped(grads[0], data.dims), data)
        grad_x = plan.tensor(data)
        found = _arguments(self._gradients, DIFF_SCALE, DIFF_SHIFT)
        arguments = {SRC: self._x, DIFF_DST: grad_y, DIFF_SRC: grad_x, **self._affine, **self._moments, **found}
        plan.run(operation, arguments)
        return [plan.reshaped(grad_x, self._shape)]


def _arguments(values: Arrayed, scale: int, shift: int) -> dict[int, Tensor]:
    """The layer's weight and bias, or their gradients, as far as it has them."""
    names = {"weight": scale, "bias": shift}
    return {argument: vector(values[name]) for name, argument in names.items() if name in values}
