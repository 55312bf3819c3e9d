"""Parameters in the layouts and types that kernels want."""

from __future__ import annotations

import numpy as np

from compute.engines.blocked.layout import Layout
from compute.engines.dnnl import Api, Call, Descriptor, Record, copy
from compute.memory import aligned
from compute.nn.layer import Array
from compute.spec import Shape


class PackedWeight:
    """One parameter in one layout; plans that want the same share it."""

    def __init__(
        self,
        api: Api,
        parameter: Array,
        dims: Shape,
        wanted: Descriptor,
        strides: Shape | None,
        parts: tuple[int, ...] | None,
        rounded: PackedWeight | None = None,
    ) -> None:
        """
        Args:
            rounded: the row-major copy in the wanted type, to begin with that instead of the parameter.
        """
        self.array = aligned((wanted.size_bytes,), "uint8")
        self._parameter, self._parts = parameter, parts
        self._source = parameter if parts is None else aligned(parameter.shape)
        self._rounded = rounded
        if rounded is None:
            source = api.memory(api.strided(dims, strides), self._source)
        else:
            source = api.memory(api.strided(dims, dtype=wanted.dtype), rounded.array)
        self._reorder: Call = copy(api, source, api.memory(wanted, self.array))
        self._version = -1

    @property
    def record(self) -> Record:
        """Of the kernel that copies it."""
        return self._reorder.record

    def refresh(self, version: int) -> None:
        """Copies the parameter anew unless this version of it is there."""
        if version == self._version:
            return
        if self._rounded is not None:
            self._rounded.refresh(version)
        if self._parts is not None:
            count = len(self._parts)
            np.take(self._parameter.reshape(count, -1), self._parts, axis=0, out=self._source.reshape(count, -1))
        if self._reorder():
            raise RuntimeError("oneDNN could not reorder a weight")
        self._version = version


class PackedWeights:
    """All of a program.

    Attributes:
        version: of the parameters; increased when they change.
    """

    def __init__(self) -> None:
        self.version = 0
        self._api = Api()
        self._packed: dict[tuple[int, Layout], PackedWeight] = {}

    def get(
        self,
        parameter: Array,
        dims: Shape,
        wanted: Descriptor,
        strides: Shape | None = None,
        parts: tuple[int, ...] | None = None,
    ) -> PackedWeight:
        """A parameter, a view of the flat vector, in the wanted layout; see `BlockedPlan.weight`."""
        key = (parameter.ctypes.data, Layout(wanted))
        if key not in self._packed:
            # A plan's descriptors go with it: the key, too, must be of the same age as the copy.
            own = self._api.descriptor("clone", wanted.handle)
            key = (parameter.ctypes.data, Layout(own))
            plain = Layout(self._api.strided(dims, dtype=own.dtype))
            rounded = self._packed.get((parameter.ctypes.data, plain)) if strides is None and parts is None else None
            self._packed[key] = PackedWeight(self._api, parameter, dims, own, strides, parts, rounded)
        return self._packed[key]
