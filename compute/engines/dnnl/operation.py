"""Primitive descriptors, and the calls that they are bound to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ctypes import Array as CArray
from ctypes import Structure, byref, c_char_p, c_float, c_int, c_int64, c_void_p
from typing import Any

from compute.engines.call import Call, Record
from compute.engines.dnnl.api import Api
from compute.engines.dnnl.constants import SCRATCHPAD, Query
from compute.engines.dnnl.descriptor import Descriptor, Memory, c_dims
from compute.engines.dnnl.errors import DnnlError, Unimplemented


class Operation:
    """A primitive descriptor: an operation on shapes, with the layouts that the library chose.

    Attributes:
        kind: what the C interface calls it, such as "convolution_forward".
        flops: see `Record`.
        geometry: arguments that the backward operations take again (strides, paddings, ...).
    """

    def __init__(
        self,
        api: Api,
        kind: str,
        *args: Any,
        attr: c_void_p | None = None,
        flops: float = 0.0,
        geometry: Sequence[Any] = (),
    ) -> None:
        """dnnl_`kind`_primitive_desc_create; our own types, lists (dims), ints and floats are converted.

        Raises:
            Unimplemented: the library has no implementation for this.
            DnnlError: the arguments do not fit each other.
        """
        self.api, self.kind, self.flops, self.geometry = api, kind, flops, tuple(geometry)
        self.handle = api.make(
            f"{kind}_primitive_desc_create",
            "primitive_desc_destroy",
            *([] if kind == "reorder" else [api.engine]),
            *(_convert(arg) for arg in args),
            attr or api.plain_attribute,
        )
        self._primitive: c_void_p | None = None

    def _query(self, what: Query, index: int) -> Descriptor | None:
        found = self.api.lib.dnnl_primitive_desc_query_md(self.handle, c_int(what), c_int(index))
        descriptor = Descriptor(self.api, c_void_p(found)) if found else None
        return descriptor if descriptor is not None and descriptor.size_bytes else None

    def layout(self, argument: int) -> Descriptor:
        """The layout that the operation wants for an argument (SRC, WEIGHTS, ...)."""
        descriptor = self._query(Query.EXEC_ARG, argument)
        if descriptor is None:
            raise DnnlError(f"{self.kind} has no argument {argument}")
        return descriptor

    @property
    def workspace(self) -> Descriptor | None:
        """What the forward pass leaves for the backward pass, None if nothing."""
        return self._query(Query.WORKSPACE, 0)

    @property
    def scratchpad(self) -> Descriptor | None:
        """What it needs while it runs, None if nothing."""
        return self._query(Query.SCRATCHPAD, 0)

    @property
    def memory_bytes(self) -> int:
        """Bytes that the primitive itself holds, beside its arguments and the scratchpad."""
        value = c_int64()
        self.api.call("primitive_desc_query", self.handle, c_int(Query.MEMORY_CONSUMPTION_S64), c_int(0), byref(value))
        return value.value

    @property
    def implementation(self) -> str:
        """The kernel's name."""
        name = c_char_p()
        self.api.call("primitive_desc_query", self.handle, c_int(Query.IMPLEMENTATION), c_int(0), byref(name))
        return (name.value or b"").decode()

    def choose(self, implementation: str) -> None:
        """Turns to the first of the library's choices whose name begins so, with its own layouts. Only before `bind`.

        Raises:
            Unimplemented: there is none.
        """
        # The library offers those that were used before twice: names, not numbers, tell them apart.
        while not self.implementation.startswith(implementation):
            if self.api.lib.dnnl_primitive_desc_next_impl(self.handle) != 0:
                raise Unimplemented(f"{self.kind} has no implementation {implementation} for these arguments")

    def bind(self, arguments: Mapping[int, Memory]) -> Call:
        """A call of the operation on these memories; the scratchpad is added."""
        api = self.api
        if self._primitive is None:
            self._primitive = api.make("primitive_create", "primitive_destroy", self.handle)
        size = sum(memory.descriptor.size_bytes for memory in arguments.values())
        scratchpad = self.scratchpad
        if scratchpad is not None:
            arguments = {**arguments, SCRATCHPAD: api.scratchpad.memory(api, scratchpad)}
        count = len(arguments)
        array = (_ExecArg * count)(*(_ExecArg(arg, memory.handle) for arg, memory in arguments.items()))
        # All C values are made here once, so that a call costs no more than the foreign call itself.
        call = Call(api.lib.dnnl_primitive_execute, self._primitive, api.stream, c_int(count), array)
        call.record = Record(self.kind, self.implementation, self.flops, size)
        call.kept = (api, api.scratchpad, tuple(arguments.values()))
        return call


class _ExecArg(Structure):
    _fields_ = [("arg", c_int), ("memory", c_void_p)]


def handles_of(descriptors: Sequence[Descriptor]) -> CArray[c_void_p]:
    """The C array of some descriptors."""
    return (c_void_p * len(descriptors))(*(descriptor.handle for descriptor in descriptors))


def _convert(value: Any) -> Any:
    if isinstance(value, Descriptor | Operation):
        return value.handle
    if isinstance(value, list | tuple):
        return c_dims(value)
    if isinstance(value, float):
        return c_float(value)
    if isinstance(value, int):
        return c_int(value)
    return value
