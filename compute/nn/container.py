"""Containers: modules made of modules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from compute.errors import InputError
from compute.nn.fold import FoldIn, FoldOut
from compute.nn.module import Activity, Builder, Module
from compute.nn.table import JoinTable


class Container(Module):
    """Base of containers of any number of modules; `Sequential(a, b)` or `Sequential().add(a).add(b)`."""

    def __init__(self, *layers: Module, name: str | None = None) -> None:
        super().__init__(name)
        self.layers: list[Module] = []
        for layer in layers:
            self.add(layer)

    def add(self, layer: Module) -> Self:
        """Appends a module; returns self."""
        if not isinstance(layer, Module):
            raise InputError(f"{self.kind} takes layers (nn.Module), got {layer!r}")
        self.layers.append(layer)
        return self

    def __iter__(self) -> Iterator[Module]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def children(self) -> Iterator[Module]:
        return iter(self.layers)

    def constructor_arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return tuple(self.layers), self._arguments[1]

    def _build(self, index: int, builder: Builder, sources: Activity, path: str) -> Activity:
        """Builds the module at `index`, named after itself or its kind and place."""
        layer = self.layers[index]
        own = layer.name or f"{layer.kind.lower()}_{index}"
        return layer.build(builder, sources, join(path, own))

    def _table(self, sources: Activity) -> tuple[Activity, ...]:
        if isinstance(sources, int):
            raise InputError(f"{self.name or self.kind} takes a table, of which each part goes to a layer of its own")
        return sources


class Sequential(Container):
    """Feeds each layer's output, a sample or a table, to the next."""

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        for index in range(len(self.layers)):
            sources = self._build(index, builder, sources, path)
        return sources


class ConcatTable(Container):
    """Feeds the input to each layer; the output is the table of theirs."""

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        return tuple(self._build(index, builder, sources, path) for index in range(len(self.layers)))


class ParallelTable(Container):
    """Feeds the i-th part of a table to the i-th layer; the output is the table of theirs."""

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        table = self._table(sources)
        if len(table) != len(self.layers):
            raise InputError(f"{self.name or self.kind} has {len(self.layers)} layers for a table of {len(table)}")
        return tuple(self._build(index, builder, part, path) for index, part in enumerate(table))


class Concat(Container):
    """Feeds the input to each layer and joins their outputs along a dimension of the sample (0: channels)."""

    def __init__(self, *layers: Module, dim: int = 0, name: str | None = None) -> None:
        super().__init__(*layers, name=name)
        self.dim = dim

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        outputs = tuple(self._build(index, builder, sources, path) for index in range(len(self.layers)))
        return builder.add(JoinTable(self.dim), outputs, join(path, "join"))


class Wrapper(Module):
    """Base of containers of one module."""

    def __init__(self, layer: Module, name: str | None = None) -> None:
        super().__init__(name)
        if not isinstance(layer, Module):
            raise InputError(f"{self.kind} takes a layer (nn.Module), got {layer!r}")
        self.layer = layer

    def children(self) -> Iterator[Module]:
        return iter((self.layer,))

    def _build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        own = self.layer.name or self.layer.kind.lower()
        return self.layer.build(builder, sources, join(path, own))


class Composite(Module):
    """Base of modules that make other modules from their own arguments, and are these under one name."""

    def __init__(self, inner: Module, name: str | None = None) -> None:
        super().__init__(name)
        self.inner = inner

    def children(self) -> Iterator[Module]:
        return iter((self.inner,))

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        return self.inner.build(builder, sources, path)


class MapTable(Wrapper):
    """Feeds each part of a table to the one layer, whose weights all share; the output is the table of outputs."""

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        if isinstance(sources, int):
            raise InputError(f"{self.name or self.kind} takes a table, each part of which goes to its layer")
        return tuple(self._build(builder, part, join(path, str(i))) for i, part in enumerate(sources))


class TimeDistributed(Wrapper):
    """Applies a layer to each step of sequences (times, *shape), as if every step were a sample of its own."""

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        if not isinstance(sources, int):
            raise InputError(f"{self.name or self.kind} takes one sequence, not a table")
        shape = builder.spec(sources).shape
        if not shape:
            raise InputError(f"{self.name or self.kind} takes sequences (times, ...)")
        folded = builder.add(FoldIn(shape[0]), sources, join(path, "fold"))
        output = self._build(builder, folded, path)
        return builder.add(FoldOut(shape[0]), output, join(path, "unfold"))


class Bottle(TimeDistributed):
    """BigDL's name for TimeDistributed: applies a layer to each step of sequences (times, *shape)."""


def join(path: str, name: str) -> str:
    """Name of a module within another."""
    return f"{path}.{name}" if path else name
