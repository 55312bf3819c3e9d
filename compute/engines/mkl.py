"""The engine `mkl`: batch-last stages on MKL's BLAS and vector mathematics, as BigDL's mklblas."""

from __future__ import annotations

import ctypes
import math
from ctypes import c_float, c_int, c_int64, c_size_t, c_void_p
from functools import partial

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from compute import nn
from compute.engines.backend import ELEMENTWISE_OPERATIONS, Backend, Pooling, strides_of
from compute.engines.batch_last import BatchLastEngine
from compute.engines.libraries import load_mkl, load_openmp, openmp_is_first
from compute.engines.staged import Call
from compute.errors import InputError
from compute.memory import aligned
from compute.program import Engine, Program

Array = NDArray[np.float32]

# mkl_cblas.h, mkl_service.h, mkl_vml_defines.h
_ROW_MAJOR, _PLAIN, _TRANSPOSED = 101, 111, 112
_THREADING_INTEL = 0
_CBWR_AUTO = 2
_VML_HIGH_ACCURACY = 0x2  # errors under 1 ulp
_ZERO = np.float32(0)
_ONE = np.float32(1)


class MklPooling(Pooling):
    """Max pooling in numpy; remembers which element of each window was the first largest."""

    def __init__(self, layer: nn.MaxPool2d, x: Array, y: Array, training: bool) -> None:
        channels, height, width, n = x.shape
        pad_y, pad_x = layer.padding
        self._x, self._y = x, y
        self._inside = (slice(None), slice(pad_y, pad_y + height), slice(pad_x, pad_x + width))
        self._padded_shape = (channels, height + 2 * pad_y, width + 2 * pad_x, n)
        self._layer = layer
        self._choice = np.zeros(y.shape, dtype=np.uint8 if math.prod(layer.kernel_size) <= 256 else np.uint32)
        self._place = np.zeros_like(self._choice)
        self._larger = np.zeros(y.shape, dtype=np.bool_)
        self._padded = x
        if pad_y or pad_x:
            self._padded = aligned(self._padded_shape)
            self._padded.fill(-np.inf)
        self._windows = self._views(self._padded)
        self.forward = [self._forward if training else self._forward_only]

    def _views(self, padded: Array) -> list[Array]:
        """For each place in the window, the elements there, as y."""
        s_c, s_y, s_x, s_n = padded.strides
        stride_y, stride_x = self._layer.stride
        return [
            as_strided(padded[:, ky:, kx:], self._y.shape, (s_c, s_y * stride_y, s_x * stride_x, s_n))
            for ky in range(self._layer.kernel_size[0])
            for kx in range(self._layer.kernel_size[1])
        ]

    def _load(self) -> None:
        if self._padded is not self._x:
            np.copyto(self._padded[self._inside], self._x)

    def _forward_only(self) -> None:
        self._load()
        np.copyto(self._y, self._windows[0])
        for window in self._windows[1:]:
            np.maximum(self._y, window, out=self._y)

    def _forward(self) -> None:
        self._load()
        self._choice.fill(0)
        np.copyto(self._y, self._windows[0])
        for place, window in enumerate(self._windows[1:], start=1):
            np.greater(window, self._y, out=self._larger)
            # Places grow, so the larger of two is the later: no masked copy, which numpy does element by element.
            np.multiply(self._larger.view(np.uint8), self._choice.dtype.type(place), out=self._place)
            np.maximum(self._choice, self._place, out=self._choice)
            np.maximum(self._y, window, out=self._y)

    def backward(self, grad_y: Array, grad_x: Array) -> list[Call]:
        padded = grad_x if self._padded is self._x else aligned(self._padded_shape)
        windows = self._views(padded)
        part = aligned(grad_y.shape)
        mask = part.view(np.uint32)

        def call() -> None:
            padded.fill(0.0)
            for place, window in enumerate(windows):
                np.equal(self._choice, place, out=self._larger)
                # Minus one is all bits: a bitwise and picks the gradient or zero without a branch.
                np.copyto(mask, self._larger)
                np.negative(mask, out=mask)
                np.bitwise_and(mask, grad_y.view(np.uint32), out=mask)
                np.add(window, part, out=window)
            if padded is not grad_x:
                np.copyto(grad_x, padded[self._inside])

        return [call]


