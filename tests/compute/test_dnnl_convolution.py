"""oneDNN's convolutions through our binding, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compute.engines import dnnl
from tests.compute.dnnl_runner import TYPES, check, double, fetch, gradients, random_array, run

# source, output channels, kernel, stride, padding, dilation, groups
CASES = [
    ((2, 3, 8, 8), 16, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((3, 16, 9, 7), 24, (3, 2), (2, 1), (1, 0), (1, 1), 1),
    ((2, 32, 4, 4), 32, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    ((1, 8, 10, 10), 8, (3, 3), (1, 1), (2, 2), (2, 2), 1),
    ((2, 16, 6, 6), 16, (3, 3), (1, 1), (1, 1), (1, 1), 16),
    ((2, 12, 6, 6), 8, (3, 3), (2, 2), (1, 1), (1, 1), 4),
    ((2, 5, 1, 1), 7, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    ((3, 6, 17), 10, (5,), (2,), (2,), (1,), 1),
    ((2, 4, 5, 6, 7), 8, (3, 3, 3), (1, 2, 1), (1, 1, 0), (1, 1, 1), 1),
    # Rows at the end that no window reaches: negative padding.
    ((1, 4, 8, 8), 4, (2, 2), (3, 3), (0, 0), (1, 1), 1),
]
TORCH = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}
TORCH_TRANSPOSED = {
    1: torch.nn.functional.conv_transpose1d,
    2: torch.nn.functional.conv_transpose2d,
    3: torch.nn.functional.conv_transpose3d,
}


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("with_bias", [True, False])
def test_convolution(case: tuple, dtype: dnnl.DataType, with_bias: bool) -> None:
    source, channels, kernel, stride, padding, dilation, groups = case
    rng = np.random.default_rng(1)
    grouped = (groups, channels // groups, source[1] // groups, *kernel)
    x = random_array(rng, *source, dtype=dtype)
    w = random_array(rng, *(grouped if groups > 1 else grouped[1:]), dtype=dtype)
    b = random_array(rng, channels)
    tx, tw, tb = double(x), double(w), double(b)
    ty = TORCH[len(kernel)](
        tx, tw.reshape(channels, -1, *kernel), tb if with_bias else None, stride, padding, dilation, groups
    )
    target = tuple(ty.shape)
    grad_y = random_array(rng, *target, dtype=dtype)

    api = dnnl.Api()
    bias = api.strided((channels,)) if with_bias else None
    any_x, any_w, any_y = api.any(source, dtype), api.any(w.shape, dtype), api.any(target, dtype)
    forward = dnnl.convolution(api, any_x, any_w, bias, any_y, stride, padding, dilation)
    biases = {dnnl.BIAS: b} if with_bias else {}
    out = run(forward, {dnnl.SRC: x, dnnl.WEIGHTS: w, **biases}, [dnnl.DST])
    check(fetch(out[dnnl.DST]), ty, dtype)

    data = dnnl.convolution_backward_data(forward, any_x, any_w, any_y)
    out = run(data, {dnnl.WEIGHTS: w, dnnl.DIFF_DST: grad_y}, [dnnl.DIFF_SRC])
    grads = gradients(ty, grad_y, tx, tw, *([tb] if with_bias else []))
    check(fetch(out[dnnl.DIFF_SRC]), grads[0], dtype)

    # Gradients of the weights are kept in float32.
    weights = dnnl.convolution_backward_weights(forward, any_x, api.any(w.shape), bias, any_y)
    outputs = [dnnl.DIFF_WEIGHTS] + ([dnnl.DIFF_BIAS] if with_bias else [])
    out = run(weights, {dnnl.SRC: x, dnnl.DIFF_DST: grad_y}, outputs)
    check(fetch(out[dnnl.DIFF_WEIGHTS]), grads[1], dtype)
    if with_bias:
        check(fetch(out[dnnl.DIFF_BIAS]), grads[2], dtype)

    flops = 2.0 * np.prod(target) * np.prod(w.shape) / channels
    for operation in (forward, data, weights):
        assert operation.flops == pytest.approx(flops)


@pytest.mark.parametrize(
    "case",
    [
        ((2, 6, 4, 4), 8, (3, 3), (2, 2), (1, 1), (1, 1), 1),
        ((1, 16, 5, 3), 16, (2, 2), (1, 1), (0, 0), (2, 2), 1),
        ((2, 8, 4, 4), 12, (4, 4), (2, 2), (1, 1), (1, 1), 4),
        ((2, 3, 5), 4, (3,), (2,), (0,), (1,), 1),
        ((1, 4, 3, 3, 3), 6, (2, 2, 2), (2, 2, 2), (0, 0, 0), (1, 1, 1), 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", TYPES)
def test_deconvolution(case: tuple, dtype: dnnl.DataType) -> None:
    source, channels, kernel, stride, padding, dilation, groups = case
    rng = np.random.default_rng(2)
    shape = (channels // groups, source[1] // groups, *kernel)
    x, b = random_array(rng, *source, dtype=dtype), random_array(rng, channels)
    w = random_array(rng, *((groups, *shape) if groups > 1 else shape), dtype=dtype)
    tx, tw, tb = double(x), double(w), double(b)
    # PyTorch's weights are (C, K / G, ...), ours (G, K / G, C / G, ...).
    torch_w = tw.reshape(groups, *shape).transpose(1, 2).reshape(source[1], shape[0], *kernel)
    ty = TORCH_TRANSPOSED[len(kernel)](tx, torch_w, tb, stride, padding, 0, groups, dilation)
    target = tuple(ty.shape)
    grad_y = random_array(rng, *target, dtype=dtype)

    api = dnnl.Api()
    bias = api.strided((channels,))
    any_x, any_w, any_y = api.any(source, dtype), api.any(w.shape, dtype), api.any(target, dtype)
    forward = dnnl.deconvolution(api, any_x, any_w, bias, any_y, stride, padding, dilation)
    out = run(forward, {dnnl.SRC: x, dnnl.WEIGHTS: w, dnnl.BIAS: b}, [dnnl.DST])
    check(fetch(out[dnnl.DST]), ty, dtype)
    grads = gradients(ty, grad_y, tx, tw, tb)
    data = dnnl.convolution_backward_data(forward, any_x, any_w, any_y)
    out = run(data, {dnnl.WEIGHTS: w, dnnl.DIFF_DST: grad_y}, [dnnl.DIFF_SRC])
    check(fetch(out[dnnl.DIFF_SRC]), grads[0], dtype)
    weights = dnnl.convolution_backward_weights(forward, any_x, api.any(w.shape), bias, any_y)
    out = run(weights, {dnnl.SRC: x, dnnl.DIFF_DST: grad_y}, [dnnl.DIFF_WEIGHTS, dnnl.DIFF_BIAS])
    check(fetch(out[dnnl.DIFF_WEIGHTS]), grads[1], dtype)
    check(fetch(out[dnnl.DIFF_BIAS]), grads[2], dtype)
    assert forward.flops == 2.0 * np.prod(w.shape) * np.prod(source) / source[1]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("tag", ["abcd", "acdb", "aBcd16b", "aBcd8b"])
def test_convolution_in_given_layouts(tag: str, dtype: dnnl.DataType) -> None:
    rng = np.random.default_rng(3)
    x, w = random_array(rng, 2, 16, 5, 5, dtype=dtype), random_array(rng, 20, 16, 3, 3, dtype=dtype)
    api = dnnl.Api()
    src, dst = api.tagged((2, 16, 5, 5), tag, dtype), api.tagged((2, 20, 5, 5), tag, dtype)
    forward = dnnl.convolution(api, src, api.any(w.shape, dtype), None, dst, (1, 1), (1, 1), training=False)
    assert forward.layout(dnnl.SRC) == src
    assert forward.layout(dnnl.DST) == dst
    out = run(forward, {dnnl.SRC: x, dnnl.WEIGHTS: w}, [dnnl.DST])
    check(fetch(out[dnnl.DST]), torch.nn.functional.conv2d(double(x), double(w), padding=1), dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_post_ops_run_in_order(dtype: dnnl.DataType) -> None:
    """relu((conv + 2 * old) * scale + 1), all in one call."""
    rng = np.random.default_rng(4)
    x, w = random_array(rng, 2, 16, 5, 5, dtype=dtype), random_array(rng, 16, 16, 3, 3, dtype=dtype)
    old, scale = random_array(rng, 2, 16, 5, 5, dtype=dtype), random_array(rng, 1, 16, 1, 1)
    api = dnnl.Api()
    column = api.strided(scale.shape)
    attr = api.attribute_of(
        dnnl.SumPostOp(2.0),
        dnnl.BinaryPostOp(dnnl.Binary.MUL, column),
        dnnl.EltwisePostOp(dnnl.Eltwise.LINEAR, 1.0, 1.0),
        dnnl.EltwisePostOp(dnnl.RELU),
    )
    shape = api.any(x.shape, dtype)
    forward = dnnl.convolution(api, shape, api.any(w.shape, dtype), None, shape, (1, 1), (1, 1), attr=attr)
    expected = torch.relu(
        (torch.nn.functional.conv2d(double(x), double(w), padding=1) + 2 * double(old)) * double(scale) + 1
    )
    memories = run(
        forward,
        {dnnl.SRC: x, dnnl.WEIGHTS: w, dnnl.post_op_argument(1): scale},
        [dnnl.DST],
        {dnnl.post_op_argument(1): column},
    )
    old_memory = api.memory(api.strided(old.shape), old)
    assert dnnl.copy(api, old_memory, memories[dnnl.DST])() == 0
    assert forward.bind(memories)() == 0
    check(fetch(memories[dnnl.DST]), expected, dtype)


def test_what_does_not_exist_is_told() -> None:
    api = dnnl.Api()
    with pytest.raises(dnnl.Unimplemented, match="convolution_forward"):
        dnnl.convolution(
            api, api.any((1, 4, 5, 5)), api.any((4, 4, 3, 3), dnnl.BF16), None, api.any((1, 4, 3, 3)), (1, 1), (0, 0)
        )
    with pytest.raises(dnnl.DnnlError, match="invalid arguments"):
        dnnl.convolution(api, api.any((1, 5, 5, 5)), api.any((4, 4, 3, 3)), None, api.any((1, 4, 3, 3)), (1, 1), (0, 0))


def test_another_implementation_computes_the_same() -> None:
    rng = np.random.default_rng(5)
    x, w = random_array(rng, 2, 16, 6, 6), random_array(rng, 16, 16, 3, 3)
    api = dnnl.Api()
    expected = torch.nn.functional.conv2d(double(x), double(w), padding=1)
    shape = api.any(x.shape)
    for name in ("ref", "x64:gemm", "ref"):
        forward = dnnl.convolution(api, shape, api.any(w.shape), None, shape, (1, 1), (1, 1))
        assert not forward.implementation.startswith(name)
        forward.choose(name)
        assert forward.implementation.startswith(name)
        check(fetch(run(forward, {dnnl.SRC: x, dnnl.WEIGHTS: w}, [dnnl.DST])[dnnl.DST]), expected, dnnl.F32)
    with pytest.raises(dnnl.Unimplemented, match="convolution_forward has no implementation jit:avx9000"):
        forward.choose("jit:avx9000")
