"""Containers: modules made of modules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from compute.errors import InputError
from compute.nn.module import Module, Parameter, Shape

if TYPE_CHECKING:
    from compute.graph import GraphBuilder


class Sequential(Module):
    """Feeds each layer's output to the next. `Sequential(a, b)` or `Sequential().add(a).add(b)`."""

    def __init__(self, *layers: Module, name: str | None = None) -> None:
        super().__init__(name)
        self.layers: list[Module] = []
        for layer in layers:
            self.add(layer)

    def add(self, layer: Module) -> Sequential:
        """Appends a layer; returns self."""
        if not isinstance(layer, Module):
            raise InputError(f"Sequential takes layers (nn.Module), got {layer!r}")
        self.layers.append(layer)
        return self

    def __iter__(self) -> Iterator[Module]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def output_shape(self, input_shape: Shape) -> Shape:
        for layer in self.layers:
            input_shape = layer.output_shape(input_shape)
        return input_shape

    def parameters(self, input_shape: Shape) -> list[Parameter]:
        raise NotImplementedError("ask compute.parameter_layout for the parameters of a whole model")

    def build(self, builder: GraphBuilder, source: int, path: str) -> int:
        for index, layer in enumerate(self.layers):
            own = layer.name or f"{layer.kind.lower()}_{index}"
            source = layer.build(builder, source, f"{path}.{own}" if path else own)
        return source
