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


@pytest.mark.parametrize(("layer", "shape"), BATCH_NORMS)
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_when_frozen(layer: Any, shape: tuple[int, ...], affine: bool) -> None:
    """A frozen layer normalizes by its running statistics and leaves them, in training as in evaluation."""
    rng = np.random.default_rng(2)
    module = layer(shape[0], affine=affine).freeze()
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


def test_batch_norm_far_from_zero_keeps_its_precision() -> None:
    """A mean 3000 times the deviation: one-pass float32 variances would be noise."""
    x = (3000 + np.random.default_rng(0).standard_normal((8, 2, 30, 30))).astype(np.float32)

    def reference(x: Any, weight: Any, bias: Any, **statistics: Any) -> Any:
        return F.batch_norm(x, None, None, weight, bias, training=True)

    check_layer(nn.BatchNorm2d(2), [(2, 30, 30)], reference, data=[x], evaluation=False)


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
