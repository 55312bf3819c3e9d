"""The limit of a training step, as benchmarks/compute computes it."""

from __future__ import annotations

import numpy as np
import pytest

import compute
from benchmarks.compute.networks import NETWORKS
from benchmarks.compute.roofline import measure, step_flops
from compute import nn
from compute.graph import build_graph


def test_operations_of_vgg() -> None:
    """1.88 GFLOP per image: 313 million multiplications, three times but for the first layer, two operations each."""
    graph = build_graph(NETWORKS["vgg_cifar10"].ours(), (3, 32, 32))
    sizes = [(3, 64, 32), (64, 64, 32), (64, 128, 16), (128, 128, 16), (128, 256, 8), (256, 256, 8), (256, 256, 8)]
    sizes += [(256, 512, 4), (512, 512, 4), (512, 512, 4), *[(512, 512, 2)] * 3]
    forward = sum(2 * 9 * c * k * size**2 for c, k, size in sizes) + 2 * (512 * 512 + 512 * 10)
    first = 2 * 9 * 3 * 64 * 32**2
    assert step_flops(graph, 1) == 3 * forward - first
    assert step_flops(graph, 8) == 8 * step_flops(graph, 1)


def test_operations_of_sequences() -> None:
    """Of an LSTM both maps at every step; of attention the scores and what is mixed by them."""
    model = nn.Sequential(nn.Embedding(11, 4), nn.LSTM(4, 6), nn.Linear(6, 3))
    graph = build_graph(model, compute.TensorSpec((5,), "int64"))
    assert step_flops(graph, 2) == 2 * 3 * 2 * 5 * (24 * 4 + 24 * 6 + 6 * 3)
    model = nn.Sequential(nn.Embedding(11, 8), nn.TransformerEncoderLayer(8, 2, 16, causal=True))
    graph = build_graph(model, compute.TensorSpec((5,), "int64"))
    maps = 5 * (4 * 8 * 8 + 2 * 8 * 16)
    scores = 2 * (2 * 5 * 5 * 4)
    assert step_flops(graph, 1) == pytest.approx(2 * (3 * maps + 2 * scores))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_measured_parts_add_up(precision: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(1152, 5))
    program = compute.compile(model, nn.CrossEntropyLoss(), (3, 8, 8), precision=precision)
    updates = []
    x = np.random.default_rng(1).standard_normal((4, 3, 8, 8), dtype=np.float32)
    found = measure(program, x, np.array([0, 1, 2, 3]), lambda: updates.append(1), steps=2)
    assert len(updates) == 2
    assert 0 < found.passes_s < found.step_s
    parts = found.flops / found.rate + found.passes_s + found.update_s + found.copy_s
    assert found.limit_s == parts
    # The step runs as before: what watched it is gone.
    assert "watched" not in repr(vars(program.training_plan(x))["_loss_gradient"])
