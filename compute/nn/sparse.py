"""Sparse samples, given as the places and values of the elements that are not 0, and layers that make or take them."""

from __future__ import annotations

import math
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


class DenseToSparse(Layer):
    """The elements of a sample that are not 0, as nn.SparseLinear takes them.

    Takes float32 (features,); gives the table of ids, int64 (size,), ascending and filled up with -1, and values,
    float32 (size,), filled up with 0. BigDL's DenseToSparse.

    Args:
        size: the most elements that are not 0 in a sample; all of them by default.
        propagate_back: whether the values' gradient goes on to the elements they were taken from.

    Raises:
        InputError: on training or prediction, a sample has more.
    """

    arity = 1

    def __init__(self, size: int | None = None, propagate_back: bool = True, name: str | None = None) -> None:
        super().__init__(name)
        if size is not None:
            positive(self.kind, size=size)
        self.size = size
        self.propagate_back = propagate_back

    def output_specs(self, *inputs: TensorSpec) -> Specs:
        (spec,) = inputs
        if spec.dtype != "float32" or len(spec.shape) != 1:
            raise InputError("needs float32 (features)")
        size = (spec.shape[0] if self.size is None else self.size,)
        return TensorSpec(size, "int64"), TensorSpec(size)

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        (x,) = inputs
        size = x.shape[1] if self.size is None else self.size
        return _packed(x, x != 0, size, "elements that are not 0")

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        if not self.propagate_back:
            return (np.zeros_like(inputs[0]),)
        return (_unpacked(outputs[0], grad_outputs[1], inputs[0].shape),)


class MaskedSelect(Layer):
    """The elements of a sample where a mask is not 0, in row-major order, filled up with `padding`, and their number.

    Takes a table of float32 (*shape) and a mask of the same shape, int64 or float32; gives a table of float32 (size,)
    and their number, int64 (), which recurrent layers and attention take as the length. torch.masked_select and BigDL's
    MaskedSelect, but with an output of one size for each sample, so that what follows can be planned.

    Args:
        size: the most elements that a mask may select; all of them by default.
        padding: what the output is filled up with.

    Raises:
        InputError: on training or prediction, a mask selects more.
    """

    arity = 2

    def __init__(self, size: int | None = None, padding: float = 0.0, name: str | None = None) -> None:
        super().__init__(name)
        if size is not None:
            positive(self.kind, size=size)
        self.size = size
        self.padding = float(padding)

    def output_specs(self, *inputs: TensorSpec) -> Specs:
        x, mask = inputs
        if x.dtype != "float32" or x.shape != mask.shape:
            raise InputError("needs float32 values and a mask of their shape")
        size = math.prod(x.shape) if self.size is None else self.size
        return TensorSpec((size,)), TensorSpec((), "int64")

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        x, chosen = (array.reshape(len(array), -1) for array in inputs)
        ids, values = _packed(x, chosen != 0, x.shape[1] if self.size is None else self.size, "selected elements")
        context.saved["ids"] = ids
        padding = ids == PADDING
        values[padding] = self.padding
        return values, np.count_nonzero(~padding, axis=1)

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        x = inputs[0]
        grad = _unpacked(context.saved["ids"], grad_outputs[0], (len(x), math.prod(x.shape[1:])))
        return grad.reshape(x.shape), np.zeros_like(inputs[1]) if inputs[1].dtype == np.float32 else None


def _packed(x: Array, chosen: NDArray[np.bool_], size: int, what: str) -> tuple[NDArray[np.int64], Array]:
    """Places and values, both (n, size), of the chosen elements of x (n, count), in order, -1 and 0 behind them."""
    counts = np.count_nonzero(chosen, axis=1)
    if counts.max() > size:
        sample = int(counts.argmax())
        raise InputError(f"sample {sample} of the batch has {counts[sample]} {what}, at most {size} were said", sample)
    rows, places = np.nonzero(chosen)
    targets = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    ids = np.full((len(x), size), PADDING, dtype=np.int64)
    values = np.zeros((len(x), size), dtype=np.float32)
    ids[rows, targets] = places
    values[rows, targets] = x[rows, places]
    return ids, values


def _unpacked(ids: NDArray[np.int64], values: Array, shape: Shape) -> Array:
    """Zeros of a shape (n, count) but for the values at their places."""
    found = np.zeros(shape, dtype=np.float32)
    rows, places = np.nonzero(ids != PADDING)
    found[rows, ids[rows, places]] = values[rows, places]
    return found


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
