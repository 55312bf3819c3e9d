"""Transformer encoders and decoders, made of smaller layers; Vaswani et al., Attention Is All You Need (2017).

Names of parts, and so of parameters, are PyTorch's. See nn.ScaledDotProductAttention for masks.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

from compute.errors import InputError
from compute.nn.activation import ReLU
from compute.nn.attention import MultiheadAttention
from compute.nn.container import join
from compute.nn.dropout import Dropout
from compute.nn.init import XavierUniform
from compute.nn.layer_norm import LayerNorm
from compute.nn.linear import Linear
from compute.nn.module import Activity, Builder, Module, positive
from compute.nn.smooth import GELU
from compute.nn.table_arithmetic import CAddTable

ACTIVATIONS = {"relu": ReLU, "gelu": GELU}


class FeedForward(Module):
    """linear2(dropout(activation(linear1(x)))) over the last dimension: (*, d_model) to (*, d_model).

    Args:
        activation: "relu" or "gelu".
    """

    def __init__(
        self,
        d_model: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.0,
        activation: str = "relu",
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        positive(self.kind, d_model=d_model, dim_feedforward=dim_feedforward)
        if activation not in ACTIVATIONS:
            raise InputError(f"{self.kind}: activation must be relu or gelu, got {activation!r}")
        self.linear1 = Linear(d_model, dim_feedforward)
        self.activation: Module = ACTIVATIONS[activation]()
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model)

    def children(self) -> Iterator[Module]:
        yield from (self.linear1, self.activation, self.dropout, self.linear2)

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        x = self.linear1.build(builder, sources, join(path, "linear1"))
        x = self.activation.build(builder, x, join(path, "activation"))
        if self.dropout.p:
            x = self.dropout.build(builder, x, join(path, "dropout"))
        return self.linear2.build(builder, x, join(path, "linear2"))


class Residual(Module):
    """A sublayer f of a Transformer: norm(x + dropout(f(x))), or x + dropout(f(norm(x))) with norm_first.

    Pre-normalization: Xiong et al., On Layer Normalization in the Transformer Architecture (2020). A table's parts
    behind x go to f as they are. The parts' names get `number` behind, and f's is `f_name`, which may be empty.
    """

    def __init__(
        self, f: Module, f_name: str, number: int, d_model: int, dropout: float, eps: float, norm_first: bool
    ) -> None:
        super().__init__()
        self.f = f
        self.f_name = f_name
        self.number = number
        self.norm_first = norm_first
        self.norm = LayerNorm(d_model, eps)
        self.dropout = Dropout(dropout)
        self.sum = CAddTable()

    def children(self) -> Iterator[Module]:
        yield from (self.norm, self.f, self.dropout, self.sum)

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        x, rest = (sources, ()) if isinstance(sources, int) else (sources[0], sources[1:])
        norm = join(path, f"norm{self.number}")
        inner = self.norm.build(builder, x, norm) if self.norm_first else x
        # Attention to itself gets the normalized x for queries, keys and values.
        given = tuple(inner if part == x else part for part in rest)
        y = self.f.build(builder, (inner, *given) if given else inner, join(path, self.f_name) if self.f_name else path)
        if self.dropout.p:
            y = self.dropout.build(builder, y, join(path, f"dropout{self.number}"))
        y = self.sum.build(builder, (x, y), join(path, f"add{self.number}"))
        return y if self.norm_first else self.norm.build(builder, y, norm)


class TransformerEncoderLayer(Module):
    """Self-attention and feed-forward network: (times, d_model) to the same; torch.nn.TransformerEncoderLayer.

    Takes x, or a table of x and masks of its keys. Parts: `self_attn`, `linear1`, `linear2`, `norm1`, `norm2`.

    Args:
        dropout: on the attention's weights, within the feed-forward network and on what both give.
        activation: "relu" or "gelu".
        norm_first: normalizes what goes into the sublayers instead of the sums behind them.
        causal: no position attends to those behind it.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "relu",
        layer_norm_eps: float = 1e-5,
        norm_first: bool = False,
        causal: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        attention = MultiheadAttention(d_model, nhead, dropout, causal=causal)
        feed_forward = FeedForward(d_model, dim_feedforward, dropout, activation)
        shared = (d_model, dropout, layer_norm_eps, norm_first)
        self.attention = Residual(attention, "self_attn", 1, *shared)
        self.feed_forward = Residual(feed_forward, "", 2, *shared)
        self.d_model = d_model

    def children(self) -> Iterator[Module]:
        yield from (self.attention, self.feed_forward)

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        x, masks = (sources, ()) if isinstance(sources, int) else (sources[0], sources[1:])
        x = self.attention.build(builder, (x, x, x, *masks), path)
        return self.feed_forward.build(builder, x, path)


