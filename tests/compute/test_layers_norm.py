"""Normalizations against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import compute
from compute import InputError, nn
from compute.nn.layer import LayerContext, Pass
from tests.compute.layer_check import WeightedSum, check_layer

F = torch.nn.functional

BATCH_NORMS: list[tuple[type[nn.Module], tuple[int, ...]]] = [
    (nn.BatchNorm1d, (5,)),
    (nn.BatchNorm1d, (3, 7)),
    (nn.BatchNorm1d, (1, 1)),
    (nn.BatchNorm2d, (4, 5, 3)),
    (nn.BatchNorm2d, (1, 1, 2)),
    (nn.BatchNorm3d, (2, 3, 1, 4)),
]


@pytest.mark.parametrize(("layer", "shape"), BATCH_NORMS)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("tracks", [True, False])
@pytest.mark.parametrize(("batch", "eps"), [(2, 0.3), (7, 1e-3)])
def test_batch_norm_in_training(
    layer: Any, shape: tuple[int, ...], affine: bool, tracks: bool, batch: int, eps: float
) -> None:
    # Of two values the normalized ones are -1 and 1 whatever x is, so without a large eps the gradient is all rounding.
    def reference(x: Any, weight: Any = None, bias: Any = None, **statistics: Any) -> Any:
        return F.batch_norm(x, None, None, weight, bias, training=True, eps=eps)

    module = layer(shape[0], eps, affine=affine, track_running_stats=tracks)
    check_layer(module, [shape], reference, batch=batch, evaluation=not tracks)


@pytest.mark.parametrize(
    ("layer", "shape"), [*BATCH_NORMS, (nn.InstanceNorm1d, (3, 7)), (nn.InstanceNorm2d, (2, 3, 4))]
)
@pytest.mark.parametrize("affine", [True, False])
def test_batch_and_instance_norm_when_frozen(layer: Any, shape: tuple[int, ...], affine: bool) -> None:
    """A frozen layer normalizes by its running statistics and leaves them, in training as in evaluation."""
    rng = np.random.default_rng(2)
    module = layer(shape[0], affine=affine, track_running_stats=True).freeze()
    parameters = {p.name: rng.uniform(0.5, 2, p.shape).astype(np.float32) for p in module.parameters(shape)}
    x, grad = rng.standard_normal((2, 3, *shape), dtype=np.float32)
    statistics = {name: np.full(shape[0], 7.0, dtype=np.float32) for name in ("running_mean", "running_var")}
    current = Pass()
    current.training = True
    context = LayerContext(0, current, (True,), statistics)
    y = module.forward(x, parameters, context)
    gradients = {name: np.zeros_like(value) for name, value in parameters.items()}
    grad_x = module.backward(x, y, grad, parameters, gradients, context)

    t = {name: torch.tensor(value, requires_grad=name in ("weight", "bias")) for name, value in parameters.items()}
    tx = torch.tensor(x, requires_grad=True)
    expected = F.batch_norm(tx, t["running_mean"], t["running_var"], t.get("weight"), t.get("bias"), training=False)
    expected.backward(torch.tensor(grad))
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(grad_x, tx.grad.numpy(), rtol=1e-5, atol=1e-6)  # type: ignore[union-attr]
    for name in ("weight", "bias") if affine else ():
        np.testing.assert_allclose(gradients[name], t[name].grad.numpy(), rtol=1e-4, atol=1e-5)  # type: ignore[union-attr]
    assert all((value == 7.0).all() for value in statistics.values())


@pytest.mark.parametrize(("layer", "shape"), BATCH_NORMS)
def test_running_statistics(layer: Any, shape: tuple[int, ...]) -> None:
    """Two micro-batches of a step: the shares of their statistics, and PyTorch's after as many updates."""
    rng = np.random.default_rng(1)
    module = layer(shape[0], momentum=0.3)
    program = compute.compile(nn.Sequential(module), WeightedSum(), shape, engine="numpy")
    spans = {p.name.split(".")[1]: p.span for p in program.graph.parameters}
    info = {i.name.split(".")[1]: i for i in compute.parameter_layout(nn.Sequential(module), shape)}
    assert info["running_mean"].kind == info["running_var"].kind == "statistic"
    assert info["running_mean"].momentum == info["running_var"].momentum == 0.3
    program.parameters[:] = compute.initial_parameters(nn.Sequential(module), shape, 1)
    program.parameters_changed()
    initial = program.parameters.copy()
    x = (3 + 2 * rng.standard_normal((6, *shape))).astype(np.float32)
    total = np.zeros_like(program.gradients)
    for part in (x[:2], x[2:]):
        program.forward_backward(part, np.ones_like(part), 1 / 6)
        total += program.gradients
    expected = {"running_mean": np.zeros(shape[0]), "running_var": np.zeros(shape[0])}
    for part in (x[:2], x[2:]):
        twin = torch.nn.functional.batch_norm
        mean, var = torch.zeros(shape[0], dtype=torch.float64), torch.ones(shape[0], dtype=torch.float64)
        twin(torch.tensor(part.astype(np.float64)), mean, var, training=True, momentum=1.0)
        expected["running_mean"] += len(part) / 6 * mean.numpy()
        expected["running_var"] += len(part) / 6 * var.numpy()
    for name, value in expected.items():
        np.testing.assert_allclose(total[spans[name]], value, rtol=1e-5)
    assert np.array_equal(program.parameters, initial)


