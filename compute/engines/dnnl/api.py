"""What shapes, memories and attributes are made with: `Api`."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from ctypes import c_float, c_int, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.engines.dnnl.constants import BLOCKED_TAGS, F32, FORMAT_TAG_ANY, DataType, FpMath
from compute.engines.dnnl.descriptor import Descriptor, Memory, c_dims, made
from compute.engines.dnnl.library import Library
from compute.engines.dnnl.post_ops import EltwisePostOp, PostOp, SumPostOp
from compute.memory import aligned

_SCRATCHPAD_MODE_USER = 1


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

    def memory(self, api: Api, descriptor: Descriptor) -> Memory:
        """A memory object of that layout on the buffer, which grows if it has to."""
        size = descriptor.size_bytes
        if size > self._array.size:
            self._array = aligned((size,), np.uint8)
            for user, handles in self._users.items():
                for handle in handles:
                    user.call("memory_set_data_handle", handle, c_void_p(self._array.ctypes.data))
        memory = api.memory(descriptor, self._array)
        self._users.setdefault(api, []).append(memory.handle)
        # The buffer may be replaced, so nothing else may hold it.
        return Memory(descriptor, memory.handle, self._array[:0])


class Api(Library):
    """The library for one program or plan, with what primitives are made of.

    A primitive is planned for the threads that OpenMP has while it is made.
    """

    def __init__(self, scratchpad: Scratchpad | None = None) -> None:
        super().__init__()
        self.scratchpad = scratchpad or Scratchpad()
        self.plain_attribute = self.attribute_of()

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
        return made(self, function, *args)

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
