"""Convolutional network for texts."""

from __future__ import annotations

from compute import nn


def text_cnn(
    classes: int,
    vocabulary: int | None = None,
    embedding_dim: int = 300,
    kernel_sizes: tuple[int, ...] = (3, 4, 5),
    filters: int = 100,
    dropout: float = 0.5,
    hidden_size: int | None = None,
) -> nn.Sequential:
    """Text to log-probabilities (classes,): convolutions over words, the maximum over time of each, a linear layer.

    Takes token ids int64 (times,) if `vocabulary` is given, else word vectors float32 (times, embedding_dim) such as
    GloVe's; times must be at least the largest kernel. Kim, Convolutional Neural Networks for Sentence Classification
    (2014). With kernel_sizes=(5,), filters=256, hidden_size=128, dropout=0.2 it is like BigDL's text classifier.

    Args:
        vocabulary: number of tokens; embeddings are trained then.
        kernel_sizes: words that convolutions see at a time, `filters` channels each.
        hidden_size: a linear layer of this size with ReLU before the last one.
    """
    model = nn.Sequential()
    if vocabulary is not None:
        model.add(nn.Embedding(vocabulary, embedding_dim, sparse=True, name="embedding"))
    model.add(nn.Transpose((0, 1)))
    branches = nn.Concat(name="words")
    for size in kernel_sizes:
        branches.add(
            nn.Sequential(
                nn.Conv1d(embedding_dim, filters, size, name=f"conv{size}"),
                nn.ReLU(),
                nn.GlobalMaxPool1d(),
                name=f"words{size}",
            )
        )
    model.add(branches)
    features = filters * len(kernel_sizes)
    if dropout:
        model.add(nn.Dropout(dropout))
    if hidden_size is not None:
        model.add(nn.Linear(features, hidden_size, name="hidden")).add(nn.ReLU())
        features = hidden_size
    return model.add(nn.Linear(features, classes, name="output")).add(nn.LogSoftmax())
