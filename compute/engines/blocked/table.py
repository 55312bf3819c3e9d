"""Sums and concatenations of values of one shape or rank."""

from __future__ import annotations

from collections.abc import Sequence

from compute import nn
from compute.engines import dnnl
from compute.engines.blocked.activation import activation_backward, activation_post_op
from compute.engines.blocked.plan import BlockedPlan
from compute.engines.dnnl import Unimplemented
from compute.engines.dnnl.constants import DST, MULTIPLE_SRC, SRC, SRC_1, Binary
from compute.engines.staged import Stage
from compute.engines.tensor import ROWS, Tensor
from compute.graph import Node
from compute.nn.dims import axis_of


def common_layout(plan: BlockedPlan, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The tensors, all in the same order as the first that has one of oneDNN's own, as far as that has a name."""
    chosen = next((plan.describe(x) for x in inputs if x.layout != ROWS), None)
    if chosen is None:
        return [plan.typed(x) for x in inputs]
    try:
        return [plan.to(x, plan.reordered(plan.describe(x).dims, chosen)) for x in inputs]
    except Unimplemented:
        return [plan.to(x, plan.plain(plan.describe(x).dims)) for x in inputs]


class SumStage(Stage):
    """[ReLU of] the sum of values of one shape, in the layout of one of them.

    Raises:
        Unimplemented: shapes differ.
    """

    plan: BlockedPlan

    def __init__(self, plan: BlockedPlan, nodes: Sequence[Node], inputs: Sequence[Tensor]) -> None:
        super().__init__(plan, nodes)
        if len({plan.shape(source) for source in nodes[0].sources}) > 1 or len(inputs) < 2:
            raise Unimplemented("sums that broadcast")
        self._activation = nodes[1].layer if len(nodes) > 1 else None
        parts = common_layout(plan, inputs)
        data = plan.describe(parts[0])
        y, total = plan.tensor(data), parts[0]
        for index, part in enumerate(parts[1:], start=1):
            last = index == len(parts) - 1 and self._activation is not None
            attr = plan.api.attribute_of(activation_post_op(nodes[1].layer)) if last else None
            operation = dnnl.binary(plan.api, Binary.ADD, data, data, data, attr=attr)
            plan.run(operation, {SRC: total, SRC_1: part, DST: y})
            total = y
        self.outputs = (y,)

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        plan, y = self.plan, self.outputs[0]
        grad = plan.to(grads[0], plan.describe(y))
        if self._activation is not None:
            grad = activation_backward(plan, self._activation, y, y, grad)
        if sum(needed) > 1:
            grad = Tensor(grad.array, grad.layout, shared=True)
        return [grad if wanted else None for wanted in needed]


class ConcatStage(Stage):
    """Values one behind the other along a dimension."""

    plan: BlockedPlan

    def __init__(self, plan: BlockedPlan, nodes: Sequence[Node], inputs: Sequence[Tensor]) -> None:
        super().__init__(plan, nodes)
        layer = nodes[0].layer
        assert isinstance(layer, nn.JoinTable)
        dims = plan.shape(nodes[0].outputs[0])
        self._axis = axis_of(layer.dim, len(dims) - 1)
        self._parts = common_layout(plan, inputs)
        described = [plan.describe(part) for part in self._parts]
        operation = dnnl.concat(plan.api, described, plan.any(dims), self._axis)
        y = plan.tensor(operation.layout(DST))
        plan.run(operation, {**{MULTIPLE_SRC + i: part for i, part in enumerate(self._parts)}, DST: y})
        self.outputs = (y,)

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        plan = self.plan
        grad = plan.to(grads[0], plan.describe(self.outputs[0]))
        whole = plan.describe(grad)
        found: list[Tensor | None] = []
        start = [0] * len(whole.dims)
        for part, wanted in zip(self._parts, needed, strict=True):
            described = plan.describe(part)
            if wanted:
                found.append(plan.tensor(described))
                plan.extract(grad, whole.part(described.dims, start), found[-1])
            else:
                found.append(None)
            start[self._axis] += described.dims[self._axis]
        return found
