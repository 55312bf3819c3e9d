"""Activations and element-wise arithmetic against PyTorch, over shapes and magnitudes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from layer_check import check_layer

from compute import InputError, nn
from compute.nn.layer import LayerContext, Pass

Function = Callable[..., torch.Tensor]

ACTIVATIONS: list[tuple[nn.Module, Function]] = [
    (nn.ReLU(), torch.nn.ReLU()),
    (nn.ReLU6(), torch.nn.ReLU6()),
    (nn.LeakyReLU(), torch.nn.LeakyReLU()),
    (nn.LeakyReLU(0.3), torch.nn.LeakyReLU(0.3)),
    (nn.Hardtanh(), torch.nn.Hardtanh()),
    (nn.Hardtanh(-0.5, 2.0), torch.nn.Hardtanh(-0.5, 2.0)),
    (nn.Clamp(-0.5, 2.0), lambda x: torch.clamp(x, -0.5, 2.0)),
    (nn.Hardsigmoid(), torch.nn.Hardsigmoid()),
    (nn.Hardsigmoid(alpha=0.2), lambda x: torch.clamp(0.2 * x + 0.5, 0, 1)),
    (nn.Hardswish(), torch.nn.Hardswish()),
    (nn.Threshold(0.1, 20), torch.nn.Threshold(0.1, 20)),
    (nn.BinaryThreshold(0.2), lambda x: (x > 0.2).double()),
    (nn.Hardshrink(0.4), torch.nn.Hardshrink(0.4)),
    (nn.Softshrink(0.4), torch.nn.Softshrink(0.4)),
    (nn.Sigmoid(), torch.nn.Sigmoid()),
    (nn.LogSigmoid(), torch.nn.LogSigmoid()),
    (nn.Tanh(), torch.nn.Tanh()),
    (nn.Tanhshrink(), torch.nn.Tanhshrink()),
    (nn.Softplus(), torch.nn.Softplus()),
    (nn.Softplus(2.5, 3.0), torch.nn.Softplus(2.5, 3.0)),
    (nn.Softsign(), torch.nn.Softsign()),
    (nn.ELU(), torch.nn.ELU()),
    (nn.ELU(0.4), torch.nn.ELU(0.4)),
    (nn.SELU(), torch.nn.SELU()),
    (nn.GELU(), torch.nn.GELU()),
    (nn.GELU("tanh"), torch.nn.GELU("tanh")),
    (nn.SiLU(), torch.nn.SiLU()),
    (nn.Mish(), torch.nn.Mish()),
    (nn.Abs(), torch.abs),
    (nn.Sign(), torch.sign),
    (nn.Square(), torch.square),
    (nn.Negative(), torch.neg),
    (nn.AddConstant(-2.5), lambda x: x - 2.5),
    (nn.MulConstant(0.3), lambda x: 0.3 * x),
    (nn.Power(2, 0.5, 3.0), lambda x: (3.0 + 0.5 * x) ** 2),
    (nn.Power(3), lambda x: x**3),
    (nn.Power(0), lambda x: x**0),
]
SHAPES = [(1,), (4, 7), (3, 5, 1)]


def label(value: object) -> str:
    return type(value).__name__ if isinstance(value, nn.Module) else ""


@pytest.mark.parametrize(("layer", "reference"), ACTIVATIONS, ids=label)
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_functions_of_each_element(layer: nn.Module, reference: Function, scale: float) -> None:
    for seed, shape in enumerate(SHAPES):
        check_layer(layer, [shape], reference, scale=scale, atol=1e-7, batch=1 + 2 * seed, seed=seed)


@pytest.mark.parametrize(("layer", "reference"), ACTIVATIONS, ids=label)
def test_small_and_special_numbers(layer: nn.Module, reference: Function) -> None:
    """Relative accuracy far out on both sides and near 0; bends; overflow without warnings."""
    bends = np.array([[0.0, -0.0, 0.4, -0.4, 1.0, -1.0, 3.0, -3.0, 6.0, 2.0, -0.5, 20.0]], dtype=np.float32)
    if not isinstance(layer, nn.Hardsigmoid | nn.Hardswish | nn.Softplus | nn.BinaryThreshold):  # roundings decide
        inside = bends.copy()
        if isinstance(layer, nn.Hardshrink | nn.Softshrink | nn.Threshold):
            inside[np.isclose(np.abs(bends), 0.4)] = 0.25
        check_layer(layer, [(12,)], reference, data=[inside])
    for scale in (1e-6, 1e4):
        check_layer(layer, [(11,)], reference, scale=scale, atol=1e-12)


@pytest.mark.parametrize(
    ("layer", "reference"),
    [
        (nn.Sqrt(), torch.sqrt),
        (nn.Log(), torch.log),
        (nn.Reciprocal(), torch.reciprocal),
        (nn.Exp(), torch.exp),
        (nn.Power(-0.7, 2.0, 0.5), lambda x: (0.5 + 2 * x) ** -0.7),
    ],
    ids=label,
)
def test_functions_of_positive_numbers(layer: nn.Module, reference: Function) -> None:
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        check_layer(layer, [shape], reference, data=[rng.uniform(0.3, 9, (3, *shape)).astype(np.float32)])


def test_out_of_the_domain_is_inf_or_nan_without_warnings() -> None:
    x = np.array([[-1.0, 0.0, 1e38, 200.0]], dtype=np.float32)
    context = LayerContext(0, Pass(), (True,), {})
    for layer in (nn.Log(), nn.Sqrt(), nn.Reciprocal(), nn.Exp(), nn.Square(), nn.Power(-2), nn.Power(9)):
        y = layer.forward(x, {}, context)
        grad = layer.backward(x, y, np.ones_like(x), {}, {}, context)
        assert y.dtype == grad.dtype == np.float32
        assert not np.isfinite(y).all() or not np.isfinite(grad).all()


@pytest.mark.parametrize(("layer", "reference"), ACTIVATIONS, ids=label)
def test_activations_stay_finite_and_safe(layer: nn.UnaryLayer, reference: Function) -> None:
    x = np.array([[-3e38, -1e20, -1e5, -200, 200, 1e5, 1e20, 3e38]], dtype=np.float32)
    if isinstance(layer, nn.Square | nn.Power):
        return
    context = LayerContext(0, Pass(), (True,), {})
    y = layer.forward(x, {}, context)
    grad = layer.backward(x, y, np.ones_like(x), {}, {}, context)
    t = torch.tensor(x.astype(np.float64), requires_grad=True)
    expected = reference(t)
    if expected.requires_grad:
        expected.sum().backward()
        assert t.grad is not None
        np.testing.assert_allclose(grad, np.nan_to_num(t.grad.numpy()), rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-5, atol=1e-30)


def test_tails_are_accurate() -> None:
    """Relative to each element, not to the largest: what is left of 1 - y is not lost."""
    x = np.linspace(-80, 10, 400, dtype=np.float32)[None]
    context = LayerContext(0, Pass(), (True,), {})
    for layer, reference in (
        (nn.Sigmoid(), torch.sigmoid),
        (nn.LogSigmoid(), torch.nn.functional.logsigmoid),
        (nn.Softplus(), torch.nn.functional.softplus),
        (nn.SiLU(), torch.nn.functional.silu),
        (nn.Mish(), torch.nn.functional.mish),
        (nn.ELU(), torch.nn.functional.elu),
    ):
        expected = reference(torch.tensor(x.astype(np.float64))).numpy()
        np.testing.assert_allclose(layer.forward(x, {}, context), expected, rtol=1e-5, err_msg=layer.kind)


@pytest.mark.parametrize("dim", [-1, 0, 1, -2])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_softmax_and_relatives(dim: int, scale: float) -> None:
    torch_dim = dim + 1 if dim >= 0 else dim
    for shape in ((4, 6), (1, 2, 4), (2, 4, 1)):
        if dim in (0, -2) and shape == (1, 2, 4):
            shape = (2, 2, 4)
        for ours, theirs in (
            (nn.Softmax, torch.nn.Softmax),
            (nn.Softmin, torch.nn.Softmin),
            (nn.LogSoftmax, torch.nn.LogSoftmax),
            (nn.GLU, torch.nn.GLU),
        ):
            if ours is nn.GLU and shape[dim] % 2:
                continue
            check_layer(ours(dim), [shape], theirs(torch_dim), scale=scale, atol=1e-6)


def test_softmax_works_on_single_numbers_and_refuses_wrong_dims() -> None:
    check_layer(nn.Softmax(), [(1,)], torch.nn.Softmax(-1))
    for layer in (nn.Softmax(2), nn.LogSoftmax(-3), nn.GLU(2)):
        with pytest.raises(InputError, match=f"no dimension {layer.dim}"):
            layer.output_shape((4, 6))
    with pytest.raises(InputError, match="even size"):
        nn.GLU().output_shape((4, 5))
    with pytest.raises(InputError, match="Softmax: dim must be a whole number"):
        nn.Softmax(1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 4, 5), (1, 2)])
def test_prelu(shape: tuple[int, ...]) -> None:
    prelu = torch.nn.functional.prelu
    check_layer(nn.PReLU(), [shape], lambda x, weight: prelu(x, weight))
    check_layer(nn.PReLU(shape[0]), [shape], lambda x, weight: prelu(x, weight))
    with pytest.raises(InputError, match=r"needs \(7, \.\.\.\)"):
        nn.PReLU(7).output_shape(shape)


def srelu(
    x: torch.Tensor,
    left: torch.Tensor,
    left_slope: torch.Tensor,
    right_distance: torch.Tensor,
    right_slope: torch.Tensor,
) -> torch.Tensor:
    right = left + right_distance.abs()
    below, above = left + left_slope * (x - left), right + right_slope * (x - right)
    return torch.where(x < left, below, torch.where(x > right, above, x))


@pytest.mark.parametrize("shared", [(), (0,), (1, 2), (0, 1, 2)])
def test_srelu(shared: tuple[int, ...]) -> None:
    layer = nn.SReLU(shared)
    check_layer(layer, [(2, 3, 4)], srelu, scale=2.0, batch=5)
    assert all(
        p.shape == tuple(1 if d in shared else s for d, s in enumerate((2, 3, 4))) for p in layer.parameters((2, 3, 4))
    )
    with pytest.raises(InputError, match="no dimension 3"):
        nn.SReLU((3,)).output_shape((2, 3))


def test_rrelu() -> None:
    current = Pass()
    current.training, current.key = True, (1, 2, 3)
    context = LayerContext(0, current, (True,), {})
    x = -np.ones((50, 400), dtype=np.float32)
    layer = nn.RReLU(0.2, 0.6)
    y = layer.forward(x, {}, context)
    assert y.max() <= -0.2
    assert y.min() >= -0.6
    assert y.mean() == pytest.approx(-0.4, abs=0.01)
    assert y.std() == pytest.approx(0.4 / np.sqrt(12), rel=0.03)
    np.testing.assert_allclose(layer.backward(x, y, x, {}, {}, context), y, rtol=1e-6)
    check_layer(nn.RReLU(0.25, 0.25), [(3, 4)], torch.nn.LeakyReLU(0.25))
    current.training = False
    np.testing.assert_allclose(layer.forward(x, {}, context), -0.4, rtol=1e-6)
    with pytest.raises(InputError, match="0 <= lower <= upper <= 1"):
        nn.RReLU(0.5, 0.1)


@pytest.mark.parametrize(("pool", "bias"), [(1, True), (3, True), (4, False)])
def test_maxout(pool: int, bias: bool) -> None:
    def reference(
        x: torch.Tensor, linear_weight: torch.Tensor, linear_bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        return torch.nn.functional.linear(x, linear_weight, linear_bias).reshape(len(x), pool, 2).amax(1)

    check_layer(nn.Maxout(5, 2, pool, bias), [(5,)], reference)


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (nn.Scale(3, 1, 1), (3, 1, 1)),
        (nn.Scale(4, 5), (4, 5)),
        (nn.CMul(3, 4, 5), (3, 4, 5)),
        (nn.CMul(5), (5,)),
        (nn.CAdd(1, 5), (1, 5)),
        (nn.Add(5), (5,)),
        (nn.Mul(), (1,)),
    ],
    ids=label,
)
def test_learnt_arithmetic(layer: nn.UnaryLayer, size: tuple[int, ...]) -> None:
    def reference(
        x: torch.Tensor, weight: torch.Tensor | float = 1.0, bias: torch.Tensor | float = 0.0
    ) -> torch.Tensor:
        return x * weight + bias

    check_layer(layer, [(3, 4, 5)], reference)
    check_layer(layer, [(3, 4, 5)], reference, batch=1)
    assert all(p.shape == size for p in layer.parameters((3, 4, 5)))
    if size != (1,):
        with pytest.raises(InputError, match="needs samples to which"):
            layer.output_shape((7,))


def test_one_number_per_sample() -> None:
    for layer in (nn.Mul(), nn.ReLU(), nn.Abs(), nn.Scale(1)):
        check_layer(
            layer,
            [()],
            lambda x, weight=1.0, bias=0.0, f=layer: {"ReLU": torch.relu, "Abs": torch.abs}.get(
                f.kind, lambda v: v * weight + bias
            )(x),
        )


def test_wrong_arguments_are_refused() -> None:
    for make, message in (
        (lambda: nn.LeakyReLU(float("nan")), "LeakyReLU: negative_slope must be a finite number"),
        (lambda: nn.Hardtanh(1, 1), "Hardtanh: the lower bound must be below the upper"),
        (lambda: nn.Softplus(0), "Softplus: beta must be positive"),
        (lambda: nn.GELU("erf"), "GELU: approximate must be"),  # type: ignore[arg-type]
        (lambda: nn.Softshrink(-1), "Softshrink: lambd must not be negative"),
        (lambda: nn.Scale(), "Scale needs the size"),
        (lambda: nn.CMul(0), "CMul: size must be a whole number of at least 1"),
        (lambda: nn.Power("2"), "Power: power must be a finite number"),  # type: ignore[arg-type]
        (lambda: nn.PReLU(0), "PReLU: num_parameters"),
        (lambda: nn.SReLU((-1,)), "SReLU: shared_dims"),
        (lambda: nn.Maxout(3, 2, 0), "Maxout: pool_size"),
    ):
        with pytest.raises(InputError, match=message):
            make()
