"""Scaled dot-product attention as batched products and a softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from compute import nn
from compute.engines import dnnl
from compute.engines.blocked.dropout import drawn_mask, drop, stream_of
from compute.engines.blocked.layout import Layout
from compute.engines.blocked.plan import BlockedPlan
from compute.engines.dnnl import Descriptor, EltwisePostOp, Unimplemented
from compute.engines.dnnl.constants import (
    DIFF_DST,
    DIFF_SRC,
    DST,
    SRC,
    SRC_1,
    WEIGHTS,
    Binary,
    Eltwise,
)
from compute.engines.staged import Stage
from compute.engines.tensor import Tensor
from compute.graph import Node

NEVER = -1e30
"""Added to scores of keys that are ignored: finite, since oneDNN's softmax of infinities is not a number."""


class AttentionStage(Stage):
    """softmax(Q K^T / sqrt(d)) V for each head, with the causal mask and dropout.

    Heads are parts of the last dimension, so that (n, heads, times, d) is a matter of strides.

    Raises:
        Unimplemented: masks are given, or the weights are wanted.
    """

    plan: BlockedPlan

    def __init__(self, plan: BlockedPlan, nodes: Sequence[Node], inputs: Sequence[Tensor]) -> None:
        super().__init__(plan, nodes)
        layer = nodes[0].layer
        assert isinstance(layer, nn.ScaledDotProductAttention)
        if len(inputs) > 3 or layer.return_weights:
            raise Unimplemented("masks of attention are left to the formulas")
        self._layer = layer
        self._q, self._k, self._v = (self._row_major(x) for x in inputs)
        n, queries, size = plan.describe(self._q).dims
        keys = plan.describe(self._k).dims[1]
        self._scale = 1 / math.sqrt(size // layer.num_heads)
        self._data = plan.plain((n, layer.num_heads, queries, keys))
        self._weights = self._softmax()
        self._kept = self._weights
        if plan.training and layer.dropout:
            self._mask = drawn_mask(plan, stream_of(plan, nodes[0]), layer.dropout, self._data.dims)
            self._kept = plan.tensor(self._data)
            drop(plan, self._weights, self._mask, layer.dropout, self._kept)
        y = plan.tensor(plan.plain(plan.shape(nodes[0].outputs[0])))
        self._product((self._kept, self._data), self._heads(self._v), self._heads(y))
        self.outputs = (y,)

    def _row_major(self, x: Tensor) -> Tensor:
        return self.plan.to(x, self.plan.plain(self.plan.describe(x).dims))

    def _heads(self, x: Tensor, transposed: bool = False) -> tuple[Tensor, Descriptor]:
        """(n, times, heads * d) seen as (n, heads, times, d), or (n, heads, d, times)."""
        described = self.plan.describe(x)
        n, times, size = described.dims
        heads = self._layer.num_heads
        width = size // heads
        dims, strides = (n, heads, times, width), (times * size, width, size, 1)
        if transposed:
            dims, strides = (n, heads, width, times), (times * size, width, 1, size)
        return x, self.plan.api.strided(dims, strides, described.dtype)

    def _turned(self, x: Tensor) -> tuple[Tensor, Descriptor]:
        """(n, heads, queries, keys) seen as (n, heads, keys, queries)."""
        n, heads, queries, keys = self._data.dims
        strides = (heads * queries * keys, queries * keys, 1, keys)
        return x, self.plan.api.strided((n, heads, keys, queries), strides, self.plan.dtype)

    def _product(
        self,
        left: tuple[Tensor, Descriptor],
        right: tuple[Tensor, Descriptor],
        result: tuple[Tensor, Descriptor],
        scaled: bool = False,
    ) -> None:
        """result = left @ right [* scale] for each sample and head."""
        plan = self.plan
        attr = plan.api.attribute_of(EltwisePostOp(Eltwise.LINEAR, self._scale, 0.0)) if scaled else None
        operation = dnnl.matmul(plan.api, left[1], right[1], None, result[1], attr=attr)
        seen = {SRC: left, WEIGHTS: right, DST: result}
        tensors = {argument: Tensor(x.array, Layout(described)) for argument, (x, described) in seen.items()}
        plan.run(operation, tensors)

    def _softmax(self) -> Tensor:
        plan = self.plan
        queries, keys = self._data.dims[2:]
        scores = plan.tensor(self._data)
        self._product(self._heads(self._q), self._heads(self._k, transposed=True), (scores, self._data), True)
        if self._layer.causal:
            array = plan.empty((1, 1, queries, keys))
            array[...] = np.where(np.arange(keys) > np.arange(queries)[:, None], np.float32(NEVER), np.float32(0))
            ignored = Tensor(array)
            data = self._data
            plan.run(
                dnnl.binary(plan.api, Binary.ADD, data, plan.describe(ignored), data),
                {SRC: scores, SRC_1: ignored, DST: scores},
            )
        self._normalize = dnnl.softmax(plan.api, self._data, self._data, 3, training=plan.training)
        plan.run(self._normalize, {SRC: scores, DST: scores})
        return scores

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        plan, data = self.plan, self._data
        grad_y = self._row_major(grads[0])
        grad_q, grad_k, grad_v = (plan.like(x) for x in (self._q, self._k, self._v))
        self._product(self._turned(self._kept), self._heads(grad_y), self._heads(grad_v))
        grad = plan.tensor(data)
        self._product(self._heads(grad_y), self._heads(self._v, transposed=True), (grad, data))
        if self._kept is not self._weights:
            drop(plan, grad, self._mask, self._layer.dropout, grad)
        operation = dnnl.softmax_backward(self._normalize, data, data, data)
        grad_scores = plan.tensor(data)
        plan.run(operation, {DST: self._weights, DIFF_DST: grad, DIFF_SRC: grad_scores})
        self._product((grad_scores, data), self._heads(self._k), self._heads(grad_q), True)
        self._product(self._turned(grad_scores), self._heads(self._q), self._heads(grad_k), True)
        return [grad_q, grad_k, grad_v]


