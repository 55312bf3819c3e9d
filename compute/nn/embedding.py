"""Embeddings: trained vectors looked up by whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.init import Initializer
from compute.nn.layer import Array, Arrayed, Layer, LayerContext
from compute.nn.max_norm import MaxNorm
from compute.nn.module import Parameter, positive
from compute.philox import Stream
from compute.spec import Arrays, Shape, Specs, TensorSpec

Ids = NDArray[np.int64]

BAG_MODES = ("mean", "sum", "sqrtn")


class RowNormal(Initializer):
    """Normal with mean 0 and variance 1; the row `zero_row`, if any, is 0."""

    def __init__(self, zero_row: int | None = None) -> None:
        self.zero_row = zero_row

    def __call__(self, shape: tuple[int, ...], stream: Stream) -> NDArray[np.float32]:
        values = stream.normal(shape)
        if self.zero_row is not None:
            values[self.zero_row] = 0.0
        return values


class Embedding(Layer):
    """Row `id` of the weight for each id: int64 of any shape to float32 (*shape, embedding_dim), as torch.nn.Embedding.

    Given float32 (*, embedding_dim) it is the tied output layer instead: y = x @ weight.T, (*, num_embeddings), the
    score of every row (Press and Wolf, Using the Output Embedding to Improve Language Models, 2017). One object may do
    both in a model and its weight then gets the sum of both gradients.

    Parameters: `weight` (num_embeddings, embedding_dim), normal with variance 1.

    Args:
        padding_idx: this row starts as 0 and gets no gradient from look-ups; negative ones count from the end.
        sparse: says that few rows are used by a micro-batch. The gradient is the same; the backward pass touches
            the used rows only, whichever this is. It allows an engine that keeps the gradient between steps to
            clear the rows that the previous pass has used instead of the whole weight.
        max_norm: rows whose norm is larger are looked up shortened to it (not as output layer); the weight itself
            stays as it is: see compute.nn.max_norm.
        norm_type: the p of that norm.

    Raises:
        InputError: in the forward pass, an id is not in 0..num_embeddings-1.
    """

    arity = 1

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        sparse: bool = False,
        weight_init: Initializer | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        positive(self.kind, num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        self.limit = None if max_norm is None else MaxNorm(self.kind, max_norm, norm_type)
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = _padding(self.kind, padding_idx, num_embeddings)
        self.sparse = sparse
        self.weight_init = weight_init or RowNormal(self.padding_idx)

    def output_specs(self, *inputs: TensorSpec) -> Specs:
        (spec,) = inputs
        if spec.dtype == "int64":
            return (TensorSpec((*spec.shape, self.embedding_dim)),)
        if self.limit is not None:
            raise InputError("needs int64 ids: with max_norm it is no output layer")
        if not spec.shape or spec.shape[-1] != self.embedding_dim:
            raise InputError(f"needs int64 ids, or float32 (..., {self.embedding_dim}) where it is the output layer")
        return (TensorSpec((*spec.shape[:-1], self.num_embeddings)),)

    def parameters(self, *input_shapes: Shape) -> list[Parameter]:
        return [Parameter("weight", (self.num_embeddings, self.embedding_dim), self.weight_init)]

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        (x,) = inputs
        weight = parameters["weight"]
        if x.dtype != np.int64:
            return (x @ weight.T,)
        check_ids(x, self.num_embeddings)
        if self.limit is not None:
            rows = self.limit.forward(weight.take(x.ravel(), axis=0))
            return (rows.reshape(*x.shape, self.embedding_dim),)
        return (weight.take(x, axis=0),)

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        (x,), (grad_y,) = inputs, grad_outputs
        if x.dtype == np.int64:
            rows = grad_y.reshape(-1, self.embedding_dim)
            if self.limit is not None:
                rows = self.limit.backward(parameters["weight"].take(x.ravel(), axis=0), rows)
            add_rows(gradients["weight"], x.ravel(), rows, self.padding_idx)
            return (None,)
        rows = grad_y.reshape(-1, self.num_embeddings)
        gradients["weight"] += rows.T @ x.reshape(-1, self.embedding_dim)
        return (grad_y @ parameters["weight"] if context.needed[0] else None,)


class EmbeddingBag(Layer):
    """Combines the rows of a bag of ids: int64 (bag,) [and float32 weights (bag,)] to float32 (embedding_dim,).

    With weights w (1 by default), rows e and sums over the bag,
        mode "sum":   y = sum w e                             "mean":  y = sum w e / sum w
        mode "sqrtn": y = sum w e / sqrt(sum w^2)
    and y = 0 where the divisor is 0. Bags of different length are filled up with `padding_idx`, or with weights of 0.
    torch.nn.EmbeddingBag, BigDL's LookupTableSparse, TensorFlow's embedding_lookup_sparse.

    Parameters: `weight` (num_embeddings, embedding_dim), normal with variance 1.

    Args:
        padding_idx: an id that counts as absent; its row starts as 0 and gets no gradient.
        sparse, max_norm, norm_type: as in nn.Embedding.

    Raises:
        InputError: in the forward pass, an id is not in 0..num_embeddings-1.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        mode: str = "mean",
        padding_idx: int | None = None,
        sparse: bool = False,
        weight_init: Initializer | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        positive(self.kind, num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        self.limit = None if max_norm is None else MaxNorm(self.kind, max_norm, norm_type)
        if mode not in BAG_MODES:
            raise InputError(f"{self.kind}: mode must be one of {', '.join(BAG_MODES)}, got {mode!r}")
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.mode = mode
        self.padding_idx = _padding(self.kind, padding_idx, num_embeddings)
        self.sparse = sparse
        self.weight_init = weight_init or RowNormal(self.padding_idx)

    def output_specs(self, *inputs: TensorSpec) -> Specs:
        ids = inputs[0]
        if ids.dtype != "int64" or len(ids.shape) != 1 or inputs[1:] not in ((), (TensorSpec(ids.shape),)):
            raise InputError("needs int64 ids (bag,), and float32 weights (bag,) or none")
        return (TensorSpec((self.embedding_dim,)),)

    def parameters(self, *input_shapes: Shape) -> list[Parameter]:
        return [Parameter("weight", (self.num_embeddings, self.embedding_dim), self.weight_init)]

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        ids = inputs[0]
        check_ids(ids, self.num_embeddings)
        weights = inputs[1] if len(inputs) > 1 else np.ones(ids.shape, dtype=np.float32)
        if self.padding_idx is not None:
            weights = weights * (ids != self.padding_idx)
        divisor = self._divisor(weights)
        # Where the divisor is 0, so is y: an empty bag.
        inverse = np.divide(np.float32(1), divisor, out=np.zeros_like(divisor), where=divisor != 0)
        context.saved["weights"], context.saved["inverse"] = weights, inverse
        rows = self._rows(parameters["weight"], ids)
        return (np.matmul((weights * inverse)[:, None, :], rows)[:, 0],)

    def _rows(self, weight: Array, ids: Ids) -> Array:
        """What is combined, float32 (n, bag, embedding_dim)."""
        if self.limit is None:
            return weight.take(ids, axis=0)
        return self.limit.forward(weight.take(ids.ravel(), axis=0)).reshape(*ids.shape, self.embedding_dim)

    def _divisor(self, weights: Array) -> Array:
        """(n, 1)."""
        if self.mode == "sum":
            return np.ones((len(weights), 1), dtype=np.float32)
        divisor: Array = (weights if self.mode == "mean" else np.square(weights)).sum(axis=1, keepdims=True)
        return divisor if self.mode == "mean" else np.sqrt(divisor)

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        ids, (y,), (grad_y,) = inputs[0], outputs, grad_outputs
        weights, inverse = context.saved["weights"], context.saved["inverse"]
        rows = ((weights * inverse)[:, :, None] * grad_y[:, None, :]).reshape(-1, self.embedding_dim)
        if self.limit is not None:
            rows = self.limit.backward(parameters["weight"].take(ids.ravel(), axis=0), rows)
        add_rows(gradients["weight"], ids.ravel(), rows, self.padding_idx)
        if len(inputs) == 1 or not context.needed[1]:
            return (None,) * len(inputs)
        # y = s / d with s = sum w e: dy/dw_j = e_j / d - y / d * (dd/dw_j).
        grad_weights = np.matmul(self._rows(parameters["weight"], ids), grad_y[:, :, None])[:, :, 0]
        if self.mode != "sum":
            slope = np.float32(1) if self.mode == "mean" else weights * inverse
            grad_weights -= (grad_y * y).sum(axis=1, keepdims=True) * slope
        grad_weights *= inverse
        if self.padding_idx is not None:
            grad_weights *= ids != self.padding_idx
        return (None, grad_weights)


def add_rows(target: Array, ids: Ids, rows: Array, skip: int | None = None) -> None:
    """target[ids[i]] += rows[i] for each i in order, but where ids[i] is `skip`. Touches no other rows of target."""
    used, sums = summed_rows(ids, rows, skip)
    target[used] += sums


def summed_rows(ids: Ids, rows: Array, skip: int | None = None) -> tuple[Ids, Array]:
    """The different ids but `skip`, ascending, and for each the sum of the rows[i] with that ids[i], in order of i."""
    from scipy import sparse as scipy_sparse  # here, since it costs every process time and memory

    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    used = ordered[starts]
    # One sparse row of ones for each used id: five times as fast as np.add.at and np.add.reduceat.
    pointers = np.append(starts, len(ids))
    ones = np.ones(len(ids), dtype=np.float32)
    sums: Any = scipy_sparse.csr_array((ones, order, pointers), shape=(len(used), len(ids))) @ rows
    if skip is not None:
        kept = used != skip
        used, sums = used[kept], sums[kept]
    return used, sums


def check_ids(ids: Ids, count: int) -> None:
    """Raises InputError, with the id's place, if an id is not in 0..count-1."""
    # Seen as unsigned, negative ids are the largest, so one pass finds both kinds.
    unsigned = np.ascontiguousarray(ids).view(np.uint64)
    if ids.size and int(unsigned.max()) >= count:
        place = np.unravel_index(int(np.argmax(unsigned >= count)), ids.shape)
        where = ", ".join(str(index) for index in place[1:])
        position = f" at position {where}" if where else ""
        raise InputError(
            f"id {ids[place]} in sample {place[0]} of the batch{position} is not in "
            f"0..{count - 1}; give the layer one row per id",
            int(place[0]),
        )


def _padding(kind: str, padding_idx: int | None, count: int) -> int | None:
    if padding_idx is None:
        return None
    if isinstance(padding_idx, bool) or not isinstance(padding_idx, int) or not -count <= padding_idx < count:
        raise InputError(f"{kind}: padding_idx must be None or in {-count}..{count - 1}, got {padding_idx!r}")
    return padding_idx % count
