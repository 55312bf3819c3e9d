"""A model as a graph of layers with known shapes: what engines compile."""

from __future__ import annotations

import math
from dataclasses import dataclass

from compute.errors import InputError
from compute.nn.container import Sequential
from compute.nn.module import Module, Parameter, Shape

INPUT = -1
"""The node number of the graph's input."""


@dataclass(frozen=True)
class GraphParameter:
    """A parameter of a node. `offset` counts elements in the flat vector."""

    name: str
    spec: Parameter
    offset: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.spec.shape)


@dataclass(frozen=True)
class Node:
    """One layer at its place. `sources` are the nodes whose outputs it takes (INPUT: the graph's input)."""

    index: int
    name: str
    layer: Module
    sources: tuple[int, ...]
    input_shape: Shape
    output_shape: Shape
    parameters: tuple[GraphParameter, ...]


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which every node comes after its sources; the last one is the output."""

    input_shape: Shape
    nodes: tuple[Node, ...]

    @property
    def output_shape(self) -> Shape:
        """Shape of one output sample."""
        return self.nodes[-1].output_shape

    @property
    def parameters(self) -> list[GraphParameter]:
        """All parameters in the order of the flat vector."""
        return [parameter for node in self.nodes for parameter in node.parameters]

    @property
    def size(self) -> int:
        """Length of the flat parameter vector."""
        return sum(parameter.size for parameter in self.parameters)


class GraphBuilder:
    """Collects nodes; containers call `add` through their layers' `build`."""

    def __init__(self, input_shape: Shape) -> None:
        self.input_shape = input_shape
        self.nodes: list[Node] = []
        self._offset = 0

    def shape_of(self, node: int) -> Shape:
        """Shape of one sample of a node's output."""
        return self.input_shape if node == INPUT else self.nodes[node].output_shape

    def add(self, layer: Module, source: int, name: str) -> int:
        """Adds a layer behind `source`; returns its node number. Raises InputError where shapes or names clash."""
        name = name or layer.name or layer.kind.lower()
        input_shape = self.shape_of(source)
        try:
            output_shape = tuple(layer.output_shape(input_shape))
            specs = layer.parameters(input_shape)
        except InputError as error:
            raise InputError(f"layer {name} ({layer.kind}) cannot take shape {input_shape}: {error}") from None
        if not output_shape or not all(isinstance(size, int) and size >= 1 for size in output_shape):
            raise InputError(f"layer {name} ({layer.kind}): output_shape must give sizes >= 1, gave {output_shape}")
        for node in self.nodes:
            if node.name == name:
                raise InputError(f"two layers are called {name}; give each its own name")
            if node.layer is layer and specs:
                raise InputError(f"layers {node.name} and {name} are one object; make a second {layer.kind}")
        parameters = []
        for spec in specs:
            parameters.append(GraphParameter(f"{name}.{spec.name}", spec, self._offset))
            self._offset += math.prod(spec.shape)
        if len({parameter.name for parameter in parameters}) != len(parameters):
            raise InputError(f"layer {name} ({layer.kind}): two of its parameters have the same name")
        index = len(self.nodes)
        self.nodes.append(Node(index, name, layer, (source,), input_shape, output_shape, tuple(parameters)))
        return index


def build_graph(model: Module, input_shape: Shape) -> Graph:
    """The graph of a model for samples of `input_shape`.

    Raises:
        InputError: a layer cannot take the shape that reaches it, names clash, or the model is empty.
    """
    if not isinstance(model, Module):
        raise InputError(f"the model must be an nn.Module such as nn.Sequential, got {type(model).__name__}")
    shape = tuple(int(size) for size in input_shape)
    if not shape or min(shape) < 1:
        raise InputError(f"a sample's shape must have sizes of at least 1, got {shape}")
    builder = GraphBuilder(shape)
    path = "" if isinstance(model, Sequential) else (model.name or model.kind.lower())
    last = model.build(builder, INPUT, path)
    if not builder.nodes or last != len(builder.nodes) - 1:
        raise InputError("the model has no layers")
    return Graph(shape, tuple(builder.nodes))
