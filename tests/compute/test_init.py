"""Initializers: distributions, fans as PyTorch counts them, and the same bits everywhere."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import scipy.stats
import torch

from compute import InputError, nn
from compute.nn import init
from compute.philox import Stream

SHAPES = [(300, 400), (40, 30, 3, 5), (64, 20, 7), (1, 2, 300)]


def draw(initializer: init.Initializer, shape: tuple[int, ...]) -> np.ndarray:
    values = initializer(shape, Stream("test", 1))
    assert values.shape == shape
    assert values.dtype == np.float32
    assert np.array_equal(values, initializer(shape, Stream("test", 1)))
    return values


@pytest.mark.parametrize("shape", SHAPES)
def test_fans_are_pytorch_s(shape: tuple[int, ...]) -> None:
    expected = torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))
    assert init.fans(shape) == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_scales(shape: tuple[int, ...]) -> None:
    """Uniform and normal initializers with the standard deviations of their papers."""
    fan_in, fan_out = init.fans(shape)
    expected = [
        (init.XavierUniform(), math.sqrt(2 / (fan_in + fan_out)), "uniform"),
        (init.XavierNormal(2.0), 2 * math.sqrt(2 / (fan_in + fan_out)), "norm"),
        (init.KaimingUniform(), math.sqrt(2 / fan_in), "uniform"),
        (init.KaimingUniform(a=math.sqrt(5)), math.sqrt(1 / (3 * fan_in)), "uniform"),
        (init.KaimingNormal(mode="fan_out"), math.sqrt(2 / fan_out), "norm"),
        (init.KaimingNormal(mode="fan_avg", gain=1.0), math.sqrt(2 / (fan_in + fan_out)), "norm"),
        (init.RandomNormal(0.0, 0.01), 0.01, "norm"),
    ]
    for initializer, std, kind in expected:
        values = draw(initializer, shape).ravel().astype(np.float64) / std
        if kind == "uniform":
            values = (values / math.sqrt(3) + 1) / 2
        assert scipy.stats.kstest(values, kind).pvalue > 1e-3, type(initializer).__name__


def test_random_normal_has_its_mean() -> None:
    values = draw(init.RandomNormal(3.0, 0.5), (100_000,))
    assert values.mean() == pytest.approx(3, abs=0.01)
    assert values.std() == pytest.approx(0.5, rel=0.02)


def test_truncated_normal() -> None:
    values = draw(init.TruncatedNormal(1.0, 0.5), (50_000,)).astype(np.float64)
    assert np.abs(values - 1).max() <= 1
    assert scipy.stats.kstest((values - 1) / 0.5, scipy.stats.truncnorm(-2, 2).cdf).pvalue > 1e-3
    values = draw(init.TruncatedNormal(0.0, 1.0, low=1.0, high=3.0), (200, 30)).astype(np.float64)
    assert scipy.stats.kstest(values.ravel(), scipy.stats.truncnorm(1, 3).cdf).pvalue > 1e-3
    with pytest.raises(InputError, match="hardly any values"):
        init.TruncatedNormal(0.0, 1.0, low=5.0, high=6.0)
    with pytest.raises(InputError, match="hardly any values"):
        init.TruncatedNormal(0.0, 1.0, low=1.0, high=-1.0)


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (6, 6), (4, 3, 2, 2), (20, 2, 3), (1, 7), (7, 1)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    matrix = draw(init.Orthogonal(2.0), shape).reshape(shape[0], -1).astype(np.float64)
    if len(matrix) > matrix.shape[1]:
        matrix = matrix.T
    np.testing.assert_allclose(matrix @ matrix.T, 4 * np.eye(len(matrix)), atol=1e-6)


def test_orthogonal_matrices_are_spread_evenly() -> None:
    """Every element of a random orthogonal 3 x 3 matrix is uniform in -1..1 (Archimedes)."""
    values = np.array([init.Orthogonal()((3, 3), Stream("test", seed)) for seed in range(1500)])
    for row in range(3):
        for column in range(3):
            assert scipy.stats.kstest((values[:, row, column] + 1) / 2, "uniform").pvalue > 1e-4


def test_bilinear_enlarges_as_interpolation() -> None:
    """A transposed convolution with stride 2 and this kernel is bilinear interpolation (away from the border)."""
    weight = draw(init.Bilinear(), (1, 1, 4, 4))
    x = torch.randn(1, 1, 6, 5, generator=torch.Generator().manual_seed(1))
    found = torch.nn.functional.conv_transpose2d(x, torch.tensor(weight), stride=2, padding=1)
    expected = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], atol=1e-6)
    assert draw(init.Bilinear(), (2, 3, 3)).tolist() == [[[0.25, 0.75, 0.75]] * 3] * 2


def test_the_bits_are_the_same_everywhere() -> None:
    """Digests from one machine: nothing here may depend on a library's version or the processor."""
    expected = {
        init.XavierUniform: "dc940a621742c3aa",
        init.KaimingNormal: "d48640551aded6df",
        init.TruncatedNormal: "6c012e4ef5ef015f",
        init.Orthogonal: "6fbd81fe17e12d17",
        init.Bilinear: "175fc13f1113192f",
    }
    for initializer, digest in expected.items():
        values = initializer()((24, 12, 3), Stream("test", 7))
        assert hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()[:16] == digest, initializer.__name__


def test_wrong_arguments() -> None:
    for make, text in (
        (lambda: init.KaimingNormal()((3,), Stream("test", 1)), "for weights"),
        (lambda: init.Orthogonal()((3,), Stream("test", 1)), "for weights"),
        (lambda: init.Bilinear()((3, 3), Stream("test", 1)), "for the weights of convolutions"),
        (lambda: init.KaimingNormal(mode="fan"), "mode must be"),  # type: ignore[arg-type]
        (lambda: init.RandomNormal(0, -1), "standard deviation"),
    ):
        with pytest.raises(InputError, match=text):
            make()
    assert nn.init is init
