"""Products of rows with a weight, and their gradients, with the kernels that are fastest for them (docs/kernels.md)."""

from __future__ import annotations

from compute.engines import dnnl
from compute.engines.blocked.plan import BlockedPlan, vector
from compute.engines.dnnl import Descriptor
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
    DataType,
)
from compute.engines.dnnl.post_ops import PostOp
from compute.engines.tensor import Tensor
from compute.nn.layer import Array

FEW_ROWS = 64
"""Below, float32 kernels take the weights as they are: reading them to copy them costs more than it gains."""


class LinearMap:
    """x (rows, in) @ weight.T + bias (out,), x and gradients row-major in the plan's type, the weight (out, in).

    Args:
        bias: whether there is one.
        dtype: of the result.
        post_ops: on the result.
    """

    def __init__(
        self,
        plan: BlockedPlan,
        weight: Array,
        rows: int,
        bias: bool = False,
        dtype: DataType = F32,
        post_ops: tuple[PostOp, ...] = (),
    ) -> None:
        self.plan, self._weight = plan, weight
        self._dims = outputs, inputs = weight.shape
        self.source = plan.plain((rows, inputs))
        self.target = plan.api.strided((rows, outputs), dtype=dtype)
        self._grad = plan.plain((rows, outputs))
        self._bias: Descriptor | None = plan.api.strided((outputs,)) if bias else None
        # bfloat16 products are as fast on a plain copy.
        wanted = plan.dtype == F32 and rows >= FEW_ROWS
        self._forward = dnnl.inner_product(
            plan.api,
            self.source,
            plan.any(self._dims) if wanted else plan.plain(self._dims),
            self._bias,
            self.target,
            plan.training,
            attr=plan.api.attribute_of(*post_ops),
        )

    def forward(self, x: Tensor, y: Tensor, bias: Array | None = None) -> None:
        """Emits y = x @ weight.T + bias."""
        plan = self.plan
        weight = plan.weight(self._weight, self._dims, self._forward.layout(WEIGHTS))
        arguments = {SRC: x, WEIGHTS: weight, DST: y}
        if bias is not None:
            arguments[BIAS] = vector(bias)
        plan.run(self._forward, arguments)

    def backward_weight(self, x: Tensor, grad_y: Tensor, gradient: Array, bias: Array | None = None) -> None:
        """Emits the gradients of the weight and of the bias to where they belong."""
        plan = self.plan
        wanted = plan.api.strided(self._dims)
        operation = dnnl.inner_product_backward_weights(self._forward, self.source, wanted, self._bias, self._grad)
        arguments = {SRC: x, DIFF_DST: grad_y, DIFF_WEIGHTS: Tensor(gradient)}
        if bias is not None:
            arguments[DIFF_BIAS] = vector(bias)
        plan.run(operation, arguments)

    def backward_data(self, grad_y: Tensor, grad_x: Tensor) -> None:
        """Emits grad_x = grad_y @ weight; grad_x is dense, of any type."""
        plan, source = self.plan, plan_rows(self.plan, grad_x, self.source)
        if plan.dtype == F32:
            operation = dnnl.inner_product_backward_data(self._forward, source, plan.plain(self._dims), self._grad)
            weight = plan.weight(self._weight, self._dims, operation.layout(WEIGHTS))
            plan.run(operation, {DIFF_DST: grad_y, WEIGHTS: weight, DIFF_SRC: grad_x})
            return
        # A product of its own: the kernels for this gradient are slower.
        operation = dnnl.matmul(plan.api, self._grad, plan.any(self._dims), None, source)
        weight = plan.weight(self._weight, self._dims, operation.layout(WEIGHTS))
        plan.run(operation, {SRC: grad_y, WEIGHTS: weight, DST: grad_x})


def plan_rows(plan: BlockedPlan, tensor: Tensor, like: Descriptor) -> Descriptor:
    """The descriptor of dense rows in a tensor's type."""
    return plan.api.strided(like.dims, dtype=plan.describe(tensor).dtype)
