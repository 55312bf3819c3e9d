"""Recurrent networks for sequences: BigDL's SimpleRNN and LSTM language models."""

from __future__ import annotations

from compute import nn

SMALL = 0.1
"""Embeddings and output layers of LSTM language models start uniform in +-SMALL (Zaremba et al., 2014)."""


def simple_rnn(input_size: int = 4001, hidden_size: int = 40, output_size: int = 4001) -> nn.Sequential:
    """Elman network with a linear layer at each step: (times, input_size) to scores (times, output_size).

    BigDL's SimpleRNN (rnn/SimpleRNN.scala), whose inputs are one-hot vectors. Train it with nn.CrossEntropyLoss.
    """
    return nn.Sequential(
        nn.RNN(input_size, hidden_size, name="rnn"),
        nn.Linear(hidden_size, output_size, name="output"),
    )


def lstm_language_model(
    vocabulary: int,
    hidden_size: int = 650,
    layers: int = 2,
    dropout: float = 0.5,
    embedding_dim: int | None = None,
    tied: bool = False,
) -> nn.Sequential:
    """LSTM language model: token ids int64 (times,) to scores of the next token (times, vocabulary).

    Zaremba, Sutskever and Vinyals, Recurrent Neural Network Regularization (2014), whose "medium" network has the
    default sizes; BigDL's PTBModel. Dropout is on the embedding, between the LSTM's layers and behind them, not from
    step to step. Train it with nn.CrossEntropyLoss.

    Args:
        vocabulary: number of tokens.
        embedding_dim: hidden_size by default.
        tied: the output layer is the embedding (Press and Wolf, 2017); a linear layer comes before it where
            embedding_dim is not hidden_size.
    """
    size = hidden_size if embedding_dim is None else embedding_dim
    start = nn.init.RandomUniform(-SMALL, SMALL)
    embedding = nn.Embedding(vocabulary, size, sparse=not tied, weight_init=start, name="embedding")
    model = nn.Sequential(embedding)
    if dropout:
        model.add(nn.Dropout(dropout))
    model.add(nn.LSTM(size, hidden_size, layers, dropout=dropout if layers > 1 else 0.0, name="lstm"))
    if dropout:
        model.add(nn.Dropout(dropout))
    if not tied:
        return model.add(
            nn.Linear(hidden_size, vocabulary, weight_init=start, bias_init=nn.init.Zeros(), name="output")
        )
    if size != hidden_size:
        model.add(nn.Linear(hidden_size, size, name="projection"))
    return model.add(embedding)