class MklBackend(Backend):
    """MKL through its C interface; element-wise operations that it lacks in numpy."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._openmp, self._mkl = load_openmp(), load_mkl()
        if threads > 1 and not openmp_is_first():
            raise InputError(
                "engine mkl cannot use several threads here: another OpenMP runtime, such as PyTorch's, was loaded "
                "before MKL's; import it after compute.compile, or use one thread or engine onednn"
            )
        # The layer and the reproducibility mode count only before MKL's first computation in this process.
        self._mkl.MKL_Set_Threading_Layer(c_int(_THREADING_INTEL))
        self._mkl.MKL_CBWR_Set(c_int(_CBWR_AUTO))
        # Otherwise MKL may take fewer threads, and so add in another order, than asked for.
        self._mkl.MKL_Set_Dynamic(c_int(0))

    def set_threads(self, threads: int) -> None:
        self._openmp.omp_set_num_threads(c_int(threads))
        self._mkl.MKL_Set_Num_Threads_Local(c_int(threads))

    def gemm(self, a: Array, b: Array, c: Array, accumulate: bool = False) -> Call:
        self._keep(a, b, c)
        (trans_a, lda), (trans_b, ldb) = strides_of(a), strides_of(b)
        self._mkl.cblas_sgemm.restype = None
        call = partial(
            self._mkl.cblas_sgemm,
            c_int(_ROW_MAJOR),
            c_int(_TRANSPOSED if trans_a else _PLAIN),
            c_int(_TRANSPOSED if trans_b else _PLAIN),
            *(c_int(size) for size in (a.shape[0], b.shape[1], a.shape[1])),
            c_float(1),
            c_void_p(a.ctypes.data),
            c_int(lda),
            c_void_p(b.ctypes.data),
            c_int(ldb),
            c_float(1 if accumulate else 0),
            c_void_p(c.ctypes.data),
            c_int(c.strides[0] // 4 if len(c) > 1 else c.shape[1]),
        )
        return self._sized(2.0 * c.size * a.shape[1], lambda: call)

    def transpose(self, source: Array, target: Array) -> Call:
        self._keep(source, target)
        self._mkl.MKL_Somatcopy.restype = None
        return partial(
            self._mkl.MKL_Somatcopy,
            ctypes.c_char(b"R"),
            ctypes.c_char(b"T"),
            c_size_t(source.shape[0]),
            c_size_t(source.shape[1]),
            c_float(1),
            c_void_p(source.ctypes.data),
            c_size_t(source.shape[1]),
            c_void_p(target.ctypes.data),
            c_size_t(target.shape[1]),
        )

    def bias_activation(self, x: Array, bias: Array | None, y: Array, activation: nn.Module | None) -> Call:
        column = None if bias is None else bias[:, None]
        self._keep(x, y)
        self._mkl.vmsTanh.restype = None
        source_address = c_void_p((x if column is None else y).ctypes.data)
        arguments = (c_int(y.size), source_address, c_void_p(y.ctypes.data), c_int64(_VML_HIGH_ACCURACY))
        tanh = self._sized(ELEMENTWISE_OPERATIONS * float(y.size), lambda: partial(self._mkl.vmsTanh, *arguments))
        if activation is not None and not isinstance(activation, nn.Tanh | nn.ReLU):
            raise InputError(f"MKL's engine does not know the activation {activation.kind}")

        def call() -> None:
            source = x
            if column is not None:
                np.add(x, column, out=y)
                source = y
            if isinstance(activation, nn.Tanh):
                tanh()
            elif isinstance(activation, nn.ReLU):
                np.maximum(source, _ZERO, out=y)

        return call

    def activation_backward(self, activation: nn.Module, y: Array, grad_y: Array, grad_x: Array) -> Call:
        scratch = np.empty_like(y)
        mask = np.empty(y.shape, dtype=np.bool_)

        def tanh() -> None:
            np.multiply(y, y, out=scratch)
            np.subtract(_ONE, scratch, out=scratch)
            np.multiply(grad_y, scratch, out=grad_x)

        def relu() -> None:
            np.greater(y, _ZERO, out=mask)
            np.multiply(grad_y, mask, out=grad_x)

        return tanh if isinstance(activation, nn.Tanh) else relu

    def row_sums(self, x: Array, sums: Array) -> Call:
        ones = aligned((x.shape[1], 1))
        ones.fill(1.0)
        return self.gemm(x, ones, sums.reshape(-1, 1))

    def max_pool(self, layer: nn.MaxPool2d, x: Array, y: Array, training: bool) -> Pooling:
        return MklPooling(layer, x, y, training)


def make(program: Program, threads: int) -> Engine:
    """The engine for a program."""
    return BatchLastEngine(program, threads, MklBackend(threads))
