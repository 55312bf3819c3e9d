"""Transformers: a language model, and an encoder with a decoder for translation."""

from __future__ import annotations

import math

from compute import nn


def transformer_language_model(
    vocabulary: int,
    d_model: int = 256,
    nhead: int = 4,
    layers: int = 4,
    dim_feedforward: int | None = None,
    dropout: float = 0.1,
    activation: str = "gelu",
    norm_first: bool = True,
    max_length: int | None = None,
    tied: bool = True,
) -> nn.Sequential:
    """Causal Transformer: token ids int64 (times,) to scores of the next token (times, vocabulary).

    Vaswani et al., Attention Is All You Need (2017), the decoder without an encoder; BigDL's Transformer of type
    LanguageModel. Train it with nn.CrossEntropyLoss.

    Args:
        vocabulary: number of tokens.
        dim_feedforward: 4 * d_model by default.
        norm_first: normalizes before each sublayer and behind the last.
        max_length: positions are trained vectors, for so many; sine and cosine by default.
        tied: the output layer is the embedding.
    """
    embedding = _embedding(vocabulary, d_model, "embedding")
    layer = nn.TransformerEncoderLayer(
        d_model,
        nhead,
        4 * d_model if dim_feedforward is None else dim_feedforward,
        dropout,
        activation,
        norm_first=norm_first,
        causal=True,
    )
    model = nn.Sequential(embedding)
    if max_length is None:
        model.add(nn.PositionalEncoding(math.sqrt(d_model)))
    else:
        model.add(nn.LearnedPositionalEncoding(max_length, d_model, name="position"))
    if dropout:
        model.add(nn.Dropout(dropout))
    model.add(nn.TransformerEncoder(layer, layers, nn.LayerNorm(d_model) if norm_first else None, name="encoder"))
    return model.add(embedding if tied else nn.Linear(d_model, vocabulary, name="output"))


def transformer(
    vocabulary: int,
    target_vocabulary: int | None = None,
    d_model: int = 512,
    nhead: int = 8,
    num_encoder_layers: int = 6,
    num_decoder_layers: int = 6,
    dim_feedforward: int = 2048,
    dropout: float = 0.1,
    activation: str = "relu",
    norm_first: bool = False,
    lengths: bool = True,
) -> nn.Graph:
    """Encoder and decoder: source and target ids to scores of the next target token (target times, vocabulary).

    Takes a table of source ids int64 (times,), target ids int64 (target times,) and, with `lengths`, the source's own
    length int64 (). Vaswani et al. (2017), with the "base" sizes; BigDL's Transformer of type Translation. Train it
    with nn.CrossEntropyLoss on the target one token later; translate with nn.beam_search.

    Args:
        vocabulary: number of the source's tokens.
        target_vocabulary: number of the target's tokens. By default both have one vocabulary and share an embedding,
            which is the output layer, too.
        lengths: whether sources are padded to a common length.
    """
    source, target = nn.Input(), nn.Input()
    masks = [nn.Input()] if lengths else []
    embedding = _embedding(vocabulary, d_model, "embedding")
    shared = target_vocabulary is None
    into = embedding if target_vocabulary is None else _embedding(target_vocabulary, d_model, "target_embedding")

    def embedded(ids: nn.Wire, layer: nn.Embedding) -> nn.Wire:
        x: nn.Wire = nn.PositionalEncoding(math.sqrt(d_model))(layer(ids))
        return nn.Dropout(dropout)(x) if dropout else x

    body = nn.Transformer(
        d_model,
        nhead,
        num_encoder_layers,
        num_decoder_layers,
        dim_feedforward,
        dropout,
        activation,
        norm_first=norm_first,
        name="transformer",
    )
    output = embedding if shared else nn.Linear(d_model, into.num_embeddings, name="output")
    scores = output(body(embedded(source, embedding), embedded(target, into), *masks))
    return nn.Graph([source, target, *masks], scores)


def _embedding(vocabulary: int, d_model: int, name: str) -> nn.Embedding:
    """Its rows have length 1 in the mean, so that scores start small where it is the output layer."""
    return nn.Embedding(vocabulary, d_model, weight_init=nn.init.RandomNormal(0.0, d_model**-0.5), name=name)
