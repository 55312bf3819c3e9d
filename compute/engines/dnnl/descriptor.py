"""Shapes, layouts and buffers: `Descriptor`, `Memory`."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import POINTER, byref, c_int, c_int64, c_void_p
from ctypes import Array as CArray
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from compute.engines.dnnl.constants import FORMAT_KIND_BLOCKED, MAX_DIMS, DataType, Query
from compute.engines.dnnl.library import Library


class Descriptor:
    """A logical shape, an element type and how it lies in memory."""

    def __init__(self, library: Library, handle: c_void_p) -> None:
        # Those that a primitive descriptor gave belong to it, and it lives as long as the library.
        self.library, self.handle = library, handle

    def _int(self, what: Query) -> int:
        value = c_int()
        self.library.call("memory_desc_query", self.handle, c_int(what), byref(value))
        return value.value

    def _dims(self, what: Query) -> tuple[int, ...]:
        pointer = POINTER(c_int64)()
        self.library.call("memory_desc_query", self.handle, c_int(what), byref(pointer))
        return tuple(pointer[: self._int(Query.NDIMS_S32)])

    @property
    def dims(self) -> tuple[int, ...]:
        """The logical shape."""
        return self._dims(Query.DIMS)

    @property
    def padded_dims(self) -> tuple[int, ...]:
        """The shape with what fills up the last block of a dimension."""
        return self._dims(Query.PADDED_DIMS)

    @property
    def dtype(self) -> DataType:
        """Type of an element."""
        return DataType(self._int(Query.DATA_TYPE))

    @property
    def is_plain(self) -> bool:
        """Whether strides alone describe the layout."""
        return self._int(Query.FORMAT_KIND) == FORMAT_KIND_BLOCKED and self._int(Query.INNER_BLOCKS_S32) == 0

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides in elements; of a blocked layout those of its blocks."""
        return self._dims(Query.STRIDES)

    @property
    def size_bytes(self) -> int:
        """Bytes that a buffer needs, padding included."""
        return int(self.library.lib.dnnl_memory_desc_get_size(self.handle))

    @property
    def extent_bytes(self) -> int:
        """Bytes up to the end of the last element; `size_bytes` may count what strides skip behind it."""
        if not self.is_plain or 0 in self.dims:
            return self.size_bytes
        last = sum((size - 1) * stride for size, stride in zip(self.dims, self.strides, strict=True))
        return (self.offset + last + 1) * self.dtype.size_bytes

    @property
    def offset(self) -> int:
        """Elements before the first one, in a `part`."""
        value = c_int64()
        self.library.call("memory_desc_query", self.handle, c_int(Query.OFFSET_S64), byref(value))
        return value.value

    def reshape(self, dims: Sequence[int]) -> Descriptor:
        """The same memory under another shape of as many elements. Raises DnnlError where the layout forbids it."""
        return made(self.library, "reshape", self.handle, c_int(len(dims)), c_dims(dims))

    def part(self, dims: Sequence[int], offsets: Sequence[int]) -> Descriptor:
        """A box of the array at `offsets`, with the array's strides; its memories begin where the array does."""
        return made(self.library, "create_submemory", self.handle, c_dims(dims), c_dims(offsets))

    def __eq__(self, other: object) -> bool:
        equal = self.library.lib.dnnl_memory_desc_equal
        return isinstance(other, Descriptor) and bool(equal(self.handle, other.handle))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        how = f"strides {self.strides}" if self.is_plain else f"blocked, {self.size_bytes} bytes"
        return f"Descriptor({self.dtype.name} {self.dims}, {how})"


class Memory:
    """A descriptor and its buffer."""

    def __init__(self, descriptor: Descriptor, handle: c_void_p, array: NDArray[Any]) -> None:
        self.descriptor, self.handle, self.array = descriptor, handle, array

    def view(self) -> NDArray[Any]:
        """The elements in their logical shape, in `DataType.numpy`. Raises ValueError for blocked layouts."""
        descriptor = self.descriptor
        if not descriptor.is_plain:
            raise ValueError(f"{descriptor!r} has no numpy view; reorder it first")
        dtype = descriptor.dtype.numpy
        flat = self.array.reshape(-1).view(np.uint8)[descriptor.offset * dtype.itemsize : descriptor.extent_bytes]
        return as_strided(flat.view(dtype), descriptor.dims, [stride * dtype.itemsize for stride in descriptor.strides])


def made(library: Library, function: str, *args: Any) -> Descriptor:
    """What dnnl_memory_desc_`function` makes."""
    return Descriptor(library, library.make(f"memory_desc_{function}", "memory_desc_destroy", *args))


def c_dims(values: Sequence[int]) -> CArray[c_int64]:
    """dnnl_dims_t of some sizes."""
    return (c_int64 * MAX_DIMS)(*values)
