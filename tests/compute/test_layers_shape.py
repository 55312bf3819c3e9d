"""Layers that rename, take, repeat and sum up elements, and those that change the gradient, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from layer_check import check_layer

import compute
from compute import InputError, TensorSpec, nn
from compute.graph import build_graph

Reference = Callable[[torch.Tensor], torch.Tensor]

SHAPES: list[tuple[nn.Module, tuple[int, ...], Reference]] = [
    (nn.Identity(), (2, 3), lambda x: x),
    (nn.Identity(), (), lambda x: x),
    (nn.Contiguous(), (2, 3), lambda x: x),
    (nn.Reshape(3, -1), (2, 6), lambda x: x.reshape(-1, 3, 4)),
    (nn.View(3, 4), (2, 6), lambda x: x.reshape(-1, 3, 4)),
    (nn.Flatten(), (2, 3, 1), lambda x: x.flatten(1)),
    (nn.InferReshape(0, -1), (2, 3, 5), lambda x: x.reshape(-1, 2, 15)),
    (nn.InferReshape(5, 0, 2), (2, 3, 5), lambda x: x.reshape(-1, 5, 3, 2)),
    (nn.Unflatten(1, (3, -1)), (2, 6), lambda x: x.unflatten(2, (3, -1))),
    (nn.Unflatten(-2, (2, 1)), (2, 6), lambda x: x.unflatten(-2, (2, 1))),
    (nn.Squeeze(), (1, 3, 1), lambda x: x[:, 0, :, 0]),
    (nn.Squeeze(0), (1, 3, 1), lambda x: x[:, 0]),
    (nn.Squeeze(1), (1, 3, 1), lambda x: x),
    (nn.Squeeze(-1), (1, 3, 1), lambda x: x[..., 0]),
    (nn.Unsqueeze(0), (2, 3), lambda x: x[:, None]),
    (nn.Unsqueeze(-1), (2, 3), lambda x: x[..., None]),
    (nn.Unsqueeze(2), (2, 3), lambda x: x[..., None]),
    (nn.Unsqueeze(0), (), lambda x: x[:, None]),
    (nn.Permute(2, 0, 1), (2, 3, 4), lambda x: x.permute(0, 3, 1, 2)),
    (nn.Permute(-1, 0, 1), (2, 3, 4), lambda x: x.permute(0, 3, 1, 2)),
    (nn.Transpose((0, 1)), (2, 3), lambda x: x.transpose(1, 2)),
    (nn.Transpose((0, 1), (1, -1)), (2, 3, 4), lambda x: x.transpose(1, 2).transpose(2, 3)),
    (nn.Narrow(0, 1, 2), (4, 3), lambda x: x[:, 1:3]),
    (nn.Narrow(-1, 1, -1), (4, 3), lambda x: x[..., 1:]),
    (nn.Narrow(-1, 0, -2), (4, 3), lambda x: x[..., :-1]),
    (nn.Narrow(0, -2), (4, 3), lambda x: x[:, 2:3]),
    (nn.Select(0, 2), (4, 3), lambda x: x[:, 2]),
    (nn.Select(-1, -1), (4, 3), lambda x: x[..., -1]),
    (nn.Select(0, 0), (1,), lambda x: x[:, 0]),
    (nn.Flip(0), (4, 3), lambda x: x.flip(1)),
    (nn.Flip(0, -1), (4, 3), lambda x: x.flip(1, 2)),
    (nn.Reverse(), (4, 3), lambda x: x.flip(1)),
    (nn.Expand(4, 3), (1, 3), lambda x: x.expand(-1, 4, 3)),
    (nn.Expand(2, -1, 5), (3, 1), lambda x: x[:, None].expand(-1, 2, 3, 5)),
    (nn.Expand(2), (), lambda x: x[:, None].expand(-1, 2)),
    (nn.Replicate(3), (4,), lambda x: x[:, None].expand(-1, 3, 4)),
    (nn.Replicate(3, -1), (4, 2), lambda x: x[..., None].expand(-1, 4, 2, 3)),
    (nn.Replicate(2, 1), (4, 2), lambda x: x[:, :, None].expand(-1, 4, 2, 2)),
    (nn.Tile(), (4, 3), lambda x: x.repeat(1, 2, 1)),
    (nn.Tile(1, 3), (4, 3), lambda x: x.repeat(1, 1, 3)),
    (nn.Tile(-1, 1), (4, 3), lambda x: x),
]


@pytest.mark.parametrize(("layer", "shape", "reference"), SHAPES, ids=lambda v: getattr(v, "kind", ""))
def test_rearranging_layers_on_both_types(layer: nn.Module, shape: tuple[int, ...], reference: Reference) -> None:
    for batch in (1, 4):
        check_layer(layer, [shape], reference, batch=batch)
    check_layer(layer, [TensorSpec(shape, "int64")], reference, integers=1000)
    assert build_graph(layer, TensorSpec(shape, "int64")).output_specs[0].dtype == "int64"


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.Reshape(4), (2, 3), "cannot give 6 elements"),
        (nn.InferReshape(1, 0), (6,), "no dimension for each 0"),
        (nn.Unflatten(0, (4, -1)), (6,), "cannot give 6 elements"),
        (nn.Squeeze(2), (1, 3), "no dimension 2"),
        (nn.Unsqueeze(3), (1, 3), "no dimension 3"),
        (nn.Permute(0), (1, 3), "each dimension"),
        (nn.Permute(0, 0), (1, 3), "each dimension"),
        (nn.Transpose((0, 2)), (1, 3), "no dimension 2"),
        (nn.Narrow(0, 2, 3), (4,), "no 3 elements from 2 on"),
        (nn.Narrow(0, 2, -4), (4,), "no -4 elements"),
        (nn.Select(0, 4), (4,), "no element 4"),
        (nn.Flip(1), (4,), "no dimension 1"),
        (nn.Expand(3), (2,), "only dimensions of size 1 can"),
        (nn.Expand(3), (2, 3), "cannot grow"),
        (nn.Expand(-1, 3), (3,), "cannot grow"),
        (nn.Tile(1), (4,), "no dimension 1"),
        (nn.Max(1), (4,), "no dimension 1"),
        (nn.Sum((0, -1)), (4,), "twice"),
        (nn.Masking(), (), "needs sequences"),
    ],
    ids=lambda v: getattr(v, "kind", ""),
)
def test_what_does_not_fit_is_refused(layer: nn.Module, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_graph(layer, TensorSpec(shape))


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Reshape(0, 2),
        lambda: nn.InferReshape(-1, -1),
        lambda: nn.Transpose(),
        lambda: nn.Transpose((0, 1, 2)),  # type: ignore[arg-type]
        lambda: nn.Narrow(0, 1.0),  # type: ignore[arg-type]
        lambda: nn.Flip(),
        lambda: nn.Expand(0),
        lambda: nn.Replicate(0),
        lambda: nn.Tile(copies=0),
        lambda: nn.Sum("x"),  # type: ignore[arg-type]
    ],
)
def test_wrong_arguments_are_refused(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(InputError):
        make()


@pytest.mark.parametrize("dim", [None, 0, -1, (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("keepdim", [False, True])
def test_sums_and_means(dim: Any, keepdim: bool) -> None:
    several = (0, 1, 2) if dim is None else (dim,) if isinstance(dim, int) else dim
    torch_dim = tuple(d + 1 if d >= 0 else d for d in several)
    for shape in ((2, 3, 4), (1, 1, 5)):
        check_layer(nn.Sum(dim, keepdim), [shape], lambda x: x.sum(torch_dim, keepdim))
        check_layer(nn.Mean(dim, keepdim), [shape], lambda x: x.mean(torch_dim, keepdim))


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("keepdim", [False, True])
def test_extremes(dim: int, keepdim: bool) -> None:
    torch_dim = dim + 1 if dim >= 0 else dim
    for shape in ((3, 4), (1, 4), (3, 1), (2, 3, 4)):
        check_layer(nn.Max(dim, keepdim), [shape], lambda x: x.max(torch_dim, keepdim)[0])
        check_layer(nn.Min(dim, keepdim), [shape], lambda x: x.min(torch_dim, keepdim)[0])
    ties = np.array([[[1, 1], [1, 0]]], dtype=np.float32)
    check_layer(nn.Max(-1), [(2, 2)], lambda x: x[..., 0], data=[ties])


def test_sums_of_many_elements_lose_nothing() -> None:
    x = np.full((1, 1000, 1000), 0.1, dtype=np.float32)
    check_layer(nn.Sum(), [(1000, 1000)], lambda t: t.sum((1, 2)), data=[x], rtol=1e-7)
    check_layer(nn.CAdd(1), [(1000, 1000)], lambda t, bias: t + bias, data=[x], rtol=1e-6)


@pytest.mark.parametrize(("shape", "value"), [((5,), 0.0), ((5, 2), 0.0), ((5, 2, 2), -1.0), ((1, 3), 2.0)])
def test_masking(shape: tuple[int, ...], value: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, *shape), dtype=np.float32)
    x[0, 0], x[1, -1] = value, value
    x.reshape(3, shape[0], -1)[2, 0, 0] = value  # not the whole step, unless it has but one element

    def reference(t: torch.Tensor) -> torch.Tensor:
        steps = t.reshape(3, shape[0], -1)
        return (steps * (steps != value).any(-1, keepdim=True)).reshape(t.shape)

    check_layer(nn.Masking(value), [shape], reference, data=[x])


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_index(dim: int) -> None:
    rng = np.random.default_rng(0)
    shape = (4, 3)
    size = shape[dim]
    x, ids = rng.standard_normal((5, *shape), dtype=np.float32), rng.integers(0, size, (5, 6))
    torch_dim = dim if dim >= 0 else dim + 2

    def reference(t: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        return torch.stack([sample.index_select(torch_dim, j) for sample, j in zip(t, i, strict=True)])

    specs = [TensorSpec(shape), TensorSpec((6,), "int64")]
    check_layer(nn.Index(dim), specs, reference, data=[x, ids])
    check_layer(
        nn.Index(dim),
        [TensorSpec(shape, "int64"), specs[1]],
        reference,
        data=[ids[:, :1, None] + 0 * x.astype(int), ids],
    )
    with pytest.raises(InputError, match=rf"id {size} is not in 0\.\.{size - 1}"):
        nn.Index(dim).forward_many((x, ids * 0 + size), {}, None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="needs a table of x and ids"):
        build_graph(nn.Index(dim), (specs[0], specs[0]))


class Penalized(torch.autograd.Function):
    """y = x whose gradient has that of a penalty added, or is reversed."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, l1: float, l2: float, factor: float) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.numbers = (l1, l2, factor)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:  # type: ignore[override]
        (x,), (l1, l2, factor) = ctx.saved_tensors, ctx.numbers
        return factor * grad + l1 * x.sign() + 2 * l2 * x, None, None, None


