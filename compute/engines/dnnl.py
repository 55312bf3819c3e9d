"""oneDNN's C API (v3), as far as the engine uses it.

Values and signatures are those of oneDNN 3's headers dnnl_types.h and dnnl.h, whose C ABI is stable over all 3.x.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from ctypes import Structure, byref, c_char_p, c_float, c_int, c_int64, c_size_t, c_uint, c_void_p
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.engines.libraries import load_onednn
from compute.memory import aligned

Array = NDArray[np.float32]

# dnnl_data_type_t
F32 = 3

# dnnl_format_tag_t
ANY = 1

# dnnl_prop_kind_t
TRAINING, INFERENCE = 64, 96

# dnnl_alg_kind_t
CONVOLUTION_DIRECT = 0x1
RELU, TANH = 0x20, 0x21
BINARY_ADD = 0x1FFF0
RELU_FROM_DST, TANH_FROM_DST = 0x100, 0x101
POOLING_MAX = 0x1FF

# dnnl_query_t
_QUERY_IMPL_NAME = 8
_QUERY_WORKSPACE, _QUERY_SCRATCHPAD, _QUERY_ARGUMENT = 135, 136, 255

# Arguments of dnnl_primitive_execute
SRC, SRC_1, DST, WEIGHTS, BIAS, WORKSPACE, SCRATCHPAD = 1, 2, 17, 33, 41, 64, 80
DIFF_SRC, DIFF_DST, DIFF_WEIGHTS, DIFF_BIAS = 129, 145, 161, 169

_STATUS = {1: "out of memory", 2: "invalid arguments", 3: "unimplemented", 5: "runtime error", 6: "not required"}
_SCRATCHPAD_MODE_USER = 1
_MAX_DIMS = 12


class DnnlError(RuntimeError):
    """A call of oneDNN failed."""


class _ExecArg(Structure):
    _fields_ = [("arg", c_int), ("memory", c_void_p)]


class Api:
    """The library with one CPU engine and one in-order stream. Make one per program; it frees all that it made.

    Nothing here is thread-safe.
    """

    def __init__(self) -> None:
        self.lib = load_onednn()
        self._handles: list[tuple[Any, c_void_p]] = []
        self._arrays: list[NDArray[Any]] = []
        # Everything made is destroyed together, youngest first: a primitive before its engine.
        weakref.finalize(self, _destroy, self._handles)
        self.engine = self._make("engine_create", "engine_destroy", c_int(1), c_size_t(0))
        self.stream = self._make("stream_create", "stream_destroy", self.engine, c_uint(1))
        self._attr = self._make("primitive_attr_create", "primitive_attr_destroy")
        # With scratchpads of our own no primitive allocates while it runs.
        self.call("primitive_attr_set_scratchpad_mode", self._attr, c_int(_SCRATCHPAD_MODE_USER))

    def call(self, function: str, *args: Any) -> None:
        """Calls dnnl_`function`; raises DnnlError unless it succeeds."""
        status = getattr(self.lib, "dnnl_" + function)(*args)
        if status != 0:
            raise DnnlError(f"dnnl_{function}: {_STATUS.get(status, status)}")

    def _make(self, create: str, destroy: str, *args: Any) -> c_void_p:
        handle = c_void_p()
        self.call(create, byref(handle), *args)
        self._handles.append((getattr(self.lib, "dnnl_" + destroy), handle))
        return handle

    def strided(self, dims: Sequence[int], strides: Sequence[int] | None = None) -> Descriptor:
        """Descriptor of float32 with strides in elements; row-major without them."""
        if strides is None:
            strides = [math.prod(dims[i + 1 :]) for i in range(len(dims))]
        handle = self._make(
            "memory_desc_create_with_strides",
            "memory_desc_destroy",
            c_int(len(dims)),
            _dims(dims),
            c_int(F32),
            _dims(strides),
        )
        return Descriptor(self, handle, tuple(dims))

    def any(self, dims: Sequence[int]) -> Descriptor:
        """Descriptor of float32 whose layout the primitive may choose."""
        handle = self._make(
            "memory_desc_create_with_tag", "memory_desc_destroy", c_int(len(dims)), _dims(dims), c_int(F32), c_int(ANY)
        )
        return Descriptor(self, handle, tuple(dims))

    def memory(self, descriptor: Descriptor, array: NDArray[Any] | None = None) -> Memory:
        """A memory object on `array`, or on a new aligned buffer."""
        if array is None:
            array = aligned((-(-descriptor.size_bytes // 4),))
        # Memories live as long as the api, so their buffers must.
        self._arrays.append(array)
        handle = self._make(
            "memory_create", "memory_destroy", descriptor.handle, self.engine, c_void_p(array.ctypes.data)
        )
        return Memory(descriptor, handle, array)

    def attribute(self, post_eltwise: int | None = None, accumulate: bool = False) -> c_void_p:
        """Attributes with our scratchpad mode, optionally adding to the destination or an activation afterwards."""
        if post_eltwise is None and not accumulate:
            return self._attr
        attr = self._make("primitive_attr_create", "primitive_attr_destroy")
        self.call("primitive_attr_set_scratchpad_mode", attr, c_int(_SCRATCHPAD_MODE_USER))
        ops = self._make("post_ops_create", "post_ops_destroy")
        if accumulate:
            self.call("post_ops_append_sum", ops, c_float(1), c_int(0), c_int(0))
        if post_eltwise is not None:
            self.call("post_ops_append_eltwise", ops, c_int(post_eltwise), c_float(0), c_float(0))
        self.call("primitive_attr_set_post_ops", attr, ops)
        return attr

    def operation(self, kind: str, *args: Any, attr: c_void_p | None = None) -> Operation:
        """dnnl_`kind`_primitive_desc_create; our own types, lists (dims), ints and floats are converted.

        Raises:
            DnnlError: the library has no implementation for this.
        """
        handle = self._make(
            f"{kind}_primitive_desc_create",
            "primitive_desc_destroy",
            *([] if kind == "reorder" else [self.engine]),
            *(_convert(arg) for arg in args),
            attr or self._attr,
        )
        return Operation(self, handle)

    def reorder(self, source: Memory, target: Memory) -> Callable[[], int]:
        """A call that copies between layouts."""
        operation = self.operation("reorder", source.descriptor, self.engine, target.descriptor, self.engine)
        return operation.bind({SRC: source, DST: target})


class Descriptor:
    """A logical shape and how it lies in memory."""

    def __init__(self, api: Api, handle: c_void_p, dims: tuple[int, ...]) -> None:
        self.api, self.handle, self.dims = api, handle, dims

    @property
    def size_bytes(self) -> int:
        """Bytes that a buffer needs, padding included."""
        get = self.api.lib.dnnl_memory_desc_get_size
        get.restype = c_size_t
        return int(get(self.handle))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Descriptor) and bool(self.api.lib.dnnl_memory_desc_equal(self.handle, other.handle))

    __hash__ = None  # type: ignore[assignment]


class Memory:
    """A descriptor and its buffer."""

    def __init__(self, descriptor: Descriptor, handle: c_void_p, array: NDArray[Any]) -> None:
        self.descriptor, self.handle, self.array = descriptor, handle, array


class Operation:
    """A primitive descriptor: an operation on shapes, with the layouts that the library chose."""

    def __init__(self, api: Api, handle: c_void_p) -> None:
        self.api, self.handle = api, handle
        self._primitive: c_void_p | None = None

    def _query(self, what: int, index: int) -> Descriptor | None:
        query = self.api.lib.dnnl_primitive_desc_query_md
        query.restype = c_void_p
        found = query(self.handle, c_int(what), c_int(index))
        # The descriptor belongs to the operation, which lives as long as the api.
        if not found:
            return None
        descriptor = Descriptor(self.api, c_void_p(found), ())
        return descriptor if descriptor.size_bytes else None

    def layout(self, argument: int) -> Descriptor:
        """The layout that the operation wants for an argument (SRC, WEIGHTS, ...)."""
        descriptor = self._query(_QUERY_ARGUMENT, argument)
        if descriptor is None:
            raise DnnlError(f"the operation has no argument {argument}")
        return descriptor

    @property
    def workspace(self) -> Descriptor | None:
        """What the forward pass leaves for the backward pass, None if nothing."""
        return self._query(_QUERY_WORKSPACE, 0)

    @property
    def implementation(self) -> str:
        """The kernel's name, for profiles."""
        name = c_char_p()
        self.api.call("primitive_desc_query", self.handle, c_int(_QUERY_IMPL_NAME), c_int(0), byref(name))
        return (name.value or b"").decode()

    def bind(self, arguments: dict[int, Memory]) -> Callable[[], int]:
        """A call of the operation on these memories, which returns a status; the scratchpad is added."""
        if self._primitive is None:
            self._primitive = self.api._make("primitive_create", "primitive_destroy", self.handle)
        scratchpad = self._query(_QUERY_SCRATCHPAD, 0)
        if scratchpad is not None:
            arguments = {**arguments, SCRATCHPAD: self.api.memory(scratchpad)}
        count = len(arguments)
        array = (_ExecArg * count)(*(_ExecArg(arg, memory.handle) for arg, memory in arguments.items()))
        # All C values are made here once, so that a call costs no more than the foreign call itself.
        return partial(self.api.lib.dnnl_primitive_execute, self._primitive, self.api.stream, c_int(count), array)


def _dims(values: Sequence[int]) -> Any:
    return (c_int64 * _MAX_DIMS)(*values)


def _convert(value: Any) -> Any:
    if isinstance(value, Descriptor | Operation):
        return value.handle
    if isinstance(value, list | tuple):
        return _dims(value)
    if isinstance(value, float):
        return c_float(value)
    if isinstance(value, int):
        return c_int(value)
    return value


def _destroy(handles: list[tuple[Any, c_void_p]]) -> None:
    while handles:
        destroy, handle = handles.pop()
        destroy(handle)


