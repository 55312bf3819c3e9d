"""Linear layers on sparse samples, given as the places and values of the elements that are not 0."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.init import FanIn, Initializer
from compute.nn.layer import Array, Arrayed, Layer, LayerContext
from compute.nn.module import Parameter, positive
from compute.spec import Arrays, Shape, Specs, TensorSpec

PADDING = -1


class SparseLinear(Layer):
    """y = sum over j of values[j] * weight[ids[j]] + bias: a Linear on samples with few elements that are not 0.

    Takes a table of ids, int64 (k,), and values, float32 (k,), or the ids alone, whose values are then 1; gives
    (out_features,). An id of -1 is padding and counts nothing; one that comes twice counts twice.

    Parameters: `weight` (in_features, out_features), one row for each id (the transpose of nn.Linear's), `bias`
    (out_features,) unless bias=False. Both start uniform in +-1/sqrt(in_features). BigDL's SparseLinear;
    torch.nn.EmbeddingBag with mode "sum" and per_sample_weights.

    Raises:
        InputError: on training or prediction, an id out of range.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        weight_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        positive(self.kind, in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.bias = bias
        self.weight_init = weight_init or FanIn(in_features)
        self.bias_init = bias_init or FanIn(in_features)

    def output_specs(self, *inputs: TensorSpec) -> Specs:
        _check_pairs(self.kind, inputs[:1] if len(inputs) == 1 else inputs, 1)
        return (TensorSpec((self.out_features,)),)

    def parameters(self, *input_shapes: Shape) -> list[Parameter]:
        weight = Parameter("weight", (self.in_features, self.out_features), self.weight_init)
        return [weight, Parameter("bias", (self.out_features,), self.bias_init)] if self.bias else [weight]

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        y: Array = self._matrix(inputs) @ parameters["weight"]
        if self.bias:
            y += parameters["bias"]
        return (y,)

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        (grad_y,) = grad_outputs
        gradients["weight"] += self._matrix(inputs).T @ grad_y
        if self.bias:
            gradients["bias"] += grad_y.sum(axis=0, dtype=np.float64).astype(np.float32)
        if len(inputs) == 1:
            return (None,)
        if not context.needed[1]:
            return None, None
        ids = inputs[0]
        rows = parameters["weight"][np.maximum(ids, 0)]
        grad_values = np.einsum("nko,no->nk", rows, grad_y) * (ids != PADDING)
        return None, grad_values

    def _matrix(self, inputs: Arrays) -> Any:
        """The samples as a scipy CSR matrix (n, in_features)."""
        from scipy.sparse import csr_array  # loaded when first needed: a tenth of a second

        ids = inputs[0]
        bad = (ids < PADDING) | (ids >= self.in_features)
        if bad.any():
            raise InputError(f"id {ids[bad][0]} is not in 0..{self.in_features - 1}, nor -1 for padding")
        kept = ids != PADDING
        values = inputs[1][kept] if len(inputs) == 2 else np.ones(np.count_nonzero(kept), dtype=np.float32)
        starts = np.concatenate([[0], np.cumsum(np.count_nonzero(kept, axis=1))])
        return csr_array((values, ids[kept], starts), shape=(len(ids), self.in_features))


class SparseJoinTable(Layer):
    """Joins sparse samples, as nn.SparseLinear takes them, into one with the features of all, one after the other.

    Takes a table (ids, values, ids, values, ...) with ids int64 (k_i,) below sizes[i] and values float32 (k_i,); gives
    the table of ids (sum of k_i,) and values (sum of k_i,). BigDL's SparseJoinTable.

    Args:
        sizes: number of features of each.
    """

    def __init__(self, *sizes: int, name: str | None = None) -> None:
        super().__init__(name)
        if not sizes:
            raise InputError("SparseJoinTable needs the number of features of each sparse sample")
        for size in sizes:
            positive(self.kind, size=size)
        self.sizes = sizes

    def output_specs(self, *inputs: TensorSpec) -> Specs:
        _check_pairs(self.kind, inputs, len(self.sizes))
        count = sum(spec.shape[0] for spec in inputs[::2])
        return TensorSpec((count,), "int64"), TensorSpec((count,))

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        shifted: list[NDArray[np.int64]] = []
        offset = 0
        for ids, size in zip(inputs[::2], self.sizes, strict=True):
            if ids.size and ids.max() >= size:
                raise InputError(f"id {ids.max()} is not in 0..{size - 1}, nor -1 for padding")
            shifted.append(np.where(ids == PADDING, PADDING, ids + offset))
            offset += size
        return np.concatenate(shifted, axis=1), np.concatenate(inputs[1::2], axis=1)

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        ends = np.cumsum([ids.shape[1] for ids in inputs[::2]])
        parts = np.split(grad_outputs[1], ends[:-1], axis=1)
        return tuple(grad for part in parts for grad in (None, part))


def _check_pairs(kind: str, inputs: Specs, pairs: int) -> None:
    """Raises InputError unless these are `pairs` of ids and values, or ids alone where one pair is wanted."""
    ids, values = inputs[::2], inputs[1::2]
    right = (
        len(ids) == pairs
        and (len(values) == pairs or (kind == "SparseLinear" and not values))
        and all(spec.dtype == "int64" and len(spec.shape) == 1 for spec in ids)
        and all(spec.dtype == "float32" and spec.shape == i.shape for spec, i in zip(values, ids, strict=False))
    )
    if not right:
        raise InputError(f"needs {pairs} x ids, int64 (k), and values, float32 (k)")
