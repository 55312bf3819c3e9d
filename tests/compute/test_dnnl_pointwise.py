"""oneDNN's operations without a window through our binding, against PyTorch and numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from compute.bfloat16 import from_bfloat16, to_bfloat16
from compute.engines import dnnl
from compute.engines.dnnl import Binary, Eltwise, Reduction
from tests.compute.dnnl_runner import TYPES, check, double, fetch, gradients, random_array, run

FUNCTIONS = torch.nn.functional
Function = Callable[[torch.Tensor], torch.Tensor]
# alpha, beta, PyTorch's function
ELTWISE: dict[Eltwise, tuple[float, float, Function]] = {
    Eltwise.RELU: (0.1, 0, lambda x: FUNCTIONS.leaky_relu(x, 0.1)),
    Eltwise.TANH: (0, 0, torch.tanh),
    Eltwise.ELU: (0.7, 0, lambda x: FUNCTIONS.elu(x, 0.7)),
    Eltwise.SQUARE: (0, 0, torch.square),
    Eltwise.ABS: (0, 0, torch.abs),
    Eltwise.SQRT: (0, 0, torch.sqrt),
    Eltwise.LINEAR: (2, -1, lambda x: 2 * x - 1),
    Eltwise.SOFT_RELU: (1.5, 0, lambda x: FUNCTIONS.softplus(x, 1.5)),
    Eltwise.HARD_SIGMOID: (1 / 6, 0.5, FUNCTIONS.hardsigmoid),
    Eltwise.LOGISTIC: (0, 0, torch.sigmoid),
    Eltwise.EXP: (0, 0, torch.exp),
    Eltwise.GELU_TANH: (0, 0, lambda x: FUNCTIONS.gelu(x, approximate="tanh")),
    Eltwise.SWISH: (1, 0, FUNCTIONS.silu),
    Eltwise.LOG: (0, 0, torch.log),
    Eltwise.CLIP: (-0.5, 0.75, lambda x: torch.clamp(x, -0.5, 0.75)),
    Eltwise.CLIP_V2: (-0.5, 0.75, lambda x: torch.clamp(x, -0.5, 0.75)),
    Eltwise.POW: (2, 1.5, lambda x: 2 * x**1.5),
    Eltwise.GELU_ERF: (0, 0, FUNCTIONS.gelu),
    Eltwise.MISH: (0, 0, FUNCTIONS.mish),
    Eltwise.HARD_SWISH: (1 / 6, 0.5, FUNCTIONS.hardswish),
}
POSITIVE = {Eltwise.SQRT, Eltwise.LOG, Eltwise.POW}
FROM_DST = {
    Eltwise.RELU_FROM_DST: Eltwise.RELU,
    Eltwise.TANH_FROM_DST: Eltwise.TANH,
    Eltwise.ELU_FROM_DST: Eltwise.ELU,
    Eltwise.SQRT_FROM_DST: Eltwise.SQRT,
    Eltwise.LOGISTIC_FROM_DST: Eltwise.LOGISTIC,
    Eltwise.EXP_FROM_DST: Eltwise.EXP,
    Eltwise.CLIP_V2_FROM_DST: Eltwise.CLIP_V2,
}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("algorithm", [*ELTWISE, *FROM_DST], ids=lambda algorithm: algorithm.name)
def test_eltwise(algorithm: Eltwise, dtype: dnnl.DataType) -> None:
    rng = np.random.default_rng(1)
    function = FROM_DST.get(algorithm, algorithm)
    alpha, beta, torch_function = ELTWISE[function]
    shape = (3, 20, 5, 3)
    x, grad_y = random_array(rng, *shape, dtype=dtype), random_array(rng, *shape, dtype=dtype)
    if function in POSITIVE:
        x = np.abs(x) + np.float32(0.125)
        x = x if dtype is dnnl.F32 else from_bfloat16(to_bfloat16(x))
    if function in {Eltwise.CLIP, Eltwise.CLIP_V2}:
        # At the very bounds libraries choose different gradients.
        x[np.isin(x, [alpha, beta])] = 0
    tx = double(x)
    ty = torch_function(tx)
    api = dnnl.Api()
    layout = api.tagged(shape, "aBcd16b", dtype)
    forward = dnnl.eltwise(api, algorithm, layout, layout, alpha, beta)
    out = run(forward, {dnnl.SRC: x}, [dnnl.DST])
    check(fetch(out[dnnl.DST]), ty, dtype)
    backward = dnnl.eltwise_backward(forward, layout, layout, layout)
    data = dnnl.DST if algorithm.from_dst else dnnl.SRC
    out = run(backward, {data: out[data], dnnl.DIFF_DST: grad_y}, [dnnl.DIFF_SRC])
    check(fetch(out[dnnl.DIFF_SRC]), gradients(ty, grad_y, tx)[0], dtype)


def test_eltwise_in_place() -> None:
    rng = np.random.default_rng(2)
    x = random_array(rng, 1000)
    api = dnnl.Api()
    layout = api.strided(x.shape)
    memory = api.memory(layout, x.copy())
    assert dnnl.eltwise(api, Eltwise.RELU, layout, layout).bind({dnnl.SRC: memory, dnnl.DST: memory})() == 0
    np.testing.assert_array_equal(memory.view(), np.maximum(x, 0))


def test_round_to_even() -> None:
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.75], dtype=np.float32)
    api = dnnl.Api()
    layout = api.strided(x.shape)
    operation = dnnl.eltwise(api, Eltwise.ROUND, layout, layout, training=False)
    np.testing.assert_array_equal(fetch(run(operation, {dnnl.SRC: x}, [dnnl.DST])[dnnl.DST]), np.round(x))


NUMPY_BINARY = {
    Binary.ADD: np.add,
    Binary.MUL: np.multiply,
    Binary.MAX: np.maximum,
    Binary.MIN: np.minimum,
    Binary.DIV: np.divide,
    Binary.SUB: np.subtract,
    Binary.GE: np.greater_equal,
    Binary.GT: np.greater,
    Binary.LE: np.less_equal,
    Binary.LT: np.less,
    Binary.EQ: np.equal,
    Binary.NE: np.not_equal,
}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("algorithm", Binary, ids=lambda algorithm: algorithm.name)
@pytest.mark.parametrize("second", [(2, 16, 3, 4), (1, 16, 1, 1), (1, 1, 1, 1)], ids=str)
def test_binary(second: tuple[int, ...], algorithm: Binary, dtype: dnnl.DataType) -> None:
    rng = np.random.default_rng(3)
    a, b = random_array(rng, 2, 16, 3, 4, dtype=dtype), random_array(rng, *second, dtype=dtype)
    a.reshape(-1)[0] = b.reshape(-1)[0]
    api = dnnl.Api()
    layout = api.strided(a.shape, dtype=dtype)
    operation = dnnl.binary(api, algorithm, layout, api.strided(second, dtype=dtype), layout)
    expected = NUMPY_BINARY[algorithm](a.astype(np.float64), b.astype(np.float64)).astype(np.float64)
    check(fetch(run(operation, {dnnl.SRC: a, dnnl.SRC_1: b}, [dnnl.DST])[dnnl.DST]), expected, dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("weights", [(1, 16, 1, 1), (1, 1, 1, 1), (1, 16, 3, 4)], ids=str)
def test_prelu(weights: tuple[int, ...], dtype: dnnl.DataType) -> None:
    rng = np.random.default_rng(4)
    shape = (2, 16, 3, 4)
    x, grad_y = random_array(rng, *shape, dtype=dtype), random_array(rng, *shape, dtype=dtype)
    w = random_array(rng, *weights, dtype=dtype)
    tx, tw = double(x), double(w)
    ty = torch.where(tx > 0, tx, tx * tw)
    api = dnnl.Api()
    layout, slope = api.strided(shape, dtype=dtype), api.any(weights, dtype)
    forward = dnnl.prelu(api, layout, slope, layout)
    out = run(forward, {dnnl.SRC: x, dnnl.WEIGHTS: w}, [dnnl.DST])
    check(fetch(out[dnnl.DST]), ty, dtype)
    backward = dnnl.prelu_backward(forward, layout, slope, layout, slope, layout)
    known = {key: out[key] for key in (dnnl.SRC, dnnl.WEIGHTS)}
    out = run(backward, {**known, dnnl.DIFF_DST: grad_y}, [dnnl.DIFF_SRC, dnnl.DIFF_WEIGHTS])
    grads = gradients(ty, grad_y, tx, tw)
    check(fetch(out[dnnl.DIFF_SRC]), grads[0], dtype)
    check(fetch(out[dnnl.DIFF_WEIGHTS]), grads[1], dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_weighted_sum(count: int, dtype: dnnl.DataType) -> None:
    rng = np.random.default_rng(5)
    arrays = [random_array(rng, 2, 20, 3, 4, dtype=dtype) for _ in range(count)]
    scales = [1.0, -2.0, 0.5, 3.0, 1.0][:count]
    api = dnnl.Api()
    layout = api.tagged((2, 20, 3, 4), "aBcd16b", dtype)
    inputs = {dnnl.MULTIPLE_SRC + i: array for i, array in enumerate(arrays)}
    expected = sum(scale * array.astype(np.float64) for scale, array in zip(scales, arrays, strict=True))
    out = run(dnnl.weighted_sum(api, [layout] * count, layout, scales), inputs, [dnnl.DST])
    check(fetch(out[dnnl.DST]), np.asarray(expected), dtype)
    plain = sum(array.astype(np.float64) for array in arrays)
    out = run(dnnl.weighted_sum(api, [layout] * count, layout), inputs, [dnnl.DST])
    check(fetch(out[dnnl.DST]), np.asarray(plain), dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("tag", ["abcd", "acdb", "aBcd16b"])
@pytest.mark.parametrize("channels", [(16, 32, 16), (3, 20, 1)], ids=str)
def test_concat(channels: tuple[int, ...], tag: str, dtype: dnnl.DataType) -> None:
    rng = np.random.default_rng(6)
    arrays = [random_array(rng, 2, size, 3, 4, dtype=dtype) for size in channels]
    api = dnnl.Api()
    operation = dnnl.concat(
        api,
        [api.tagged(array.shape, tag, dtype) for array in arrays],
        api.tagged((2, sum(channels), 3, 4), tag, dtype),
        1,
    )
    out = run(operation, {dnnl.MULTIPLE_SRC + i: array for i, array in enumerate(arrays)}, [dnnl.DST])
    np.testing.assert_array_equal(fetch(out[dnnl.DST]), np.concatenate(arrays, axis=1))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("algorithm", "reduce"),
    [
        (Reduction.MAX, lambda x, axes: x.max(axes, keepdims=True)),
        (Reduction.MIN, lambda x, axes: x.min(axes, keepdims=True)),
        (Reduction.SUM, lambda x, axes: x.sum(axes, keepdims=True)),
        (Reduction.MUL, lambda x, axes: x.prod(axes, keepdims=True)),
        (Reduction.MEAN, lambda x, axes: x.mean(axes, keepdims=True)),
        (Reduction.NORM_LP_SUM, lambda x, axes: np.sqrt((x**2).sum(axes, keepdims=True))),
        (Reduction.NORM_LP_MAX, lambda x, axes: np.sqrt((x**2).sum(axes, keepdims=True))),
    ],
)
@pytest.mark.parametrize("axes", [(1,), (0, 2), (2, 3), (0, 1, 2, 3)], ids=str)
def test_reduction(axes: tuple[int, ...], algorithm: Reduction, reduce: Callable, dtype: dnnl.DataType) -> None:
    rng = np.random.default_rng(7)
    x = random_array(rng, 2, 3, 4, 5, dtype=dtype)
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    api = dnnl.Api()
    source, target = api.strided(x.shape, dtype=dtype), api.strided(shape)
    operation = dnnl.reduction(api, algorithm, source, target, p=2.0)
    check(fetch(run(operation, {dnnl.SRC: x}, [dnnl.DST])[dnnl.DST]), reduce(x.astype(np.float64), axes), dtype)


def test_reorder_between_types_and_layouts() -> None:
    rng = np.random.default_rng(8)
    x = random_array(rng, 2, 20, 3, 4)
    api = dnnl.Api()
    out = run(
        dnnl.reorder(api, api.strided(x.shape), api.tagged(x.shape, "aBcd16b", dnnl.BF16)), {dnnl.SRC: x}, [dnnl.DST]
    )
    check(fetch(out[dnnl.DST]), x.astype(np.float64), dnnl.BF16)
    # What fills up the last block of channels is zero: kernels count on it.
    blocks = out[dnnl.DST].array.reshape(2, 2, 3, 4, 16)
    assert not blocks[:, 1, :, :, 4:].any()
    numbers = np.array([-3.6, -0.4, 0.6, 2.4, 100.2], dtype=np.float32)
    for dtype in (dnnl.S32, dnnl.S8):
        operation = dnnl.reorder(api, api.strided((5,)), api.strided((5,), dtype=dtype))
        view = run(operation, {dnnl.SRC: numbers}, [dnnl.DST])[dnnl.DST].view()
        assert view.dtype == dtype.numpy
        np.testing.assert_array_equal(view, [-4, 0, 1, 2, 100])


@pytest.mark.parametrize("dtype", TYPES)
def test_shuffle(dtype: dnnl.DataType) -> None:
    rng = np.random.default_rng(9)
    x = random_array(rng, 2, 12, 3, 3, dtype=dtype)
    api = dnnl.Api()
    layout = api.strided(x.shape, dtype=dtype)
    forward = dnnl.shuffle(api, layout, layout, 1, 4)
    y = fetch(run(forward, {dnnl.SRC: x}, [dnnl.DST])[dnnl.DST])
    np.testing.assert_array_equal(y, x.reshape(2, 3, 4, 3, 3).swapaxes(1, 2).reshape(x.shape))
    backward = dnnl.shuffle_backward(forward, layout, layout)
    np.testing.assert_array_equal(fetch(run(backward, {dnnl.DIFF_DST: y}, [dnnl.DIFF_SRC])[dnnl.DIFF_SRC]), x)
