"""Dropout and noise: their distribution, their gradients and that they follow the key."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from layer_check import check_layer, drawn

from compute import InputError, nn
from compute.nn.dropout import keep_mask, quantized
from compute.nn.layer import LayerContext, Pass
from compute.philox import Stream


def context(training: bool = True, micro_batch: int = 0) -> LayerContext:
    current = Pass()
    current.training = training
    current.key = (7, 3, micro_batch)
    return LayerContext(0, current, (True,), {})


LAYERS = [nn.Dropout(0.5), nn.Dropout(0.1), nn.Dropout(0.0), nn.GaussianDropout(0.3), nn.GaussianNoise(0.2)]


@pytest.mark.parametrize("p", [0.5, 0.25, 0.1, 1e-9, 0.999999])
def test_dropout_keeps_the_right_share_and_the_mean(p: float) -> None:
    x = np.ones((64, 3, 1001), dtype=np.float32)
    current = context()
    layer = nn.Dropout(p)
    y = layer.forward(x, {}, current)
    exact = p if (p * 256).is_integer() else np.clip(np.round(p * 65536), 1, 65535) / 65536
    assert set(np.unique(y)) <= {np.float32(0), np.float32(1 / (1 - exact))}
    assert abs((y == 0).mean() - exact) < 5 * np.sqrt(exact * (1 - exact) / y.size)
    # The gradient is that of the same mask.
    grad = np.random.default_rng(0).standard_normal(x.shape, dtype=np.float32)
    np.testing.assert_allclose(layer.backward(x, y, grad, {}, {}, current), grad * y, rtol=1e-6)


@pytest.mark.parametrize("p", [0.25, 0.1])
@pytest.mark.parametrize("count", [1, 7, 65535, 65536, 65537, 200001])
def test_masks_are_the_words_of_one_stream(p: float, count: int) -> None:
    """However many are drawn at once."""
    threshold, levels = quantized(p)
    stream = Stream("t", 1)
    words = stream.words8(count) if levels == 256 else stream.words16(count)
    expected = words >= threshold
    assert keep_mask(Stream("t", 1), count, p).tobytes() == expected.tobytes()
    out = np.zeros((count, 1), dtype=bool)
    assert keep_mask(Stream("t", 1), count, p, out) is out
    assert out.tobytes() == expected.tobytes()


def test_neighbours_are_dropped_independently() -> None:
    y = nn.Dropout(0.5).forward(np.ones((1000, 1000), dtype=np.float32), {}, context()) > 0
    for a, b in ((y[1:], y[:-1]), (y[:, 1:], y[:, :-1]), (y[:, 8:], y[:, :-8]), (y[:, 1::2], y[:, ::2])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5e-3


def test_gaussian_dropout_and_noise_have_the_right_moments() -> None:
    x = np.full((200, 1000), 2, dtype=np.float32)
    y = nn.GaussianDropout(0.2).forward(x, {}, context())
    assert y.mean() == pytest.approx(2, abs=0.02)
    assert y.std() == pytest.approx(2 * np.sqrt(0.2 / 0.8), rel=0.02)
    y = nn.GaussianNoise(0.7).forward(x, {}, context())
    assert y.mean() == pytest.approx(2, abs=0.02)
    assert y.std() == pytest.approx(0.7, rel=0.02)


def test_gaussian_gradients() -> None:
    x, grad = (np.random.default_rng(i).standard_normal((5, 7), dtype=np.float32) for i in range(2))
    for layer, factor in ((nn.GaussianDropout(0.3), None), (nn.GaussianNoise(0.3), np.ones_like(x))):
        current = context()
        y = layer.forward(x, {}, current)
        expected = grad * (y / x if factor is None else factor)
        np.testing.assert_allclose(layer.backward(x, y, grad, {}, {}, current), expected, rtol=1e-5)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("shape", [(1,), (1, 1), (3, 5, 7)])
def test_the_key_decides_and_evaluation_is_the_identity(layer: nn.UnaryLayer, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    before = x.copy()
    first, again = (layer.forward(x, {}, context()) for _ in range(2))
    assert first.tobytes() == again.tobytes()
    assert first.dtype == np.float32
    assert first.shape == shape
    if x.size > 1 and getattr(layer, "p", 1) > 0:
        assert first.tobytes() != layer.forward(x, {}, context(micro_batch=1)).tobytes()
    evaluation = context(training=False)
    assert layer.forward(x, {}, evaluation).tobytes() == x.tobytes()
    assert layer.backward(x, x, x, {}, {}, evaluation).tobytes() == x.tobytes()
    assert x.tobytes() == before.tobytes()


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Dropout(0.25), (4, 7)),
        (nn.Dropout(0.1), (33,)),
        (nn.SpatialDropout1d(0.5), (8, 5)),
        (nn.SpatialDropout2d(0.5), (8, 3, 4)),
        (nn.SpatialDropout3d(0.5), (8, 2, 3, 1)),
        (nn.GaussianDropout(0.3), (5, 3)),
    ],
    ids=lambda value: value.kind if isinstance(value, nn.Module) else "",
)
def test_factors_are_the_same_on_every_engine(layer: nn.Module, shape: tuple[int, ...]) -> None:
    factors = torch.tensor(drawn(layer, [shape], 1.0).astype(np.float64))
    check_layer(layer, [shape], lambda x: x * factors, evaluation=False)


def test_noise_is_the_same_on_every_engine() -> None:
    shape = (5, 3)
    kinds: list[tuple[nn.Module, Callable[..., torch.Tensor]]] = [
        (nn.GaussianNoise(0.3), lambda x: x + torch.tensor(drawn(nn.GaussianNoise(0.3), [shape], 0.0))),
        (
            nn.GaussianSampler(),
            lambda m, v: m + (v / 2).exp() * torch.tensor(drawn(nn.GaussianSampler(), [shape] * 2, 0.0)),
        ),
    ]
    for layer, reference in kinds:
        check_layer(layer, [shape] * (1 + isinstance(layer, nn.GaussianSampler)), reference, evaluation=False)


def test_wrong_probabilities_are_refused() -> None:
    for p in (1.0, -0.1, float("nan"), "0.5", True):
        for kind in (nn.Dropout, nn.GaussianDropout):
            with pytest.raises(InputError, match=f"{kind.__name__}: the probability p must be"):
                kind(p)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="GaussianNoise: stddev"):
        nn.GaussianNoise(float("nan"))


@pytest.mark.parametrize("shape", [(1,), (3, 5)])
def test_the_sampler_draws_around_the_mean_and_passes_gradients(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    mean, log_variance, grad = (rng.standard_normal((4, *shape), dtype=np.float32) for _ in range(3))
    layer, current = nn.GaussianSampler(), context()
    (y,) = layer.forward_many((mean, log_variance), {}, current)
    noise = (y - mean) / np.exp(log_variance / 2)
    grad_mean, grad_log_variance = layer.backward_many((mean, log_variance), (y,), (grad,), {}, {}, current)
    assert grad_mean is not None
    assert grad_log_variance is not None
    np.testing.assert_array_equal(grad_mean, grad)
    # y = mean + exp(log_variance / 2) * noise, whose derivative is half of what is behind the plus.
    np.testing.assert_allclose(grad_log_variance, grad * np.exp(log_variance / 2) * noise / 2, rtol=1e-5, atol=1e-6)
    (other,) = layer.forward_many((mean, log_variance), {}, context(micro_batch=1))
    assert other.tobytes() != y.tobytes()
    evaluation = context(training=False)
    assert layer.forward_many((mean, log_variance), {}, evaluation)[0].tobytes() == mean.tobytes()
    grads = layer.backward_many((mean, log_variance), (mean,), (grad,), {}, {}, evaluation)
    assert grads[0] is grad
    assert grads[1] is not None
    assert not grads[1].any()
    with pytest.raises(InputError, match=r"mean, log_variance\) of one shape"):
        layer.output_shape(shape, (*shape, 2))


def test_the_sampler_has_the_right_moments() -> None:
    mean, log_variance = np.full((200, 1000), 3, dtype=np.float32), np.full((200, 1000), np.log(4.0), dtype=np.float32)
    (y,) = nn.GaussianSampler().forward_many((mean, log_variance), {}, context())
    assert y.mean() == pytest.approx(3, abs=0.03)
    assert y.std() == pytest.approx(2, rel=0.02)
