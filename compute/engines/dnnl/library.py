"""The C library with one engine and one stream, and the lives of what is made with them: `Library`."""

from __future__ import annotations

import weakref
from ctypes import byref, c_int, c_size_t, c_uint, c_void_p
from typing import Any

from compute.engines.dnnl.errors import DnnlError, Unimplemented
from compute.engines.libraries import load_onednn

_CPU, _IN_ORDER = 1, 1
_UNIMPLEMENTED = 3
_STATUS = {1: "out of memory", 2: "invalid arguments", 3: "unimplemented", 5: "runtime error", 6: "not required"}

PRIMITIVE_CACHE_CAPACITY = 4096
"""Compiled kernels that the library keeps for the next plan that wants the same: several batch sizes of a deep network,
in training and evaluation. One takes some 10 KB."""


class Library:
    """The library with one CPU engine and one in-order stream. It frees all that was made with it.

    Nothing here is thread-safe.
    """

    def __init__(self) -> None:
        self.lib = _library()
        self._handles: list[tuple[Any, c_void_p]] = []
        # Everything made is destroyed together, youngest first: a primitive before its engine.
        weakref.finalize(self, _destroy, self._handles)
        self.engine = self.make("engine_create", "engine_destroy", c_int(_CPU), c_size_t(0))
        self.stream = self.make("stream_create", "stream_destroy", self.engine, c_uint(_IN_ORDER))

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