def test_evaluation_uses_running_statistics() -> None:
    module = nn.Sequential(nn.BatchNorm2d(3))
    program = compute.compile(module, WeightedSum(), (3, 4, 4), engine="numpy")
    rng = np.random.default_rng(0)
    program.parameters[:] = rng.uniform(0.5, 2.0, program.parameters.size)
    program.parameters_changed()
    x = rng.standard_normal((2, 3, 4, 4), dtype=np.float32)
    weight, bias, mean, var = torch.tensor(program.parameters.reshape(4, 3))
    expected = F.batch_norm(torch.tensor(x), mean, var, weight, bias)
    np.testing.assert_allclose(program.forward(x), expected.numpy(), rtol=1e-5, atol=1e-6)


def test_batch_norm_far_from_zero_keeps_its_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mean 3000 times the deviation: one-pass float32 variances would be noise. Our own formulas only."""
    monkeypatch.setattr("tests.compute.layer_check.ENGINES", ("numpy",))  # oneDNN's means are off by 1e-3 here
    x = (3000 + np.random.default_rng(0).standard_normal((8, 2, 30, 30))).astype(np.float32)

    def reference(x: Any, weight: Any, bias: Any, **statistics: Any) -> Any:
        return F.batch_norm(x, None, None, weight, bias, training=True)

    check_layer(nn.BatchNorm2d(2), [(2, 30, 30)], reference, data=[x], evaluation=False, engines=("numpy",))


def test_batch_norm_of_one_value() -> None:
    """PyTorch refuses it; a short last micro-batch must not end a job."""
    program = compute.compile(nn.Sequential(nn.BatchNorm1d(2)), WeightedSum(), (2,), engine="numpy")
    program.parameters[:] = 0.5
    x = np.array([[3.0, -1.0]], dtype=np.float32)
    assert program.forward_backward(x, np.ones_like(x), 1.0) == pytest.approx(1.0)
    np.testing.assert_array_equal(program.gradients.reshape(4, 2), [[0, 0], [1, 1], [3, -1], [0, 0]])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("shape", [(6, 3, 4), (1, 2, 2), (7,), (5, 4)])
def test_local_response_norm(size: int, shape: tuple[int, ...]) -> None:
    def reference(x: Any) -> Any:
        flat = x.reshape(*x.shape[:2], -1)  # PyTorch takes no (n, channels)
        return F.local_response_norm(flat, size, 0.3, 0.6, 2.0).reshape(x.shape)

    check_layer(nn.LocalResponseNorm(size, 0.3, 0.6, 2.0), [shape], reference)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_within_channel_lrn(size: int) -> None:
    def reference(x: Any) -> Any:
        return x * (1 + 0.5 * F.avg_pool2d(x * x, size, 1, size // 2)) ** -0.75

    check_layer(nn.WithinChannelLRN(size, 0.5), [(3, 4, 6)], reference)


def test_wrong_arguments() -> None:
    for make, text in (
        (lambda: nn.BatchNorm2d(0), "num_features"),
        (lambda: nn.BatchNorm2d(3, momentum=1.5), "momentum must be a number from 0 to 1"),
        (lambda: nn.BatchNorm2d(3, eps=-1), "eps"),
        (lambda: nn.BatchNorm2d(3).output_shape((4, 5, 5)), r"needs \(3, height, width\)"),
        (lambda: nn.BatchNorm1d(3).output_shape((3, 5, 5)), r"needs \(3\) or \(3, length\)"),
        (lambda: nn.WithinChannelLRN(4), "odd"),
        (lambda: nn.LocalResponseNorm(0), "size"),
    ):
        with pytest.raises(InputError, match=text):
            make()


@pytest.mark.parametrize("shape", [(7,), (4, 6), (2, 3, 5), (1,), (3, 1)])
@pytest.mark.parametrize(("affine", "bias"), [(True, True), (True, False), (False, False)])
def test_layer_norm(shape: tuple[int, ...], affine: bool, bias: bool) -> None:
    for dims in range(1, len(shape) + 1):
        last = shape[-dims:]

        def reference(x: Any, last: Any = last, **p: Any) -> Any:
            return F.layer_norm(x, last, p.get("weight"), p.get("bias"), 0.01)

        check_layer(nn.LayerNorm(last, 0.01, affine, bias), [shape], reference)


@pytest.mark.parametrize("affine", [True, False])
def test_rms_norm(affine: bool) -> None:
    for last in ((6,), (4, 6)):

        def reference(x: Any, weight: Any = None, last: Any = last) -> Any:
            return F.rms_norm(x, last, weight, 1e-3)

        check_layer(nn.RMSNorm(last, 1e-3, affine), [(4, 6)], reference)
    assert nn.RMSNorm(3).eps == np.finfo(np.float32).eps


def test_layer_norm_far_from_zero_keeps_its_precision() -> None:
    x = (3000 + np.random.default_rng(0).standard_normal((8, 200))).astype(np.float32)

    def reference(x: Any, weight: Any, bias: Any) -> Any:
        return F.layer_norm(x, (200,), weight, bias)

    check_layer(nn.LayerNorm(200), [(200,)], reference, data=[x], engines=("numpy",))


@pytest.mark.parametrize(("groups", "shape"), [(1, (4, 5)), (2, (4,)), (2, (6, 3, 4)), (6, (6, 7)), (3, (6, 2, 3, 2))])
@pytest.mark.parametrize("affine", [True, False])
def test_group_norm(groups: int, shape: tuple[int, ...], affine: bool) -> None:
    def reference(x: Any, weight: Any = None, bias: Any = None) -> Any:
        return F.group_norm(x, groups, weight, bias, 0.1)

    check_layer(nn.GroupNorm(groups, shape[0], 0.1, affine), [shape], reference)


INSTANCE_NORMS: list[tuple[type[nn.Module], tuple[int, ...]]] = [
    (nn.InstanceNorm1d, (3, 7)),
    (nn.InstanceNorm2d, (4, 5, 3)),
    (nn.InstanceNorm3d, (2, 3, 1, 4)),
]


@pytest.mark.parametrize(("layer", "shape"), INSTANCE_NORMS)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("tracks", [True, False])
def test_instance_norm(layer: Any, shape: tuple[int, ...], affine: bool, tracks: bool) -> None:
    def reference(x: Any, weight: Any = None, bias: Any = None, **statistics: Any) -> Any:
        return F.instance_norm(x, None, None, weight, bias, eps=0.01)

    module = layer(shape[0], 0.01, affine=affine, track_running_stats=tracks)
    check_layer(module, [shape], reference, evaluation=not tracks)


@pytest.mark.parametrize(("layer", "shape"), INSTANCE_NORMS)
def test_running_statistics_of_instance_norm(layer: Any, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    module = nn.Sequential(layer(shape[0], affine=True, track_running_stats=True))
    program = compute.compile(module, WeightedSum(), shape, engine="numpy")
    program.parameters[:] = compute.initial_parameters(module, shape, 1)
    program.parameters_changed()
    x = (3 + 2 * rng.standard_normal((5, *shape))).astype(np.float32)
    program.forward_backward(x, np.ones_like(x), 1 / 5)
    twin: Any = {1: torch.nn.InstanceNorm1d, 2: torch.nn.InstanceNorm2d, 3: torch.nn.InstanceNorm3d}[len(shape) - 1](
        shape[0], affine=True, track_running_stats=True, momentum=1.0
    )
    twin(torch.tensor(x))
    mean, var = program.gradients[2 * shape[0] :].reshape(2, -1)
    np.testing.assert_allclose(mean, twin.running_mean.numpy(), rtol=1e-5)
    np.testing.assert_allclose(var, twin.running_var.numpy(), rtol=1e-5)
    twin.eval()
    program.parameters[2 * shape[0] :] = program.gradients[2 * shape[0] :]
    program.parameters_changed()
    np.testing.assert_allclose(program.forward(x), twin(torch.tensor(x)).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_wrong_shapes() -> None:
    for make, text in (
        (lambda: nn.LayerNorm((3, 0)), "normalized_shape"),
        (lambda: nn.LayerNorm((3, 4)).output_shape((4,)), r"needs \(\.\.\., 3, 4\)"),
        (lambda: nn.GroupNorm(2, 5), "num_groups must divide num_channels, got 2 and 5"),
        (lambda: nn.GroupNorm(1, 5).output_shape((4, 2)), r"needs \(5, \.\.\.\)"),
        (lambda: nn.InstanceNorm1d(5).output_shape((5,)), r"needs \(5, length\)"),
    ):
        with pytest.raises(InputError, match=text):
            make()


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, float("inf")])
@pytest.mark.parametrize(("shape", "dim"), [((5,), 0), ((4, 3), 0), ((4, 3), 1), ((2, 3, 4), -1), ((1,), 0)])
def test_normalize(p: float, shape: tuple[int, ...], dim: int) -> None:
    def reference(x: Any) -> Any:
        return F.normalize(x, p, dim % len(shape) + 1)

    check_layer(nn.Normalize(p, dim), [shape], reference)


def test_normalize_of_extremes() -> None:
    """Norms that overflow or vanish in float32, and one below eps."""
    x = np.array([[3e30, 4e30], [3e-30, 4e-30], [1e-14, 0], [0.3, -0.4]], dtype=np.float32)
    program = compute.compile(nn.Sequential(nn.Normalize(eps=1e-35)), WeightedSum(), (2,), engine="numpy")
    np.testing.assert_allclose(program.forward(x), [[0.6, 0.8], [0.6, 0.8], [1, 0], [0.6, -0.8]], rtol=1e-6)
    check_layer(nn.Normalize(eps=0.1), [(2,)], lambda x: F.normalize(x, eps=0.1), data=[x[2:]])


def test_normalize_scale() -> None:
    def reference(x: Any, scale_weight: Any) -> Any:
        return F.normalize(x, 2.0) * scale_weight

    layer = nn.NormalizeScale(2.0, 20.0, (3, 1, 1))
    check_layer(layer, [(3, 4, 5)], reference)
    np.testing.assert_array_equal(compute.initial_parameters(layer, (3, 4, 5), 1), [20, 20, 20])


KERNELS: list[Any] = [None, ((1.0, 2.0, 1.0), (0.0, 3.0, 1.0), (1.0, 1.0, 2.0)), (1.0, 3.0, 1.0, 0.5, 2.0), ((2.0,),)]


def neighbourhood(x: Any, kernel: Any) -> Any:
    """Weighted means of all channels around each pixel, zeros outside."""
    weights = torch.ones(9, 9) if kernel is None else torch.tensor(kernel)
    weights = torch.outer(weights, weights) if weights.ndim == 1 else weights
    weights = (weights / weights.sum() / x.shape[1]).to(x.dtype).expand(1, x.shape[1], *weights.shape)
    return F.conv2d(x, weights, padding=(weights.shape[2] // 2, weights.shape[3] // 2))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(3, 6, 7), (1, 4, 1)])
def test_subtractive_divisive_and_contrastive_normalization(kernel: Any, shape: tuple[int, ...]) -> None:
    def subtractive(x: Any) -> Any:
        return x - neighbourhood(x, kernel) / neighbourhood(torch.ones_like(x), kernel)

    def divisive(x: Any) -> Any:
        deviation = neighbourhood(x * x, kernel).sqrt() / neighbourhood(torch.ones_like(x), kernel)
        return x / F.threshold(deviation, 0.5, 0.7)

    check_layer(nn.SpatialSubtractiveNormalization(shape[0], kernel), [shape], subtractive)
    check_layer(nn.SpatialDivisiveNormalization(shape[0], kernel, 0.5, 0.7), [shape], divisive)
    if kernel != ((2.0,),) or shape[0] > 1:  # which leaves nothing but rounding
        check_layer(
            nn.SpatialContrastiveNormalization(shape[0], kernel, 0.5, 0.7), [shape], lambda x: divisive(subtractive(x))
        )


def test_kernels_of_even_size_are_refused() -> None:
    with pytest.raises(InputError, match=r"odd sizes with a positive sum, got shape \(2, 2\)"):
        nn.SpatialSubtractiveNormalization(1, (1.0, 1.0))
    with pytest.raises(InputError, match="p must be a number of at least 1"):
        nn.Normalize(0.5)