@pytest.mark.parametrize(
    ("layer", "l1", "l2", "factor"),
    [
        (nn.ActivityRegularization(0.3, 0.2), 0.3, 0.2, 1.0),
        (nn.ActivityRegularization(), 0.0, 0.0, 1.0),
        (nn.L1Penalty(0.3), 0.3, 0.0, 1.0),
        (nn.L1Penalty(0.3, size_average=True), 0.3 / 12, 0.0, 1.0),
        (nn.GradientReversal(0.7), 0.0, 0.0, -0.7),
    ],
)
def test_layers_that_change_the_gradient(layer: nn.Module, l1: float, l2: float, factor: float) -> None:
    for batch in (1, 5):
        check_layer(layer, [(3, 4)], lambda x: Penalized.apply(x, l1, l2, factor), batch=batch)


class Certain(torch.autograd.Function):
    """y = x whose gradient has that of 0.3 * sum x log x added."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:  # type: ignore[override]
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            return grad + torch.autograd.grad(0.3 * (x * x.log()).sum(), x)[0]


def test_negative_entropy_penalty() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), 5).astype(np.float32)
    check_layer(nn.NegativeEntropyPenalty(0.3), [(4,)], Certain.apply, data=[probabilities])
    zero = np.zeros((1, 2), dtype=np.float32)
    check_layer(nn.NegativeEntropyPenalty(0.0), [(2,)], lambda x: x * 1, data=[zero])


def test_penalties_do_not_depend_on_how_samples_are_cut_into_micro_batches() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ActivityRegularization(0.5, 0.1), nn.LogSoftmax())
    program = compute.compile(model, nn.NLLLoss(), (3,), engine="numpy")
    program.parameters[:] = compute.initial_parameters(model, (3,), 1)
    program.parameters_changed()
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((6, 3), dtype=np.float32), rng.integers(0, 4, 6)
    program.forward_backward(x, target, 1 / 6)
    whole = program.gradients.copy()
    parts = np.zeros_like(whole)
    for part in (slice(0, 1), slice(1, 6)):
        program.forward_backward(x[part], target[part], 1 / 6)
        parts += program.gradients
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-7)


def test_penalties_refuse_wrong_factors() -> None:
    with pytest.raises(InputError, match="L1Penalty: l1weight must not be negative"):
        nn.L1Penalty(-1)
    with pytest.raises(InputError, match="ActivityRegularization: l2 must be a finite number"):
        nn.ActivityRegularization(l2=float("inf"))
    with pytest.raises(InputError, match="NegativeEntropyPenalty: beta must not be negative"):
        nn.NegativeEntropyPenalty(-0.1)
    with pytest.raises(InputError, match="GradientReversal: lambd"):
        nn.GradientReversal(float("nan"))
