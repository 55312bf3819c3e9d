"""Group and instance normalization, as layer normalization of the groups."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from compute import nn
from compute.engines import dnnl
from compute.engines.blocked.plan import BlockedPlan
from compute.engines.dnnl import Unimplemented
from compute.engines.dnnl.constants import DIFF_DST, DIFF_SRC, DST, MEAN, SRC, SRC_1, VARIANCE, Binary, Reduction
from compute.engines.staged import Stage
from compute.engines.tensor import ROWS, Tensor
from compute.graph import Node
from compute.nn.group_norm import InstanceNorm
from compute.nn.layer import Array


class GroupNormStage(Stage):
    """Rows (n * groups, elements of a group) standardized by a kernel, then scaled and shifted per channel.

    Raises:
        Unimplemented: running statistics are kept, or a row has one element only.
    """

    plan: BlockedPlan

    def __init__(self, plan: BlockedPlan, nodes: Sequence[Node], x: Tensor) -> None:
        super().__init__(plan, nodes)
        layer = nodes[0].layer
        assert isinstance(layer, nn.GroupNorm | InstanceNorm)
        if isinstance(layer, InstanceNorm) and layer.track_running_stats:
            raise Unimplemented("instance normalization with running statistics is left to the formulas")
        self._shape = n, channels, *size = plan.shape(nodes[0].sources[0])
        rows = n * (layer.num_groups if isinstance(layer, nn.GroupNorm) else channels)
        columns = math.prod(self._shape) // rows
        if columns < 2:
            raise Unimplemented("one element has no variance")
        self._parameters, self._gradients = plan.parameters(nodes[0]), plan.gradients(nodes[0])
        self._spread = (n, channels, math.prod(size))
        self._rows = plan.plain((rows, columns))
        self._statistics = plan.api.strided((rows,))
        self._forward = dnnl.layer_normalization(
            plan.api, self._rows, self._rows, self._statistics, layer.eps, 0, plan.training
        )
        self._x = self._as_rows(x)
        y = self._normalized = plan.tensor(self._rows)
        self._moments: dict[int, Tensor] = {}
        if plan.training:
            self._moments = {MEAN: plan.rows((rows,)), VARIANCE: plan.rows((rows,))}
        plan.run(self._forward, {SRC: self._x, DST: y, **self._moments})
        if self._parameters:
            # What is standardized is needed for the weight's gradient.
            y = plan.tensor(self._rows) if plan.training else y
            self._per_channel(Binary.MUL, self._normalized, self._parameters["weight"], y)
            self._per_channel(Binary.ADD, y, self._parameters["bias"], y)
        self.outputs = (plan.reshaped(y, self._shape),)

    def _as_rows(self, tensor: Tensor) -> Tensor:
        plan = self.plan
        tensor = plan.to(plan.typed(tensor), plan.plain(self._shape))
        return plan.reshaped(tensor, self._rows.dims)

    def _per_channel(self, function: Binary, x: Tensor, factors: Array, y: Tensor) -> None:
        """Emits y = function(x, factors), factors (channels,)."""
        plan = self.plan
        spread, factors = plan.plain(self._spread), factors.reshape(1, -1, 1)
        operation = dnnl.binary(plan.api, function, spread, plan.api.strided(factors.shape), spread)
        arguments = {SRC: plan.reshaped(x, self._spread), DST: plan.reshaped(y, self._spread)}
        plan.run(operation, {**arguments, SRC_1: Tensor(factors)})

    def _channel_sums(self, x: Tensor, target: Array) -> None:
        """Emits the sums of x over samples and positions."""
        plan = self.plan
        n, channels, size = self._spread
        x = plan.reshaped(x, self._spread)
        if size == 1:
            parts = plan.convert(x, ROWS)
        else:
            parts = plan.rows((n, channels, 1))
            operation = dnnl.reduction(plan.api, Reduction.SUM, plan.plain(self._spread), plan.describe(parts))
            plan.run(operation, {SRC: x, DST: parts})
        array = parts.array.reshape(n, channels)

        def add() -> None:
            np.sum(array, axis=0, out=target)

        plan.emit(add, uses=(parts.array,))

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        plan, rows = self.plan, self._rows
        grad = self._as_rows(grads[0])
        if self._parameters:
            product = plan.tensor(rows)
            operation = dnnl.binary(plan.api, Binary.MUL, rows, rows, rows)
            plan.run(operation, {SRC: self._normalized, SRC_1: grad, DST: product})
            self._channel_sums(product, self._gradients["weight"])
            self._channel_sums(grad, self._gradients["bias"])
            self._per_channel(Binary.MUL, grad, self._parameters["weight"], product)
            grad = product
        if not needed[0]:
            return [None]
        operation = dnnl.layer_normalization_backward(self._forward, rows, rows, rows, self._statistics)
        grad_x = plan.tensor(rows)
        plan.run(operation, {SRC: self._x, DIFF_DST: grad, DIFF_SRC: grad_x, **self._moments})
        return [plan.reshaped(grad_x, self._shape)]
