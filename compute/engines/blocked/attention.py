"""Scaled dot-product attention as batched products and a softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute import nn
from compute.engines import dnnl
from compute.engines.blocked.dropout import drawn_mask, drop, stream_of
from compute.engines.blocked.layout import Layout
from compute.engines.blocked.plan import BlockedPlan
from compute.engines.dnnl import Descriptor, EltwisePostOp, Unimplemented
from compute.engines.dnnl.constants import (
    BF16,
    DIFF_DST,
    DIFF_SRC,
    DST,
    SRC,
    SRC_1,
    WEIGHTS,
    Binary,
    Eltwise,
)
from compute.engines.layer_call import named
from compute.engines.staged import Stage
from compute.engines.tensor import ROWS, Tensor
from compute.errors import InputError
from compute.graph import Node
from compute.nn.attention import aligned
from compute.nn.broadcast import unbroadcast
from compute.nn.layer import Array
from compute.spec import Shape

NEVER = np.float32(-1e30)
"""Added to scores of keys that are ignored: finite, since oneDNN's softmax of infinities is not a number."""


class AttentionStage(Stage):
    """softmax(Q K^T / sqrt(d) + masks) V for each head, with dropout.

    Heads are parts of the last dimension, so that (n, heads, times, d) is a matter of strides.

    Raises:
        Unimplemented: the weights are wanted.
    """

    plan: BlockedPlan

    def __init__(self, plan: BlockedPlan, nodes: Sequence[Node], inputs: Sequence[Tensor]) -> None:
        super().__init__(plan, nodes)
        layer = nodes[0].layer
        assert isinstance(layer, nn.ScaledDotProductAttention)
        if layer.return_weights:
            raise Unimplemented("attention whose weights are wanted is left to the formulas")
        self._layer = layer
        self._q, self._k, self._v = (self._row_major(x) for x in inputs[:3])
        self._masks = tuple(plan.convert(mask, ROWS).array for mask in inputs[3:])
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
        added = self._added(queries, keys)
        if added is not None:
            data = self._data
            operation = dnnl.binary(plan.api, Binary.ADD, data, plan.describe(added), data)
            plan.run(operation, {SRC: scores, SRC_1: added, DST: scores})
        self._normalize = dnnl.softmax(plan.api, self._data, self._data, 3, training=plan.training)
        plan.run(self._normalize, {SRC: scores, DST: scores})
        if added is not None and self._masks:
            self._clear_ignored(scores, added.array)
        return scores

    def _added(self, queries: int, keys: int) -> Tensor | None:
        """What is added to the scores, with sizes of 1 where it is the same; emits its computation from the masks."""
        causal = np.arange(keys) > np.arange(queries)[:, None] if self._layer.causal else None
        if not self._masks:
            if causal is None:
                return None
            array = self.plan.empty((1, 1, queries, keys))
            array[...] = np.where(causal, NEVER, np.float32(0))
            return Tensor(array)
        parts = [spread(mask, keys) for mask in self._masks]
        added = self.plan.rows(np.broadcast_shapes((1, 1, queries if causal is not None else 1, keys), *parts))
        array = added.array

        def add() -> None:
            array.fill(0)
            for mask in self._masks:
                if mask.dtype == np.float32:
                    array[...] += np.maximum(aligned(mask), NEVER)
            try:
                ignored = self._layer.ignored(self._masks, queries, keys)
            except InputError as error:
                raise named(error, self.nodes[0], self.plan.graph.values[self.nodes[0].sources[0]].repeat) from None
            if ignored is not None:
                np.copyto(array, NEVER, where=ignored)

        self.plan.emit(add, uses=(array, *self._masks))
        return added

    def _clear_ignored(self, weights: Tensor, added: Array) -> None:
        """Emits zeros as weights of queries that ignore all keys, for which the kernel's are all the same."""
        words = weights.array.view(np.uint16 if self.plan.dtype == BF16 else np.uint32).reshape(self._data.dims)

        def clear() -> None:
            lost = added.max(axis=3, keepdims=True) <= NEVER
            if lost.any():
                np.copyto(words, 0, where=lost)

        self.plan.emit(clear, uses=(weights.array, added))

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
        wanted = [mask if need else None for mask, need in zip(self._masks, needed[3:], strict=True)]
        return [
            *(grad_q, grad_k, grad_v),
            *(None if mask is None else self._mask_gradient(mask, grad_scores) for mask in wanted),
        ]

    def _mask_gradient(self, mask: NDArray[Any], grad_scores: Tensor) -> Tensor:
        """The gradient of an added mask: that of the scores, summed over what the mask was repeated along."""
        plan, found = self.plan, self.plan.rows(mask.shape)
        scores = plan.convert(grad_scores, ROWS).array.reshape(self._data.dims)
        shape = aligned(mask).shape

        def add_up() -> None:
            np.copyto(found.array, unbroadcast(scores, shape).reshape(mask.shape))

        plan.emit(add_up, uses=(scores, found.array))
        return found


def spread(mask: NDArray[Any], keys: int) -> Shape:
    """Shape of a mask as a part of (n, heads, queries, keys)."""
    return (len(mask), 1, 1, keys) if mask.ndim == 1 else aligned(mask).shape
