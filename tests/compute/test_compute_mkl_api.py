"""MKL's functions through our binding, against numpy in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import special

from compute.bfloat16 import from_bfloat16, to_bfloat16
from compute.engines.mkl_api import Function, Mkl

MKL = Mkl()


def matrix(rng: np.random.Generator, rows: int, columns: int, transposed: bool, bf16: bool) -> np.ndarray:
    """Random, float32 or bfloat16, a view with gaps between its rows, or columns if transposed."""
    shape = (columns, rows + 3) if transposed else (rows, columns + 3)
    x = rng.standard_normal(shape).astype(np.float32)
    x = to_bfloat16(x) if bf16 else x
    return x[:, :rows].T if transposed else x[:, :columns]


def double(x: np.ndarray) -> np.ndarray:
    return (from_bfloat16(np.ascontiguousarray(x)) if x.dtype == np.uint16 else x).astype(np.float64)


def check(actual: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * max(np.abs(expected).max(), 1))


SIZES = [(1, 1, 1), (5, 7, 3), (64, 33, 129), (1, 40, 16), (40, 1, 16)]


@pytest.mark.parametrize("bf16", [False, True], ids=["f32", "bf16"])
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_gemm(size: tuple[int, int, int], transposed: tuple[bool, bool], bf16: bool) -> None:
    m, n, k = size
    rng = np.random.default_rng(1)
    a, b = matrix(rng, m, k, transposed[0], bf16), matrix(rng, k, n, transposed[1], bf16)
    c = matrix(rng, m, n, False, False)
    expected = 0.5 * (double(a) @ double(b)) + 2 * double(c)
    call = MKL.gemm(a, b, c, 0.5, 2.0)
    call()
    check(c, expected)
    assert call.record.flops == 2.0 * m * n * k
    assert call.record.name == ("cblas_gemm_bf16bf16f32" if bf16 else "cblas_sgemm")


@pytest.mark.parametrize("bf16", [False, True], ids=["f32", "bf16"])
@pytest.mark.parametrize("transposed", [(False, False), (True, True)], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_packed_gemm(size: tuple[int, int, int], transposed: tuple[bool, bool], bf16: bool) -> None:
    m, n, k = size
    rng = np.random.default_rng(2)
    a, b = matrix(rng, m, k, transposed[0], bf16), matrix(rng, k, n, transposed[1], bf16)
    c = np.full((m, n), np.nan, dtype=np.float32)
    pack, multiply = MKL.packed_gemm(a, b, c)
    for _ in range(2):
        pack()
        multiply()
        check(c, double(a) @ double(b))
        # Other values in the same array: packed anew.
        b[:] = matrix(rng, k, n, False, bf16)


@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True)], ids=str)
def test_batched_gemm(transposed: tuple[bool, bool]) -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal((4, 5, 6)).astype(np.float32), rng.standard_normal((4, 6, 7)).astype(np.float32))
    if transposed[0]:
        a = a.transpose(0, 2, 1).copy().transpose(0, 2, 1)
    if transposed[1]:
        b = b.transpose(0, 2, 1).copy().transpose(0, 2, 1)
    c = np.full((4, 5, 7), np.nan, dtype=np.float32)
    call = MKL.batched_gemm(a, b, c)
    call()
    check(c, double(a) @ double(b))
    assert call.record.flops == 2.0 * 4 * 5 * 6 * 7


def test_matrices_without_unit_stride_are_refused() -> None:
    x = np.zeros((4, 4, 2), dtype=np.float32)[:, :, 0]
    with pytest.raises(ValueError, match="no unit stride"):
        MKL.gemm(x, x, np.zeros((4, 4), dtype=np.float32))


def test_transpose() -> None:
    rng = np.random.default_rng(4)
    source, target = matrix(rng, 5, 9, False, False), np.zeros((9, 7), dtype=np.float32)
    MKL.transpose(source, target[:, :5])()
    np.testing.assert_array_equal(target[:, :5], source.T)
    assert not target[:, 5:].any()


@pytest.mark.parametrize(
    ("function", "reference"),
    [
        (Function.EXP, np.exp),
        (Function.LN, np.log),
        (Function.LOG1P, np.log1p),
        (Function.TANH, np.tanh),
        (Function.ERF, special.erf),
        (Function.CDF_NORM, special.ndtr),
        (Function.SQRT, np.sqrt),
        (Function.INV_SQRT, lambda x: 1 / np.sqrt(x)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_vector_functions(function: Function, reference: Callable) -> None:
    rng = np.random.default_rng(5)
    x = (3 * rng.standard_normal(1003)).astype(np.float32)
    if function in {Function.LN, Function.LOG1P, Function.SQRT, Function.INV_SQRT}:
        x = np.abs(x) + np.float32(1e-3)
    expected = reference(x.astype(np.float64))
    y = np.full_like(x, np.nan)
    MKL.vector(function, x, y)()
    np.testing.assert_allclose(y, expected, rtol=3e-7)
    MKL.vector(function, x, x)()
    np.testing.assert_array_equal(x, y)
