"""oneDNN's inner products and batched products through our binding, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compute.engines import dnnl
from tests.compute.dnnl_runner import TYPES, check, double, fetch, gradients, load, random_array, run


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(
    ("source", "outputs"),
    [((5, 7), 3), ((1, 1), 1), ((64, 129), 65), ((4, 8, 3, 2), 10), ((3, 4, 2, 3, 2), 6)],
    ids=str,
)
def test_inner_product(source: tuple[int, ...], outputs: int, with_bias: bool, dtype: dnnl.DataType) -> None:
    rng = np.random.default_rng(1)
    x, w = random_array(rng, *source, dtype=dtype), random_array(rng, outputs, *source[1:], dtype=dtype)
    b, grad_y = random_array(rng, outputs), random_array(rng, source[0], outputs, dtype=dtype)
    tx, tw, tb = double(x), double(w), double(b)
    ty = torch.nn.functional.linear(tx.flatten(1), tw.flatten(1), tb if with_bias else None)

    api = dnnl.Api()
    bias = api.strided((outputs,)) if with_bias else None
    any_x, any_w, any_y = api.any(source, dtype), api.any(w.shape, dtype), api.any(grad_y.shape, dtype)
    forward = dnnl.inner_product(api, any_x, any_w, bias, any_y)
    out = run(forward, {dnnl.SRC: x, dnnl.WEIGHTS: w} | ({dnnl.BIAS: b} if with_bias else {}), [dnnl.DST])
    check(fetch(out[dnnl.DST]), ty, dtype)
    grads = gradients(ty, grad_y, tx, tw, *([tb] if with_bias else []))
    data = dnnl.inner_product_backward_data(forward, any_x, any_w, any_y)
    out = run(data, {dnnl.WEIGHTS: w, dnnl.DIFF_DST: grad_y}, [dnnl.DIFF_SRC])
    check(fetch(out[dnnl.DIFF_SRC]), grads[0], dtype)
    weights = dnnl.inner_product_backward_weights(forward, any_x, api.any(w.shape), bias, any_y)
    wanted = [dnnl.DIFF_WEIGHTS] + ([dnnl.DIFF_BIAS] if with_bias else [])
    out = run(weights, {dnnl.SRC: x, dnnl.DIFF_DST: grad_y}, wanted)
    check(fetch(out[dnnl.DIFF_WEIGHTS]), grads[1], dtype)
    if with_bias:
        check(fetch(out[dnnl.DIFF_BIAS]), grads[2], dtype)
    for operation in (forward, data, weights):
        assert operation.flops == 2.0 * outputs * x.size


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("a", "b", "bias"),
    [
        ((3, 4), (4, 5), (1, 5)),
        ((1, 1), (1, 1), None),
        ((2, 3, 17, 9), (2, 3, 9, 33), None),
        ((2, 3, 4, 5), (1, 3, 5, 6), (1, 1, 1, 6)),
        ((6, 16, 16), (6, 16, 16), (1, 16, 1)),
    ],
    ids=str,
)
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)], ids=str)
def test_matmul(
    a: tuple[int, ...],
    b: tuple[int, ...],
    bias: tuple[int, ...] | None,
    transposed: tuple[bool, bool],
    dtype: dnnl.DataType,
) -> None:
    rng = np.random.default_rng(2)
    x, y = random_array(rng, *a, dtype=dtype), random_array(rng, *b, dtype=dtype)
    shape = (*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])
    api = dnnl.Api()
    plain, swapped = "abcdef"[: len(a)], "abcdef"[: len(a) - 2] + "abcdef"[len(a) - 2 : len(a)][::-1]
    tags = [swapped if is_transposed else plain for is_transposed in transposed]
    term = None if bias is None else api.strided(bias)
    target = api.strided(shape, dtype=dtype)
    product = dnnl.matmul(api, api.tagged(a, tags[0], dtype), api.tagged(b, tags[1], dtype), term, target)
    inputs = {dnnl.SRC: x, dnnl.WEIGHTS: y}
    expected = double(x) @ double(y)
    if bias is not None:
        inputs[dnnl.BIAS] = random_array(rng, *bias)
        expected = expected + double(inputs[dnnl.BIAS])
    out = run(product, inputs, [dnnl.DST])
    check(fetch(out[dnnl.DST]), expected, dtype)
    assert product.flops == 2.0 * np.prod(shape) * a[-1]


@pytest.mark.parametrize("dtype", TYPES)
def test_matmul_of_strided_parts(dtype: dnnl.DataType) -> None:
    """Heads of an attention layer lie side by side in the rows of one array: (n, t, 3, heads, size)."""
    rng = np.random.default_rng(3)
    n, t, heads, size = 2, 5, 3, 8
    qkv = random_array(rng, n, t, 3, heads, size, dtype=dtype)
    step = 3 * heads * size
    api = dnnl.Api()
    packed = run(
        dnnl.reorder(api, api.strided(qkv.shape), api.strided(qkv.shape, dtype=dtype)), {dnnl.SRC: qkv}, [dnnl.DST]
    )[dnnl.DST].array.reshape(-1)
    strides = (t * step, size, step, 1)
    query = api.strided((n, heads, t, size), strides, dtype)
    key = api.strided((n, heads, size, t), (t * step, size, 1, step), dtype)
    scores = api.strided((n, heads, t, t), dtype=dtype)
    product = dnnl.matmul(api, query, key, None, scores)
    memories = {
        dnnl.SRC: api.memory(query, packed),
        dnnl.WEIGHTS: api.memory(key, packed[heads * size :]),
        dnnl.DST: api.memory(scores),
    }
    assert product.bind(memories)() == 0
    q, k = (double(qkv[:, :, i]).transpose(1, 2) for i in range(2))
    check(fetch(memories[dnnl.DST]), q @ k.transpose(2, 3), dtype)


def test_products_add_to_what_is_there() -> None:
    """So gradients of shared weights, or of an input that several layers read, need no sum of their own."""
    rng = np.random.default_rng(4)
    x, y, old = random_array(rng, 9, 20), random_array(rng, 20, 7), random_array(rng, 9, 7)
    api = dnnl.Api()
    target = api.strided(old.shape)
    product = dnnl.matmul(
        api, api.strided(x.shape), api.any(y.shape), None, target, attr=api.attribute_of(dnnl.SumPostOp())
    )
    memories = {
        dnnl.SRC: load(api, product.layout(dnnl.SRC), x),
        dnnl.WEIGHTS: load(api, product.layout(dnnl.WEIGHTS), y),
        dnnl.DST: api.memory(target, old.copy()),
    }
    assert product.bind(memories)() == 0
    check(memories[dnnl.DST].view(), double(old) + double(x) @ double(y), dnnl.F32)


def test_float32_products_may_compute_in_bfloat16() -> None:
    rng = np.random.default_rng(5)
    x, y = random_array(rng, 64, 64), random_array(rng, 64, 64)
    api = dnnl.Api()
    shape = api.any(x.shape)
    attr = api.attribute_of(math_mode=dnnl.FpMath.BF16)
    out = run(dnnl.matmul(api, shape, shape, None, shape, attr=attr), {dnnl.SRC: x, dnnl.WEIGHTS: y}, [dnnl.DST])
    check(fetch(out[dnnl.DST]), double(x) @ double(y), dnnl.BF16)
