"""The library with its engine and stream, and everything made with them: `Api`."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from ctypes import byref, c_float, c_int, c_size_t, c_uint, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.engines.call import Call
from compute.engines.dnnl.constants import BLOCKED_TAGS, DST, F32, FORMAT_TAG_ANY, SRC, DataType, FpMath
from compute.engines.dnnl.descriptor import Descriptor, Memory, c_dims
from compute.engines.dnnl.errors import DnnlError, Unimplemented
from compute.engines.dnnl.operation import Operation
from compute.engines.dnnl.post_ops import EltwisePostOp, PostOp, SumPostOp
from compute.engines.libraries import load_onednn
from compute.memory import aligned

_CPU, _IN_ORDER, _SCRATCHPAD_MODE_USER = 1, 1, 1
_UNIMPLEMENTED = 3
_STATUS = {1: "out of memory", 2: "invalid arguments", 3: "unimplemented", 5: "runtime error", 6: "not required"}

PRIMITIVE_CACHE_CAPACITY = 4096
"""Compiled kernels that the library keeps for the next plan that wants the same: several batch sizes of a deep network,
in training and evaluation. One takes some 10 KB."""


class Scratchpad:
    """The buffer that primitives compute in: as large as the largest needs, since they run one after the other.

    It may serve several `Api`s whose calls never run at the same time.
    """

    def __init__(self) -> None:
        self._array: NDArray[np.uint8] = aligned((0,), np.uint8)
        # An Api takes its memory objects with it.
        self._users: weakref.WeakKeyDictionary[Api, list[c_void_p]] = weakref.WeakKeyDictionary()

    @property
    def size_bytes(self) -> int:
        """Size of the buffer."""
        return self._array.size

    def memory(self, descriptor: Descriptor) -> Memory:
        """A memory object of that layout on the buffer, which grows if it has to."""
        api, size = descriptor.api, descriptor.size_bytes
        if size > self._array.size:
            self._array = aligned((size,), np.uint8)
            for user, handles in self._users.items():
                for handle in handles:
                    user.call("memory_set_data_handle", handle, c_void_p(self._array.ctypes.data))
        memory = api.memory(descriptor, self._array)
        self._users.setdefault(api, []).append(memory.handle)
        # The buffer may be replaced, so nothing else may hold it.
        return Memory(descriptor, memory.handle, self._array[:0])


class Api:
    """The library with one CPU engine and one in-order stream. Make one per program or plan; it frees all that it made.

    Nothing here is thread-safe, and a primitive is planned for the threads that OpenMP has while it is made.
    """

    def __init__(self, scratchpad: Scratchpad | None = None) -> None:
        self.lib = _library()
        self.scratchpad = scratchpad or Scratchpad()
        self._handles: list[tuple[Any, c_void_p]] = []
        # Everything made is destroyed together, youngest first: a primitive before its engine.
        weakref.finalize(self, _destroy, self._handles)
        self.engine = self.make("engine_create", "engine_destroy", c_int(_CPU), c_size_t(0))
        self.stream = self.make("stream_create", "stream_destroy", self.engine, c_uint(_IN_ORDER))
        self.plain_attribute = self.attribute_of()

    def call(self, function: str, *args: Any) -> None:
        """Calls dnnl_`function`; raises DnnlError unless it succeeds."""
        status = getattr(self.lib, "dnnl_" + function)(*args)
        if status != 0:
            kind = Unimplemented if status == _UNIMPLEMENTED else DnnlError
            raise kind(f"dnnl_{function}: {_STATUS.get(status, status)}")

    def make(self, create: str, destroy: str, *args: Any) -> c_void_p:
        """The handle that dnnl_`create` gives; dnnl_`destroy` gets it when the api goes."""
        handle = c_void_p()
        self.call(create, byref(handle), *args)
        self._handles.append((getattr(self.lib, "dnnl_" + destroy), handle))
        return handle

    def strided(self, dims: Sequence[int], strides: Sequence[int] | None = None, dtype: DataType = F32) -> Descriptor:
        """Descriptor with strides in elements; row-major without them. Elements must not overlap."""
        if strides is None:
            strides = [math.prod(dims[i + 1 :]) for i in range(len(dims))]
        return self.descriptor("create_with_strides", c_int(len(dims)), c_dims(dims), c_int(dtype), c_dims(strides))

    def tagged(self, dims: Sequence[int], tag: str, dtype: DataType = F32) -> Descriptor:
        """Descriptor in a layout by oneDNN's name for it: "abcd" is nchw, "acdb" nhwc, "aBcd16b" nChw16c.

        Raises:
            ValueError: the name is not that of a plain layout of as many dimensions, nor in BLOCKED_TAGS.
        """
        if tag in BLOCKED_TAGS:
            tag_number = c_int(BLOCKED_TAGS[tag])
            return self.descriptor("create_with_tag", c_int(len(dims)), c_dims(dims), c_int(dtype), tag_number)
        order = [ord(letter) - ord("a") for letter in tag]
        if sorted(order) != list(range(len(dims))):
            raise ValueError(f"{tag} is no layout of {len(dims)} dimensions that is known here")
        strides = [0] * len(dims)
        step = 1
        for axis in reversed(order):
            strides[axis] = step
            step *= dims[axis]
        return self.strided(dims, strides, dtype)

    def any(self, dims: Sequence[int], dtype: DataType = F32) -> Descriptor:
        """Descriptor whose layout the primitive may choose."""
        return self.descriptor("create_with_tag", c_int(len(dims)), c_dims(dims), c_int(dtype), c_int(FORMAT_TAG_ANY))

    def descriptor(self, function: str, *args: Any) -> Descriptor:
        """What dnnl_memory_desc_`function` makes."""
        return Descriptor(self, self.make(f"memory_desc_{function}", "memory_desc_destroy", *args))

    def memory(self, descriptor: Descriptor, array: NDArray[Any] | None = None) -> Memory:
        """A memory object on the start of `array` (C-contiguous, any type, large enough), or on a new aligned buffer.

        Raises:
            ValueError: the array is too small.
        """
        if array is None:
            array = aligned((-(-descriptor.size_bytes // descriptor.dtype.size_bytes),), descriptor.dtype.numpy)
        elif array.nbytes < descriptor.extent_bytes:
            raise ValueError(f"an array of {array.nbytes} bytes cannot hold {descriptor!r}")
        handle = self.make(
            "memory_create", "memory_destroy", descriptor.handle, self.engine, c_void_p(array.ctypes.data)
        )
        return Memory(descriptor, handle, array)

    def attribute(self, post_eltwise: int | None = None, accumulate: bool = False) -> c_void_p:
        """Attributes: adding to the destination and then an activation with alpha 0 afterwards, each if asked for."""
        post_ops: list[PostOp] = [SumPostOp()] if accumulate else []
        if post_eltwise is not None:
            post_ops.append(EltwisePostOp(post_eltwise))
        return self.attribute_of(*post_ops)

    def attribute_of(self, *post_ops: PostOp, math_mode: FpMath = FpMath.STRICT) -> c_void_p:
        """Attributes of a primitive: what is computed on the result before it is stored, in order, and in which type.

        All primitives are made with attributes from here: with scratchpads of our own none allocates while it runs.
        """
        attr = self.make("primitive_attr_create", "primitive_attr_destroy")
        self.call("primitive_attr_set_scratchpad_mode", attr, c_int(_SCRATCHPAD_MODE_USER))
        if math_mode is not FpMath.STRICT:
            self.call("primitive_attr_set_fpmath_mode", attr, c_int(math_mode))
        if not post_ops:
            return attr
        ops = self.make("post_ops_create", "post_ops_destroy")
        for op in post_ops:
            if isinstance(op, SumPostOp):
                self.call("post_ops_append_sum", ops, c_float(op.scale), c_int(0), c_int(0))
            elif isinstance(op, EltwisePostOp):
                self.call("post_ops_append_eltwise", ops, c_int(op.algorithm), c_float(op.alpha), c_float(op.beta))
            else:
                self.call("post_ops_append_binary", ops, c_int(op.algorithm), op.source.handle)
        self.call("primitive_attr_set_post_ops", attr, ops)
        return attr

    def operation(self, kind: str, *args: Any, attr: c_void_p | None = None) -> Operation:
        """An `Operation` by its name in the C interface, for what the functions of this package do not cover."""
        return Operation(self, kind, *args, attr=attr)

    def reorder(self, source: Memory, target: Memory, attr: c_void_p | None = None) -> Call:
        """A call that copies between layouts and types."""
        operation = Operation(
            self, "reorder", source.descriptor, self.engine, target.descriptor, self.engine, attr=attr
        )
        return operation.bind({SRC: source, DST: target})


def _library() -> Any:
    """The library with its result types set."""
    lib = load_onednn()
    lib.dnnl_memory_desc_get_size.restype = c_size_t
    lib.dnnl_primitive_desc_query_md.restype = c_void_p
    lib.dnnl_set_primitive_cache_capacity(c_int(PRIMITIVE_CACHE_CAPACITY))
    return lib


def _destroy(handles: list[tuple[Any, c_void_p]]) -> None:
    while handles:
        destroy, handle = handles.pop()
        destroy(handle)
