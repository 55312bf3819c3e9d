"""Every ready network gives the same bits whenever it is compiled and run, on every engine that is quick enough."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from layer_check import WeightedSum

import compute
from compute import TensorSpec, models, nn

IDS = TensorSpec((12,), "int64")
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[TensorSpec, ...], tuple[str, ...]]] = {
    "lenet5": (models.lenet5, (TensorSpec((1, 28, 28)),), ("numpy", "mkl", "onednn")),
    "vgg_cifar10": (models.vgg_cifar10, (TensorSpec((3, 32, 32)),), ("numpy", "onednn")),
    "vgg16": (lambda: models.vgg16(7), (TensorSpec((3, 224, 224)),), ()),
    "vgg19": (lambda: models.vgg19(7), (TensorSpec((3, 224, 224)),), ()),
    "inception_v1": (lambda: models.inception_v1(7), (TensorSpec((3, 224, 224)),), ("onednn",)),
    "inception_v2": (lambda: models.inception_v2(7), (TensorSpec((3, 224, 224)),), ("onednn",)),
    "resnet18": (lambda: models.resnet18(7), (TensorSpec((3, 64, 64)),), ("onednn",)),
    "resnet20": (models.resnet20, (TensorSpec((3, 32, 32)),), ("numpy", "mkl", "onednn")),
    "resnet34": (lambda: models.resnet34(7), (TensorSpec((3, 64, 64)),), ("onednn",)),
    "resnet50": (lambda: models.resnet50(7), (TensorSpec((3, 64, 64)),), ("onednn",)),
    "resnet56": (models.resnet56, (TensorSpec((3, 32, 32)),), ("onednn",)),
    "resnet_cifar": (lambda: models.resnet_cifar(8), (TensorSpec((3, 32, 32)),), ("numpy", "onednn")),
    "autoencoder": (models.autoencoder, (TensorSpec((784,)),), ("numpy", "mkl", "onednn")),
    "simple_rnn": (lambda: models.simple_rnn(9, 4, 9), (TensorSpec((12, 9)),), ("numpy", "mkl", "onednn")),
    "lstm_language_model": (lambda: models.lstm_language_model(30, 8), (IDS,), ("numpy", "mkl", "onednn")),
    "text_cnn": (lambda: models.text_cnn(3, 30, 8), (IDS,), ("numpy", "mkl", "onednn")),
    "transformer": (
        lambda: models.transformer(
            30, None, 8, 2, num_encoder_layers=1, num_decoder_layers=1, dim_feedforward=16, lengths=False
        ),
        (IDS, IDS),
        ("numpy", "mkl", "onednn"),
    ),
    "transformer_language_model": (
        lambda: models.transformer_language_model(30, 8, 2, 2),
        (IDS,),
        ("numpy", "mkl", "onednn"),
    ),
}


def test_every_network_is_here() -> None:
    assert sorted(NETWORKS) == sorted(models.__all__)


@pytest.mark.parametrize(
    ("name", "engine"), [(name, engine) for name, (_, _, engines) in NETWORKS.items() for engine in engines]
)
def test_the_same_bits_every_time(name: str, engine: str) -> None:
    make, specs, _ = NETWORKS[name]
    rng = np.random.default_rng(1)
    x = tuple(
        rng.integers(0, 9, (2, *spec.shape)) if spec.dtype == "int64"
        else rng.standard_normal((2, *spec.shape), dtype=np.float32)
        for spec in specs
    )  # fmt: skip
    found = set()
    for _ in range(2):
        program = compute.compile(make(), WeightedSum(), specs, engine=engine)
        program.parameters[:] = compute.initial_parameters(make(), specs, 1)
        program.parameters_changed()
        targets = tuple(
            np.random.default_rng(2).standard_normal((2, *spec.shape), dtype=np.float32)
            for spec in program.output_specs
        )
        for _ in range(2):
            loss = program.forward_backward(x, targets, 0.5, (3, 1, 0))
            assert np.isfinite(loss)
            assert np.isfinite(program.gradients).all()
            assert program.gradients.any()
            found.add((loss, program.gradients.tobytes()))
    assert len(found) == 1
