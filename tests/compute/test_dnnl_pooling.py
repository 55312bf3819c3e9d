"""oneDNN's pooling and resampling through our binding, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compute.engines import dnnl
from tests.compute.dnnl_runner import TYPES, check, double, fetch, gradients, random_array, run

CASES = [
    ((2, 16, 8, 8), "abcd", (2, 2), (2, 2), (0, 0)),
    ((2, 16, 8, 8), "aBcd16b", (3, 3), (2, 2), (1, 1)),
    ((2, 20, 7, 9), "acdb", (3, 2), (2, 1), (1, 0)),
    ((1, 8, 7, 7), "acdb", (7, 7), (1, 1), (0, 0)),
    # The last column is in no window.
    ((1, 3, 5, 5), "abcd", (2, 2), (2, 2), (0, 0)),
    ((2, 4, 11), "abc", (3,), (2,), (1,)),
    ((2, 4, 5, 6, 7), "abcde", (2, 2, 3), (2, 1, 2), (0, 1, 1)),
]
FUNCTIONS = torch.nn.functional
MAXIMUM = {1: FUNCTIONS.max_pool1d, 2: FUNCTIONS.max_pool2d, 3: FUNCTIONS.max_pool3d}
AVERAGE = {1: FUNCTIONS.avg_pool1d, 2: FUNCTIONS.avg_pool2d, 3: FUNCTIONS.avg_pool3d}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("algorithm", dnnl.Pooling)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_pooling(case: tuple, algorithm: dnnl.Pooling, dtype: dnnl.DataType) -> None:
    shape, tag, kernel, stride, padding = case
    rng = np.random.default_rng(1)
    x = random_array(rng, *shape, dtype=dtype)
    tx = double(x)
    if algorithm is dnnl.Pooling.MAX:
        ty = MAXIMUM[len(kernel)](tx, kernel, stride, padding)
    else:
        include = algorithm is dnnl.Pooling.AVERAGE_INCLUDE_PADDING
        ty = AVERAGE[len(kernel)](tx, kernel, stride, padding, False, include)
    grad_y = random_array(rng, *ty.shape, dtype=dtype)
    api = dnnl.Api()
    source, target = api.tagged(shape, tag, dtype), api.tagged(tuple(ty.shape), tag, dtype)
    forward = dnnl.pooling(api, algorithm, source, target, kernel, stride, padding)
    assert (forward.workspace is not None) == (algorithm is dnnl.Pooling.MAX)
    workspace = [dnnl.WORKSPACE] if forward.workspace else []
    out = run(forward, {dnnl.SRC: x}, [dnnl.DST, *workspace])
    check(fetch(out[dnnl.DST]), ty, dtype)
    backward = dnnl.pooling_backward(forward, source, target)
    known = {key: out[key] for key in workspace}
    out = run(backward, {**known, dnnl.DIFF_DST: grad_y}, [dnnl.DIFF_SRC])
    check(fetch(out[dnnl.DIFF_SRC]), gradients(ty, grad_y, tx)[0], dtype)

    inference = dnnl.pooling(api, algorithm, source, target, kernel, stride, padding, training=False)
    assert inference.workspace is None
    check(fetch(run(inference, {dnnl.SRC: x}, [dnnl.DST])[dnnl.DST]), ty, dtype)


def test_dilated_maxima() -> None:
    rng = np.random.default_rng(2)
    x = random_array(rng, 2, 16, 9, 9)
    tx = double(x)
    ty = FUNCTIONS.max_pool2d(tx, (3, 2), (1, 2), (1, 1), (2, 2))
    api = dnnl.Api()
    source, target = api.strided(x.shape), api.strided(tuple(ty.shape))
    forward = dnnl.pooling(api, dnnl.Pooling.MAX, source, target, (3, 2), (1, 2), (1, 1), (2, 2))
    out = run(forward, {dnnl.SRC: x}, [dnnl.DST, dnnl.WORKSPACE])
    check(fetch(out[dnnl.DST]), ty, dnnl.F32)
    grad_y = random_array(rng, *ty.shape)
    backward = dnnl.pooling_backward(forward, source, target)
    out = run(backward, {dnnl.WORKSPACE: out[dnnl.WORKSPACE], dnnl.DIFF_DST: grad_y}, [dnnl.DIFF_SRC])
    check(fetch(out[dnnl.DIFF_SRC]), gradients(ty, grad_y, tx)[0], dnnl.F32)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("shape", "size", "algorithm", "mode"),
    [
        ((2, 16, 4, 5), (8, 10), dnnl.Resampling.NEAREST, "nearest"),
        ((2, 16, 4, 5), (8, 10), dnnl.Resampling.LINEAR, "bilinear"),
        ((2, 3, 6, 6), (3, 9), dnnl.Resampling.LINEAR, "bilinear"),
        ((1, 2, 5), (10,), dnnl.Resampling.LINEAR, "linear"),
        ((1, 4, 2, 3, 2), (4, 6, 4), dnnl.Resampling.LINEAR, "trilinear"),
    ],
    ids=str,
)
def test_resampling(
    shape: tuple[int, ...], size: tuple[int, ...], algorithm: dnnl.Resampling, mode: str, dtype: dnnl.DataType
) -> None:
    rng = np.random.default_rng(3)
    x = random_array(rng, *shape, dtype=dtype)
    tx = double(x)
    aligned = {} if mode == "nearest" else {"align_corners": False}
    ty = FUNCTIONS.interpolate(tx, size=size, mode=mode, **aligned)
    grad_y = random_array(rng, *ty.shape, dtype=dtype)
    api = dnnl.Api()
    source, target = api.strided(shape, dtype=dtype), api.strided(tuple(ty.shape), dtype=dtype)
    forward = dnnl.resampling(api, algorithm, source, target)
    check(fetch(run(forward, {dnnl.SRC: x}, [dnnl.DST])[dnnl.DST]), ty, dtype)
    backward = dnnl.resampling_backward(forward, source, target)
    out = run(backward, {dnnl.DIFF_DST: grad_y}, [dnnl.DIFF_SRC])
    check(fetch(out[dnnl.DIFF_SRC]), gradients(ty, grad_y, tx)[0], dtype)
