"""The language models of compute.models in PyTorch, with the same initial weights, and their training."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import compute
from compute import data, models
from compute.torch_weights import parameters_from_torch


class LstmTwin(nn.Module):
    """compute.models.lstm_language_model(tied=False)."""

    def __init__(self, vocabulary: int, size: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, size)
        self.lstm = nn.LSTM(size, size, layers, dropout=dropout if layers > 1 else 0.0, batch_first=True)
        self.output = nn.Linear(size, vocabulary)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (n, times, vocabulary)."""
        scores: Tensor = self.output(self.drop(self.lstm(self.drop(self.embedding(x)))[0]))
        return scores


class TransformerTwin(nn.Module):
    """compute.models.transformer_language_model(tied=True), whose positions are sines and cosines."""

    def __init__(self, vocabulary: int, size: int, heads: int, layers: int, dropout: float, length: int) -> None:
        super().__init__()
        self.embedding, self.scale = nn.Embedding(vocabulary, size), math.sqrt(size)
        layer = nn.TransformerEncoderLayer(size, heads, 4 * size, dropout, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(size), enable_nested_tensor=False)
        self.drop = nn.Dropout(dropout)
        angle = torch.arange(length)[:, None] / 10000.0 ** (torch.arange(0, size, 2) / size)
        positions = torch.stack([torch.sin(angle), torch.cos(angle)], dim=2).reshape(length, size)
        self.register_buffer("positions", positions, persistent=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (n, times, vocabulary)."""
        hidden = self.drop(self.embedding(x) * self.scale + self.positions)
        hidden = self.encoder(hidden, mask=self.mask, is_causal=True)
        return functional.linear(hidden, self.embedding.weight)


def with_our_weights(twin: nn.Module, ours: compute.nn.Module, length: int, seed: int) -> nn.Module:
    """The twin with the initial parameters of our model; fails unless every one of them has its place."""
    inputs = compute.TensorSpec((length,), "int64")
    flat = compute.initial_parameters(ours, inputs, seed)
    parameters = compute.graph.build_graph(ours, inputs).parameters
    values = {p.name: torch.tensor(flat[p.span].reshape(p.spec.shape)) for p in parameters}
    state = twin.state_dict()
    for name in state:
        parts = [name.replace("in_proj_", f"{part}_proj.") for part in "qkv"] if ".in_proj_" in name else [name]
        state[name] = torch.cat([values[part] for part in parts])
    twin.load_state_dict(state)
    if not np.array_equal(parameters_from_torch(ours, inputs, twin.state_dict()), flat):
        raise SystemExit("the twin is not the same network")
    return twin


def perplexity(twin: nn.Module, tokens: Tensor, length: int, batch_size: int) -> float:
    """exp of the mean loss over all windows."""
    twin.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for x, y in batches(tokens, length, batch_size, None):
            total += float(functional.cross_entropy(twin(x).flatten(0, 1), y.flatten(), reduction="sum"))
            count += y.numel()
    return math.exp(total / count)


def batches(tokens: Tensor, length: int, batch_size: int, order: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Windows and the same one token later, int64 (batch_size or fewer, length) each."""
    windows = (len(tokens) - 1) // length
    x = tokens[: windows * length].reshape(windows, length)
    y = tokens[1 : windows * length + 1].reshape(windows, length)
    chosen = torch.arange(windows) if order is None else order
    for begin in range(0, windows, batch_size):
        picked = chosen[begin : begin + batch_size]
        yield x[picked], y[picked]


def main() -> None:
    """Trains as the example scripts do and prints the perplexity of the validation set after each epoch as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.language_models.torch_twin", description=__doc__)
    parser.add_argument("network", choices=["lstm", "transformer"])
    parser.add_argument("-f", "--folder", required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--dropout", type=float, required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--warm-up", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    folder = Path(options.folder)
    vocabulary = len(data.Vocabulary.load(folder / "vocabulary.txt"))
    train, valid = (torch.tensor(np.load(folder / f"{name}.npy")) for name in ("train", "valid"))
    size, layers, dropout, length = options.size, options.layers, options.dropout, options.length
    if options.network == "lstm":
        ours = models.lstm_language_model(vocabulary, size, layers, dropout)
        twin: nn.Module = LstmTwin(vocabulary, size, layers, dropout)
    else:
        ours = models.transformer_language_model(vocabulary, size, 4, layers, dropout=dropout)
        twin = TransformerTwin(vocabulary, size, 4, layers, dropout, length)
    with_our_weights(twin, ours, length, options.seed)
    optimizer = torch.optim.AdamW(twin.parameters(), options.learning_rate, weight_decay=0.0)
    windows = (len(train) - 1) // length
    steps = options.epochs * math.ceil(windows / options.batch_size)
    warm_up = min(options.warm_up, steps // 10)
    step = 0
    for _ in range(options.epochs):
        twin.train()
        for x, y in batches(train, length, options.batch_size, torch.randperm(windows)):
            done = (step - warm_up) / (steps - warm_up)
            factor = (step + 1) / warm_up if step < warm_up else (1.0 + math.cos(math.pi * done)) / 2.0
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * factor
            optimizer.zero_grad()
            functional.cross_entropy(twin(x).flatten(0, 1), y.flatten()).backward()
            nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
            optimizer.step()
            step += 1
        print(json.dumps({"perplexity": perplexity(twin, valid, length, options.batch_size)}), flush=True)


if __name__ == "__main__":
    main()
