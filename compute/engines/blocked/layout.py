"""oneDNN's memory descriptors as layouts of tensors."""

from __future__ import annotations

from compute.engines.dnnl import Descriptor


class Layout:
    """How a value lies in memory, equal to another of the same shape, type and order. Its array holds plain bytes."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self._hash = hash((descriptor.dims, descriptor.padded_dims, descriptor.size_bytes))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self.descriptor == other.descriptor

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Layout({self.descriptor!r})"