class TransformerDecoderLayer(Module):
    """Self-attention, attention to an encoder's output, and feed-forward network; torch.nn.TransformerDecoderLayer.

    Takes a table of x (times, d_model), memory (keys, d_model) and, where wanted, a mask of the memory and a mask of x;
    gives (times, d_model). Parts: `self_attn`, `multihead_attn`, `linear1`, `linear2`, `norm1`, `norm2`, `norm3`.

    Args: as TransformerEncoderLayer, but the attention to itself is causal by default.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "relu",
        layer_norm_eps: float = 1e-5,
        norm_first: bool = False,
        causal: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        to_itself = MultiheadAttention(d_model, nhead, dropout, causal=causal)
        to_memory = MultiheadAttention(d_model, nhead, dropout)
        feed_forward = FeedForward(d_model, dim_feedforward, dropout, activation)
        shared = (d_model, dropout, layer_norm_eps, norm_first)
        self.to_itself = Residual(to_itself, "self_attn", 1, *shared)
        self.to_memory = Residual(to_memory, "multihead_attn", 2, *shared)
        self.feed_forward = Residual(feed_forward, "", 3, *shared)
        self.d_model = d_model

    def children(self) -> Iterator[Module]:
        yield from (self.to_itself, self.to_memory, self.feed_forward)

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        x, memory, memory_mask, mask = decoder_inputs(self, sources)
        x = self.to_itself.build(builder, (x, x, x, *mask), path)
        x = self.to_memory.build(builder, (x, memory, memory, *memory_mask), path)
        return self.feed_forward.build(builder, x, path)


class _Layers(Module):
    """A layer several times, with weights of its own each time, and a normalization behind."""

    def __init__(self, layer: Module, num_layers: int, norm: Module | None, name: str | None) -> None:
        super().__init__(name)
        positive(self.kind, num_layers=num_layers)
        if not isinstance(layer, Module) or (norm is not None and not isinstance(norm, Module)):
            raise InputError(f"{self.kind} takes a layer such as nn.{self.kind}Layer(512, 8), got {layer!r}")
        self.layers = [copy.deepcopy(layer) for _ in range(num_layers)]
        self.norm = norm

    def children(self) -> Iterator[Module]:
        yield from self.layers
        if self.norm is not None:
            yield self.norm

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        x, rest = (sources, ()) if isinstance(sources, int) else (sources[0], sources[1:])
        for index, layer in enumerate(self.layers):
            x = layer.build(builder, (x, *rest) if rest else x, join(path, f"layers.{index}"))
        return x if self.norm is None else self.norm.build(builder, x, join(path, "norm"))


class TransformerEncoder(_Layers):
    """`num_layers` copies of an encoder layer, one behind the other; torch.nn.TransformerEncoder.

    Takes x, or a table of x and masks, which go to every layer. Parts: `layers.0` and so on, `norm`.
    """

    def __init__(
        self, encoder_layer: Module, num_layers: int, norm: Module | None = None, name: str | None = None
    ) -> None:
        super().__init__(encoder_layer, num_layers, norm, name)


class TransformerDecoder(_Layers):
    """`num_layers` copies of a decoder layer, one behind the other; torch.nn.TransformerDecoder.

    Gives (times, d_model). Takes what the layer takes; all but x goes to every layer. Parts: `layers.0` and so on,
    `norm`.
    """

    def __init__(
        self, decoder_layer: Module, num_layers: int, norm: Module | None = None, name: str | None = None
    ) -> None:
        super().__init__(decoder_layer, num_layers, norm, name)


class Transformer(Module):
    """Encoder and decoder: from a source and a target sequence to (target times, d_model); torch.nn.Transformer.

    Takes a table of the source (times, d_model), the target (target times, d_model) and, where wanted, a mask of the
    source (usually its length, int64 ()) and a mask of the target. The target's attention to itself is causal.
    Parts: `encoder`, `decoder`. Weight matrices start by Xavier's rule.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "relu",
        layer_norm_eps: float = 1e-5,
        norm_first: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        arguments = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, norm_first)
        encoder_layer = TransformerEncoderLayer(*arguments)
        decoder_layer = TransformerDecoderLayer(*arguments)
        self.encoder = TransformerEncoder(encoder_layer, num_encoder_layers, LayerNorm(d_model, layer_norm_eps))
        self.decoder = TransformerDecoder(decoder_layer, num_decoder_layers, LayerNorm(d_model, layer_norm_eps))
        for module in self.modules():
            if isinstance(module, MultiheadAttention):
                module.out_proj.weight_init = XavierUniform()
            elif isinstance(module, FeedForward):
                module.linear1.weight_init = module.linear2.weight_init = XavierUniform()

    def children(self) -> Iterator[Module]:
        yield from (self.encoder, self.decoder)

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        source, target, source_mask, mask = decoder_inputs(self, sources)
        given = (source, *source_mask) if source_mask else source
        memory = self.encoder.build(builder, given, join(path, "encoder"))
        return self.decoder.build(builder, (target, memory, *source_mask, *mask), join(path, "decoder"))


def decoder_inputs(
    module: Module, sources: Activity
) -> tuple[Activity, Activity, tuple[Activity, ...], tuple[Activity, ...]]:
    """The first two parts of a table, and tables of the third and of the fourth, which may be missing."""
    if isinstance(sources, int) or not 2 <= len(sources) <= 4:
        count = 1 if isinstance(sources, int) else len(sources)
        raise InputError(
            f"{module.name or module.kind} takes a table of two sequences and up to two masks, got {count} part(s)"
        )
    return sources[0], sources[1], sources[2:3], sources[3:4]
