"""oneDNN's normalizations and softmax through our binding, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compute.engines import dnnl
from tests.compute.dnnl_runner import TYPES, check, double, fetch, gradients, random_array, run

AFFINE = dnnl.USE_SCALE | dnnl.USE_SHIFT


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    ("shape", "tag"),
    [
        ((4, 16, 5, 3), "abcd"),
        ((4, 16, 5, 3), "acdb"),
        ((4, 20, 5, 3), "aBcd16b"),
        ((2, 8, 3, 2, 4), "abcde"),
        ((9, 5), "ab"),
        ((3, 32, 7), "acb"),
    ],
    ids=str,
)
def test_batch_normalization(shape: tuple[int, ...], tag: str, relu: bool, dtype: dnnl.DataType) -> None:
    rng = np.random.default_rng(1)
    channels = shape[1]
    x, grad_y = random_array(rng, *shape, dtype=dtype), random_array(rng, *shape, dtype=dtype)
    scale, shift = random_array(rng, channels), random_array(rng, channels)
    tx, ts, tb = double(x), double(scale), double(shift)
    ty = torch.nn.functional.batch_norm(tx, None, None, ts, tb, True, eps=1e-3)
    ty = torch.relu(ty) if relu else ty
    grads = gradients(ty, grad_y, tx, ts, tb)
    axes = tuple(axis for axis in range(len(shape)) if axis != 1)

    api = dnnl.Api()
    layout = api.tagged(shape, tag, dtype)
    forward = dnnl.batch_normalization(api, layout, layout, 1e-3, AFFINE | (dnnl.FUSE_RELU if relu else 0))
    assert (forward.workspace is not None) == relu
    inputs = {dnnl.SRC: x, dnnl.SCALE: scale, dnnl.SHIFT: shift}
    out = run(forward, inputs, [dnnl.DST, dnnl.MEAN, dnnl.VARIANCE] + ([dnnl.WORKSPACE] if relu else []))
    check(fetch(out[dnnl.DST]), ty, dtype)
    check(fetch(out[dnnl.MEAN]), x.astype(np.float64).mean(axes), dnnl.F32)
    check(fetch(out[dnnl.VARIANCE]), x.astype(np.float64).var(axes), dnnl.F32)

    backward = dnnl.batch_normalization_backward(forward, layout, layout, layout)
    known = {key: out[key] for key in (dnnl.SRC, dnnl.SCALE, dnnl.MEAN, dnnl.VARIANCE)}
    known |= {dnnl.WORKSPACE: out[dnnl.WORKSPACE]} if relu else {}
    wanted = [dnnl.DIFF_SRC, dnnl.DIFF_SCALE, dnnl.DIFF_SHIFT]
    out = run(backward, {**known, dnnl.DIFF_DST: grad_y}, wanted)
    for argument, grad in zip(wanted, grads, strict=True):
        check(fetch(out[argument]), grad, dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("tag", ["abcd", "acdb", "aBcd16b"])
def test_batch_normalization_with_given_statistics(tag: str, dtype: dnnl.DataType) -> None:
    rng = np.random.default_rng(2)
    shape = (3, 24, 4, 5)
    x, grad_y = random_array(rng, *shape, dtype=dtype), random_array(rng, *shape, dtype=dtype)
    mean, scale, shift = (random_array(rng, 24) for _ in range(3))
    variance = random_array(rng, 24) ** 2 + 0.1
    tx, ts, tb = double(x), double(scale), double(shift)
    ty = torch.nn.functional.batch_norm(tx, double(mean, False), double(variance, False), ts, tb, False, eps=1e-5)
    grads = gradients(ty, grad_y, tx, ts, tb)
    api = dnnl.Api()
    layout = api.tagged(shape, tag, dtype)
    flags = AFFINE | dnnl.USE_GLOBAL_STATS
    inputs = {dnnl.SRC: x, dnnl.SCALE: scale, dnnl.SHIFT: shift, dnnl.MEAN: mean, dnnl.VARIANCE: variance}
    inference = dnnl.batch_normalization(api, layout, layout, 1e-5, flags | dnnl.FUSE_RELU, training=False)
    assert inference.workspace is None
    check(fetch(run(inference, inputs, [dnnl.DST])[dnnl.DST]), torch.relu(ty), dtype)
    forward = dnnl.batch_normalization(api, layout, layout, 1e-5, flags)
    out = run(forward, inputs, [dnnl.DST])
    check(fetch(out[dnnl.DST]), ty, dtype)
    backward = dnnl.batch_normalization_backward(forward, layout, layout, layout)
    known = {key: out[key] for key in (dnnl.SRC, dnnl.SCALE, dnnl.MEAN, dnnl.VARIANCE)}
    wanted = [dnnl.DIFF_SRC, dnnl.DIFF_SCALE, dnnl.DIFF_SHIFT]
    out = run(backward, {**known, dnnl.DIFF_DST: grad_y}, wanted)
    for argument, grad in zip(wanted, grads, strict=True):
        check(fetch(out[argument]), grad, dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 32), (2, 3, 5, 17), (1, 1)], ids=str)
def test_layer_normalization(shape: tuple[int, ...], affine: bool, dtype: dnnl.DataType) -> None:
    rng = np.random.default_rng(3)
    x, grad_y = random_array(rng, *shape, dtype=dtype), random_array(rng, *shape, dtype=dtype)
    scale, shift = random_array(rng, shape[-1]), random_array(rng, shape[-1])
    tx, ts, tb = double(x), double(scale), double(shift)
    ty = torch.nn.functional.layer_norm(tx, shape[-1:], ts if affine else None, tb if affine else None, eps=1e-3)
    api = dnnl.Api()
    layout, statistics = api.strided(shape, dtype=dtype), api.strided(shape[:-1])
    forward = dnnl.layer_normalization(api, layout, layout, statistics, 1e-3, AFFINE if affine else 0)
    inputs = {dnnl.SRC: x} | ({dnnl.SCALE: scale, dnnl.SHIFT: shift} if affine else {})
    out = run(forward, inputs, [dnnl.DST, dnnl.MEAN, dnnl.VARIANCE])
    check(fetch(out[dnnl.DST]), ty, dtype)
    check(fetch(out[dnnl.MEAN]), x.astype(np.float64).mean(-1), dnnl.F32)
    backward = dnnl.layer_normalization_backward(forward, layout, layout, layout, statistics)
    known = {key: out[key] for key in (dnnl.SRC, dnnl.MEAN, dnnl.VARIANCE)}
    wanted = [dnnl.DIFF_SRC]
    if affine:
        known |= {dnnl.SCALE: out[dnnl.SCALE], dnnl.SHIFT: out[dnnl.SHIFT]}
        wanted += [dnnl.DIFF_SCALE, dnnl.DIFF_SHIFT]
    grads = gradients(ty, grad_y, *([tx, ts, tb] if affine else [tx]))
    out = run(backward, {**known, dnnl.DIFF_DST: grad_y}, wanted)
    for argument, grad in zip(wanted, grads, strict=True):
        check(fetch(out[argument]), grad, dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("tag", ["abcd", "acdb", "aBcd16b"])
def test_local_response_normalization(tag: str, size: int, dtype: dnnl.DataType) -> None:
    rng = np.random.default_rng(4)
    shape = (2, 16, 5, 6)
    x, grad_y = random_array(rng, *shape, dtype=dtype), random_array(rng, *shape, dtype=dtype)
    tx = double(x)
    ty = torch.nn.functional.local_response_norm(tx, size, 0.3, 0.75, 1.5)
    api = dnnl.Api()
    layout = api.tagged(shape, tag, dtype)
    forward = dnnl.local_response_normalization(api, layout, layout, size, 0.3, 0.75, 1.5)
    workspace = [dnnl.WORKSPACE] if forward.workspace else []
    out = run(forward, {dnnl.SRC: x}, [dnnl.DST, *workspace])
    check(fetch(out[dnnl.DST]), ty, dtype)
    backward = dnnl.local_response_normalization_backward(forward, layout, layout, layout)
    known = {key: out[key] for key in (dnnl.SRC, *workspace)}
    out = run(backward, {**known, dnnl.DIFF_DST: grad_y}, [dnnl.DIFF_SRC])
    check(fetch(out[dnnl.DIFF_SRC]), gradients(ty, grad_y, tx)[0], dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("algorithm", dnnl.Softmax)
@pytest.mark.parametrize(
    ("shape", "axis"), [((5, 10), 1), ((2, 3, 7), 2), ((4, 6, 3, 3), 1), ((3, 1), 1), ((2, 1000), 1)]
)
def test_softmax(shape: tuple[int, ...], axis: int, algorithm: dnnl.Softmax, dtype: dnnl.DataType) -> None:
    rng = np.random.default_rng(5)
    x, grad_y = 4 * random_array(rng, *shape, dtype=dtype), random_array(rng, *shape, dtype=dtype)
    tx = double(x)
    ty = (torch.softmax if algorithm is dnnl.Softmax.SOFTMAX else torch.log_softmax)(tx, axis)
    api = dnnl.Api()
    layout = api.strided(shape, dtype=dtype)
    forward = dnnl.softmax(api, layout, layout, axis, algorithm)
    out = run(forward, {dnnl.SRC: x}, [dnnl.DST])
    check(fetch(out[dnnl.DST]), ty, dtype)
    backward = dnnl.softmax_backward(forward, layout, layout, layout)
    out = run(backward, {dnnl.DST: out[dnnl.DST], dnnl.DIFF_DST: grad_y}, [dnnl.DIFF_SRC])
    check(fetch(out[dnnl.DIFF_SRC]), gradients(ty, grad_y, tx)[0], dtype)
