"""Attention."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.broadcast import unbroadcast
from compute.nn.container import join
from compute.nn.dropout import keep_mask, keep_scale, probability
from compute.nn.init import RandomUniform, Zeros
from compute.nn.layer import Array, Arrayed, Layer, LayerContext
from compute.nn.linear import Linear
from compute.nn.module import Activity, Builder, Module, positive
from compute.nn.recurrence import check_lengths
from compute.spec import Arrays, Specs, TensorSpec

NEVER = np.float32(-np.inf)


class ScaledDotProductAttention(Layer):
    """y = softmax(Q K^T / sqrt(d) + mask) V for each head (Vaswani et al., Attention Is All You Need, 2017).

    Takes a table of float32 Q (queries, heads * d), K (keys, heads * d), V (keys, heads * e) and any number of masks,
    and gives (queries, heads * e): the heads are parts of the last dimension. Masks by their type and shape:
        int64 ()                 how many of the keys, from the first on, are there: 1..keys
        int64 (keys,)            not 0: this key is ignored (torch's key_padding_mask)
        int64 (queries, keys)    not 0: this key is ignored by this query (torch's attn_mask)
        float32 (keys,), (queries, keys) or (heads, queries, keys)   is added; may be trained
    A query for which every key is ignored gives 0 (torch.nn.functional.scaled_dot_product_attention: NaN or 0).

    Args:
        causal: query i ignores the keys behind i.
        dropout: probability of nn.Dropout on what the softmax gives.
        return_weights: gives a table of y and of what the softmax gives, (heads, queries, keys).
    """

    def __init__(
        self,
        num_heads: int = 1,
        causal: bool = False,
        dropout: float = 0.0,
        return_weights: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        positive(self.kind, num_heads=num_heads)
        self.num_heads = num_heads
        self.causal = causal
        self.dropout = probability(self.kind, dropout)
        self.return_weights = return_weights

    def output_specs(self, *inputs: TensorSpec) -> Specs:
        if len(inputs) < 3 or any(len(x.shape) != 2 or x.dtype != "float32" for x in inputs[:3]):
            raise InputError("needs a table of queries, keys and values, each float32 (times, features), and masks")
        (queries, size), (keys, key_size), (values, value_size) = (x.shape for x in inputs[:3])
        if size != key_size or keys != values:
            raise InputError("needs queries and keys of as many features, and as many keys as values")
        if size % self.num_heads or value_size % self.num_heads:
            raise InputError(f"needs features that can be divided by the number of heads, {self.num_heads}")
        whole = ((), (keys,), (queries, keys))
        added = ((keys,), (queries, keys), (self.num_heads, queries, keys))
        for index, mask in enumerate(inputs[3:]):
            if mask.shape not in (whole if mask.dtype == "int64" else added):
                raise InputError(f"mask {index} must be int64 (), ({keys}) or ({queries}, {keys}), or float32")
        weights = (TensorSpec((self.num_heads, queries, keys)),) if self.return_weights else ()
        return (TensorSpec((queries, value_size)), *weights)

    def _split(self, x: Array) -> Array:
        """(n, heads, times, d) from (n, times, heads * d); a view."""
        return x.reshape(*x.shape[:2], self.num_heads, -1).swapaxes(1, 2)

    def _join(self, x: Array) -> Array:
        """(n, times, heads * d) from (n, heads, times, d)."""
        n, heads, times, size = x.shape
        return x.swapaxes(1, 2).reshape(n, times, heads * size)

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        q, k, v = (self._split(x) for x in inputs[:3])
        scores: Array = np.matmul(q, k.swapaxes(2, 3))
        scores *= np.float32(1 / math.sqrt(q.shape[3]))
        for mask in inputs[3:]:
            if mask.dtype == np.float32:
                scores += aligned(mask)
        ignored = self.ignored(inputs[3:], q.shape[2], k.shape[2])
        if ignored is not None:
            np.copyto(scores, NEVER, where=ignored)
        largest = scores.max(axis=3, keepdims=True)
        largest[largest == NEVER] = 0  # where every key is ignored
        scores -= largest
        weights: Array = np.exp(scores, out=scores)
        total = weights.sum(axis=3, keepdims=True)
        weights /= np.where(total > 0, total, np.float32(1))
        context.saved["weights"] = kept = weights
        if context.training and self.dropout:
            mask = keep_mask(context.stream(), weights.size, self.dropout).reshape(weights.shape)
            context.saved["mask"] = mask * keep_scale(self.dropout)
            kept = weights * context.saved["mask"]
        y = self._join(np.matmul(kept, v))
        return (y, weights) if self.return_weights else (y,)

    def ignored(self, masks: Arrays, queries: int, keys: int) -> NDArray[np.bool_] | None:
        """Which keys are ignored, to be broadcast to (n, heads, queries, keys); None if none is.

        Raises:
            InputError: a length is not in 1..keys.
        """
        found: NDArray[np.bool_] | None = None
        if self.causal:
            found = (np.arange(keys) > np.arange(queries)[:, None])[None, None]
        for mask in masks:
            if mask.dtype == np.float32:
                continue
            if mask.ndim == 1:
                check_lengths(mask, keys)
                ignored = np.arange(keys) >= mask[:, None, None, None]
            else:
                ignored = aligned(mask) != 0
            found = ignored if found is None else found | ignored
        return found

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        q, k, v = (self._split(x) for x in inputs[:3])
        grad_y = self._split(grad_outputs[0])
        weights, mask = context.saved["weights"], context.saved.get("mask")
        kept = weights if mask is None else weights * mask
        grad_v = np.matmul(kept.swapaxes(2, 3), grad_y)
        grad: Array = np.matmul(grad_y, v.swapaxes(2, 3))
        if mask is not None:
            grad *= mask
        if self.return_weights:
            grad += grad_outputs[1]
        grad -= np.einsum("nhqk,nhqk->nhq", grad, weights)[..., None]
        grad *= weights
        found: list[Array | None] = []
        for index, x in enumerate(inputs[3:], start=3):
            wanted = x.dtype == np.float32 and context.needed[index]
            found.append(unbroadcast(grad, aligned(x).shape).reshape(x.shape) if wanted else None)
        scale = np.float32(1 / math.sqrt(q.shape[3]))
        grad_q, grad_k = scale * np.matmul(grad, k), scale * np.matmul(grad.swapaxes(2, 3), q)
        return (self._join(grad_q), self._join(grad_k), self._join(grad_v), *found)


def aligned(mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """A mask (n, ..., keys) as (n, heads or 1, queries or 1, keys)."""
    return mask.reshape(len(mask), *(1,) * (4 - mask.ndim), *mask.shape[1:])


class MultiheadAttention(Module):
    """Attention with trained projections before and behind it; torch.nn.MultiheadAttention, batch first.

    Takes x (times, embed_dim) for attention of x to itself, or a table of query (queries, embed_dim), key (keys, kdim),
    value (keys, vdim) and masks as nn.ScaledDotProductAttention's. Gives (queries, embed_dim), or with return_weights
    a table of it and the weights (num_heads, queries, keys).

    Made of the layers `q_proj`, `k_proj`, `v_proj` (nn.Linear), `attention` and `out_proj` (nn.Linear). Weights start
    as in torch, where the first three are parts of in_proj_weight (see compute.parameters_from_torch).

    Args:
        dropout: on the attention's weights.
        bias: whether the projections have biases.
        kdim, vdim: features of keys and values; embed_dim by default.
        causal, return_weights: as nn.ScaledDotProductAttention.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        kdim: int | None = None,
        vdim: int | None = None,
        causal: bool = False,
        return_weights: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        positive(self.kind, embed_dim=embed_dim, num_heads=num_heads)
        if embed_dim % num_heads:
            raise InputError(f"{self.kind}: embed_dim {embed_dim} cannot be divided by num_heads {num_heads}")
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        together = kdim in (None, embed_dim) and vdim in (None, embed_dim)

        def projection(features: int) -> Linear:
            # Xavier's bound for what torch holds in one matrix.
            rows = 3 * embed_dim if together else embed_dim
            bound = math.sqrt(6 / (features + rows))
            return Linear(features, embed_dim, bias, RandomUniform(-bound, bound), Zeros())

        self.q_proj = projection(embed_dim)
        self.k_proj = projection(embed_dim if kdim is None else kdim)
        self.v_proj = projection(embed_dim if vdim is None else vdim)
        self.attention = ScaledDotProductAttention(num_heads, causal, dropout, return_weights)
        self.out_proj = Linear(embed_dim, embed_dim, bias, bias_init=Zeros())

    def children(self) -> Iterator[Module]:
        yield from (self.q_proj, self.k_proj, self.v_proj, self.attention, self.out_proj)

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        if isinstance(sources, int):
            sources = (sources,) * 3
        if len(sources) < 3:
            raise InputError(
                f"{self.name or self.kind} takes one sequence, or a table of query, key, value and masks; "
                f"got a table of {len(sources)}"
            )
        projections = (("q_proj", self.q_proj), ("k_proj", self.k_proj), ("v_proj", self.v_proj))
        projected = tuple(
            layer.build(builder, source, join(path, name))
            for (name, layer), source in zip(projections, sources[:3], strict=True)
        )
        attended = self.attention.build(builder, (*projected, *sources[3:]), join(path, "attention"))
        y, weights = (attended, ()) if isinstance(attended, int) else (attended[0], attended[1:])
        output = self.out_proj.build(builder, y, join(path, "out_proj"))
        return (output, *weights) if weights else output
