"""MKL's matrix products and vector functions as prepared calls.

Signatures and constants are those of mkl_cblas.h, mkl_trans.h, mkl_service.h and mkl_vml.h with 32-bit integers (LP64).
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_char, c_float, c_int, c_int64, c_size_t, c_void_p
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.engines.call import Call, Record
from compute.engines.libraries import load_mkl, load_openmp, openmp_is_first
from compute.errors import InputError
from compute.memory import aligned

Array = NDArray[Any]
Floats = NDArray[np.float32]

_ROW_MAJOR, _PLAIN, _TRANSPOSED, _PACKED = 101, 111, 112, 151
_PACK_A, _PACK_B = 161, 162
_THREADING_INTEL = 0
_CBWR_AUTO = 2
_VML_HIGH_ACCURACY = 0x2  # errors under 1 ulp
_VML_FTZDAZ_OFF = 0x140000  # denormal numbers are kept


class Function(StrEnum):
    """Vector functions of float32 with errors below 1 ulp, y = f(x)."""

    EXP = "vmsExp"
    LN = "vmsLn"
    LOG1P = "vmsLog1p"
    TANH = "vmsTanh"
    ERF = "vmsErf"
    CDF_NORM = "vmsCdfNorm"
    SQRT = "vmsSqrt"
    INV_SQRT = "vmsInvSqrt"


class Mkl:
    """The library, set up for reproducible results."""

    def __init__(self, threads: int = 1) -> None:
        """
        Raises:
            InputError: MKL is not installed, or cannot use several threads beside the OpenMP runtime loaded before.
        """
        self._openmp, self.lib = load_openmp(), load_mkl()
        if threads > 1 and not openmp_is_first():
            raise InputError(
                "engine mkl cannot use several threads here: another OpenMP runtime, such as PyTorch's, was loaded "
                "before MKL's; import it after compute.compile, or use one thread or engine onednn"
            )
        # The layer and the reproducibility mode count only before MKL's first computation in this process.
        self.lib.MKL_Set_Threading_Layer(c_int(_THREADING_INTEL))
        self.lib.MKL_CBWR_Set(c_int(_CBWR_AUTO))
        # Otherwise MKL may take fewer threads, and so add in another order, than asked for.
        self.lib.MKL_Set_Dynamic(c_int(0))
        self.set_threads(threads)

    def set_threads(self, threads: int) -> None:
        """How many threads MKL's calls from this thread may use from now on."""
        self.lib.MKL_Set_Num_Threads_Local(c_int(threads))

    def gemm(self, a: Array, b: Array, c: Floats, alpha: float = 1.0, beta: float = 0.0) -> Call:
        """c = alpha * a @ b + beta * c.

        Args:
            a, b: (m, k) and (k, n), both float32 or both bfloat16 (uint16), with unit stride in one dimension.
            c: float32 (m, n), rows with unit stride.
        """
        function = "cblas_sgemm" if a.dtype == np.float32 else "cblas_gemm_bf16bf16f32"
        (trans_a, lda), (trans_b, ldb) = _leading(a), _leading(b)
        m, n, k = c.shape[0], c.shape[1], a.shape[1]
        return self._call(
            function,
            2.0 * m * n * k,
            (a, b, c),
            c_int(_ROW_MAJOR),
            c_int(_TRANSPOSED if trans_a else _PLAIN),
            c_int(_TRANSPOSED if trans_b else _PLAIN),
            *map(c_int, (m, n, k)),
            c_float(alpha),
            _pointer(a),
            c_int(lda),
            _pointer(b),
            c_int(ldb),
            c_float(beta),
            _pointer(c),
            c_int(_row_stride(c)),
        )

    def batched_gemm(self, a: Floats, b: Floats, c: Floats, alpha: float = 1.0, beta: float = 0.0) -> Call:
        """c[i] = alpha * a[i] @ b[i] + beta * c[i] for float32 (batch, m, k), (batch, k, n), (batch, m, n)."""
        (trans_a, lda), (trans_b, ldb) = _leading(a[0]), _leading(b[0])
        batch, m, n = c.shape
        return self._call(
            "cblas_sgemm_batch_strided",
            2.0 * c.size * a.shape[2],
            (a, b, c),
            c_int(_ROW_MAJOR),
            c_int(_TRANSPOSED if trans_a else _PLAIN),
            c_int(_TRANSPOSED if trans_b else _PLAIN),
            *map(c_int, (m, n, a.shape[2])),
            c_float(alpha),
            *(_pointer(a), c_int(lda), c_int(a.strides[0] // 4)),
            *(_pointer(b), c_int(ldb), c_int(b.strides[0] // 4)),
            c_float(beta),
            *(_pointer(c), c_int(_row_stride(c[0])), c_int(c.strides[0] // 4)),
            c_int(batch),
        )

    def packed_gemm(self, a: Array, b: Array, c: Floats, beta: float = 0.0) -> tuple[Call, Call]:
        """c = a @ b + beta * c where b rarely changes: a call that packs b, and one that multiplies by what it packed.

        Types and strides as `gemm`'s.
        """
        name = "cblas_sgemm" if a.dtype == np.float32 else "cblas_gemm_bf16bf16f32"
        (trans_a, lda), (trans_b, ldb) = _leading(a), _leading(b)
        m, n, k = c.shape[0], c.shape[1], a.shape[1]
        sizes = tuple(map(c_int, (m, n, k)))
        get_size = getattr(self.lib, f"{name}_pack_get_size")
        get_size.restype = c_size_t
        packed = aligned((int(get_size(c_int(_PACK_B), *sizes)),), np.uint8)
        # The bfloat16 form of packing takes no factor.
        factor = (c_float(1.0),) if a.dtype == np.float32 else ()
        pack = self._call(
            f"{name}_pack",
            0.0,
            (b, packed),
            c_int(_ROW_MAJOR),
            c_int(_PACK_B),
            c_int(_TRANSPOSED if trans_b else _PLAIN),
            *sizes,
            *factor,
            *(_pointer(b), c_int(ldb), _pointer(packed)),
        )
        factor = () if a.dtype == np.float32 else (c_float(1.0),)
        multiply = self._call(
            f"{name}_compute",
            2.0 * m * n * k,
            (a, packed, c),
            c_int(_ROW_MAJOR),
            c_int(_TRANSPOSED if trans_a else _PLAIN),
            c_int(_PACKED),
            *sizes,
            *factor,
            *(_pointer(a), c_int(lda), _pointer(packed), c_int(ldb)),
            *(c_float(beta), _pointer(c), c_int(_row_stride(c))),
        )
        return pack, multiply

    def transpose(self, source: Floats, target: Floats) -> Call:
        """target (m, n) = source (n, m).T, float32, rows with unit stride."""
        return self._call(
            "MKL_Somatcopy",
            0.0,
            (source, target),
            c_char(b"R"),
            c_char(b"T"),
            c_size_t(source.shape[0]),
            c_size_t(source.shape[1]),
            c_float(1),
            _pointer(source),
            c_size_t(_row_stride(source)),
            _pointer(target),
            c_size_t(_row_stride(target)),
        )

    def vector(self, function: Function, x: Floats, y: Floats) -> Call:
        """y = function(x), C-contiguous float32 of one size; y may be x."""
        mode = c_int64(_VML_HIGH_ACCURACY | _VML_FTZDAZ_OFF)
        return self._call(function.value, 0.0, (x, y), c_int(x.size), _pointer(x), _pointer(y), mode)

    def _call(self, function: str, flops: float, arrays: Sequence[Array], *args: Any) -> Call:
        entry = getattr(self.lib, function)
        # Nothing is returned; what lies in the register would be taken for a status.
        entry.restype = None
        call = Call(entry, *args)
        call.record = Record(function, "mkl", flops, sum(array.nbytes for array in arrays))
        call.kept = (self, tuple(arrays))
        return call


def _pointer(array: Array) -> c_void_p:
    return c_void_p(array.ctypes.data)


def _row_stride(matrix: Array) -> int:
    """In elements; that of a single row means nothing and must still not be less than its length."""
    return matrix.strides[0] // matrix.itemsize if len(matrix) > 1 else matrix.shape[1]


def _leading(matrix: Array) -> tuple[bool, int]:
    """(transposed, leading dimension in elements) as BLAS wants it.

    Raises:
        ValueError: no dimension has unit stride.
    """
    rows, columns = matrix.shape
    row_stride, column_stride = (stride // matrix.itemsize for stride in matrix.strides)
    if column_stride == 1 or columns == 1:
        return False, row_stride if rows > 1 else columns
    if row_stride == 1 or rows == 1:
        return True, column_stride
    raise ValueError(f"a matrix of shape {matrix.shape} and strides {matrix.strides} has no unit stride")
