"""Operations of the batch-last stages on oneDNN's kernels."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_char, c_float, c_int, c_int64, c_void_p

import numpy as np
from numpy.typing import NDArray

from compute import nn
from compute.engines import dnnl
from compute.engines.backend import ELEMENTWISE_OPERATIONS, Backend, Pooling, strides_of
from compute.engines.call import Call as PreparedCall
from compute.engines.call import Record
from compute.engines.libraries import load_openmp
from compute.engines.staged import Call
from compute.errors import InputError
from compute.memory import aligned

Array = NDArray[np.float32]

_FORWARD: dict[type[nn.Module], int] = {nn.Tanh: dnnl.TANH, nn.ReLU: dnnl.RELU}
_BACKWARD_FROM_OUTPUT: dict[type[nn.Module], int] = {nn.Tanh: dnnl.TANH_FROM_DST, nn.ReLU: dnnl.RELU_FROM_DST}


class OnednnPooling(Pooling):
    """Max pooling whose workspace remembers the chosen elements.

    (C, H, W, n) is what oneDNN calls nhwc with C images of n channels: its kernels then run along the batch.
    """

    def __init__(
        self, backend: OnednnBackend, api: dnnl.Api, layer: nn.MaxPool2d, x: Array, y: Array, training: bool
    ) -> None:
        self._backend, self._api = backend, api
        self._x, self._y = _images(api, x), _images(api, y)
        out = y.shape[1:3]
        after = [
            # May be negative: rows that no window reaches.
            (out[axis] - 1) * layer.stride[axis] + layer.kernel_size[axis] - x.shape[1 + axis] - layer.padding[axis]
            for axis in range(2)
        ]
        self._geometry = (list(layer.stride), list(layer.kernel_size), [0, 0], list(layer.padding), after)
        self._x_array, self._y_array = x, y
        self._kind = dnnl.TRAINING if training else dnnl.INFERENCE
        self.forward = [backend.elementwise(x, self._prepare_forward)]

    def _prepare_forward(self) -> Call:
        api = self._api
        self._forward = dnnl.Operation(
            api, "pooling_forward", self._kind, dnnl.POOLING_MAX, self._x, self._y, *self._geometry
        )
        workspace = self._forward.workspace
        self._workspace = {dnnl.WORKSPACE: api.memory(workspace)} if workspace else {}
        memories = {dnnl.SRC: api.memory(self._x, self._x_array), dnnl.DST: api.memory(self._y, self._y_array)}
        return self._forward.bind({**memories, **self._workspace})

    def backward(self, grad_y: Array, grad_x: Array) -> list[Call]:
        return [self._backend.elementwise(grad_x, lambda: self._prepare_backward(grad_y, grad_x))]

    def _prepare_backward(self, grad_y: Array, grad_x: Array) -> Call:
        api = self._api
        operation = dnnl.Operation(
            api, "pooling_backward", dnnl.POOLING_MAX, self._x, self._y, *self._geometry, self._forward
        )
        memories = {dnnl.DIFF_DST: api.memory(self._y, grad_y), dnnl.DIFF_SRC: api.memory(self._x, grad_x)}
        return operation.bind({**memories, **self._workspace})


class OnednnBackend(Backend):
    """oneDNN primitives and its sgemm."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._api = dnnl.Api()
        self._openmp = load_openmp()
        self.begin()

    def set_threads(self, threads: int) -> None:
        self._openmp.omp_set_num_threads(c_int(threads))

    def gemm(self, a: Array, b: Array, c: Array, accumulate: bool = False) -> Call:
        self._keep(a, b, c)
        (trans_a, lda), (trans_b, ldb) = strides_of(a), strides_of(b)
        flops = 2.0 * c.size * a.shape[1]
        call = PreparedCall(
            self._api.lib.dnnl_sgemm,
            c_char(b"T" if trans_a else b"N"),
            c_char(b"T" if trans_b else b"N"),
            *(c_int64(size) for size in (a.shape[0], b.shape[1], a.shape[1])),
            c_float(1),
            c_void_p(a.ctypes.data),
            c_int64(lda),
            c_void_p(b.ctypes.data),
            c_int64(ldb),
            c_float(1 if accumulate else 0),
            c_void_p(c.ctypes.data),
            c_int64(c.strides[0] // 4 if len(c) > 1 else c.shape[1]),
        )
        call.record = Record("sgemm", "", flops, a.nbytes + b.nbytes + c.nbytes)
        return self._sized(flops, lambda: call)

    def transpose(self, source: Array, target: Array) -> Call:
        rows, columns = target.shape
        memories = (
            self._api.memory(self._api.strided((rows, columns), (1, rows)), source),
            self._api.memory(self._api.strided((rows, columns)), target),
        )
        return self.elementwise(target, lambda: dnnl.copy(self._api, *memories))

    def bias_activation(self, x: Array, bias: Array | None, y: Array, activation: nn.Module | None) -> Call:
        api = self._api
        whole = api.strided(x.shape)
        kind = None if activation is None else _kind(_FORWARD, activation)
        memories = {dnnl.SRC: api.memory(whole, x), dnnl.DST: api.memory(whole, y)}
        if bias is None:
            if kind is None:
                raise ValueError("neither bias nor activation")
            eltwise = ("eltwise_forward", dnnl.TRAINING, kind, whole, whole, 0.0, 0.0)
            return self.elementwise(x, lambda: dnnl.Operation(api, *eltwise).bind(memories))
        column = api.strided((len(x), 1))
        memories[dnnl.SRC_1] = api.memory(column, bias)
        attr = api.attribute(post_eltwise=kind)
        binary = ("binary", dnnl.BINARY_ADD, whole, column, whole)
        return self.elementwise(x, lambda: dnnl.Operation(api, *binary, attr=attr).bind(memories))

    def activation_backward(self, activation: nn.Module, y: Array, grad_y: Array, grad_x: Array) -> Call:
        api = self._api
        flat = api.strided((y.size,))
        forward = dnnl.Operation(
            api, "eltwise_forward", dnnl.TRAINING, _kind(_FORWARD, activation), flat, flat, 0.0, 0.0
        )
        kind = _kind(_BACKWARD_FROM_OUTPUT, activation)
        memories = {
            dnnl.DST: api.memory(flat, y),
            dnnl.DIFF_DST: api.memory(flat, grad_y),
            dnnl.DIFF_SRC: api.memory(flat, grad_x),
        }
        eltwise = ("eltwise_backward", kind, flat, flat, flat, 0.0, 0.0, forward)
        return self.elementwise(y, lambda: dnnl.Operation(api, *eltwise).bind(memories))

    def elementwise(self, array: Array, prepare: Callable[[], Call]) -> Call:
        """A call whose work goes with the elements of `array`."""
        return self._sized(ELEMENTWISE_OPERATIONS * float(array.size), prepare)

    def row_sums(self, x: Array, sums: Array) -> Call:
        ones = aligned((x.shape[1], 1))
        ones.fill(1.0)
        return self.gemm(x, ones, sums.reshape(-1, 1))

    def max_pool(self, layer: nn.MaxPool2d, x: Array, y: Array, training: bool) -> Pooling:
        return OnednnPooling(self, self._api, layer, x, y, training)


def _images(api: dnnl.Api, array: Array) -> dnnl.Descriptor:
    channels, height, width, n = array.shape
    return api.strided((channels, n, height, width), (height * width * n, 1, width * n, n))


def _kind(table: dict[type[nn.Module], int], activation: nn.Module) -> int:
    """oneDNN's number of an activation."""
    for layer, kind in table.items():
        if isinstance(activation, layer):
            return kind
    raise InputError(f"oneDNN's engine does not know the activation {activation.kind}")
