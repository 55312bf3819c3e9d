"""A model as a graph of layers with known shapes: what engines compile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from compute.errors import InputError
from compute.nn.fold import Fold
from compute.nn.layer import Layer
from compute.nn.module import Activity, Module, Parameter
from compute.spec import Shape, Specs, SpecsLike, TensorSpec, as_specs


@dataclass(frozen=True)
class Value:
    """What a layer gives or the model is given.

    Attributes:
        spec: of one sample.
        repeat: rows per sample of the batch: arrays are (n * repeat, *spec.shape). More than 1 within
            nn.TimeDistributed and nn.Bottle.
        producer: node that gives it; None for an input of the model.
    """

    index: int
    spec: TensorSpec
    repeat: int
    producer: int | None

    def shape(self, batch: int) -> Shape:
        """Shape of its array for `batch` samples."""
        return (batch * self.repeat, *self.spec.shape)


@dataclass(frozen=True)
class GraphParameter:
    """A parameter of a node. `offset` counts elements in the flat vector."""

    name: str
    spec: Parameter
    offset: int
    layer: Layer

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.spec.shape)

    @property
    def trained(self) -> bool:
        """Whether the optimizer changes it."""
        return self.spec.kind == "weight" and not self.layer.frozen

    @property
    def span(self) -> slice:
        """Its place in the flat vector."""
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True)
class Node:
    """One layer at its place.

    Attributes:
        sources, outputs: numbers of the values that it takes and gives.
        input_specs, output_specs: of these values.
        parameters: nodes of one layer object share theirs.
    """

    index: int
    name: str
    layer: Layer
    sources: tuple[int, ...]
    outputs: tuple[int, ...]
    input_specs: Specs
    output_specs: Specs
    parameters: tuple[GraphParameter, ...]

    @property
    def input_shape(self) -> Shape:
        """Of the first input."""
        return self.input_specs[0].shape

    @property
    def output_shape(self) -> Shape:
        """Of the first output."""
        return self.output_specs[0].shape


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which every node comes after those that it takes values from.

    Attributes:
        inputs, outputs: numbers of the model's values.
        parameters: each once, in the order of the flat vector: all weights, then all statistics.
    """

    values: tuple[Value, ...]
    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    parameters: tuple[GraphParameter, ...]

    @property
    def input_specs(self) -> Specs:
        """Of one sample."""
        return tuple(self.values[index].spec for index in self.inputs)

    @property
    def output_specs(self) -> Specs:
        """Of one sample."""
        return tuple(self.values[index].spec for index in self.outputs)

    @property
    def size(self) -> int:
        """Length of the flat parameter vector."""
        return sum(parameter.size for parameter in self.parameters)

    @property
    def consumers(self) -> dict[int, list[Node]]:
        """For each value the nodes that take it, once per time they do."""
        found: dict[int, list[Node]] = {value.index: [] for value in self.values}
        for node in self.nodes:
            for source in node.sources:
                found[source].append(node)
        return found

    def needs_gradient(self) -> list[bool]:
        """For each value: whether its gradient is needed, i.e. whether a trained parameter lies before it."""
        needed = [False] * len(self.values)
        for node in self.nodes:
            inputs = any(needed[source] for source in node.sources)
            trained = inputs or any(p.trained for p in node.parameters)
            for output in node.outputs:
                needed[output] = trained and self.values[output].spec.dtype == "float32"
        return needed


class _Draft(NamedTuple):
    """A node before the offsets of its parameters are known."""

    name: str
    layer: Layer
    sources: tuple[int, ...]
    outputs: tuple[int, ...]


class GraphBuilder:
    """Collects nodes; modules call `add` through their `build`."""

    def __init__(self, inputs: Specs) -> None:
        self._values = [Value(index, spec, 1, None) for index, spec in enumerate(inputs)]
        self._inputs = tuple(range(len(inputs)))
        self._drafts: list[_Draft] = []
        self._names: dict[str, Layer] = {}
        self._parameters: dict[int, tuple[str, Layer, list[Parameter]]] = {}  # by the layer's identity

    def spec(self, value: int) -> TensorSpec:
        """Shape and type of a value."""
        return self._values[value].spec

    def add(self, layer: Module, sources: Activity, name: str) -> Activity:
        """Adds a layer behind `sources`, one value or a flat table; returns its output or the table of its outputs.

        Raises:
            InputError: shapes, types or names clash.
        """
        name = name or layer.name or layer.kind.lower()
        if not isinstance(layer, Layer):
            raise InputError(f"{name} ({layer.kind}) has no forward and backward; derive your own from nn.CustomLayer")
        values = self._flat(name, layer, sources)
        specs = tuple(value.spec for value in values)
        if layer.arity not in (None, len(specs)):
            raise InputError(f"layer {name} ({layer.kind}) takes {layer.arity} input(s) and is given {len(specs)}")
        try:
            outputs = tuple(layer.output_specs(*specs))
            parameters = layer.parameters(*(spec.shape for spec in specs))
            check_parameters(parameters)
        except InputError as error:
            shapes = " and ".join(str(spec) for spec in specs)
            raise InputError(f"layer {name} ({layer.kind}) cannot take {shapes}: {error}") from None
        self._remember(name, layer, parameters)
        repeat = values[0].repeat
        if isinstance(layer, Fold):
            repeat = layer.repeat_after(repeat)
        first = len(self._values)
        node = len(self._drafts)
        for index, spec in enumerate(outputs):
            self._values.append(Value(first + index, spec, repeat, node))
        numbers = tuple(range(first, len(self._values)))
        self._drafts.append(_Draft(name, layer, tuple(value.index for value in values), numbers))
        return numbers[0] if len(numbers) == 1 else numbers

    def _flat(self, name: str, layer: Layer, sources: Activity) -> list[Value]:
        table = (sources,) if isinstance(sources, int) else sources
        if not table:
            raise InputError(f"layer {name} ({layer.kind}) gets an empty table")
        values = []
        for source in table:
            if not isinstance(source, int):
                raise InputError(f"layer {name} ({layer.kind}) gets a nested table; put nn.FlattenTable() before it")
            values.append(self._values[source])
        if len({value.repeat for value in values}) > 1:
            raise InputError(f"layer {name} ({layer.kind}) mixes values inside and outside of nn.TimeDistributed")
        return values

    def _remember(self, name: str, layer: Layer, parameters: list[Parameter]) -> None:
        """Notes the layer's name and parameters; those of a layer object seen before are shared."""
        known = self._names.get(name)
        if known is not None and (known is not layer or not parameters):
            raise InputError(f"two layers are called {name}; give each its own name")
        self._names[name] = layer
        if len({parameter.name for parameter in parameters}) != len(parameters):
            raise InputError(f"layer {name} ({layer.kind}): two of its parameters have the same name")
        if id(layer) not in self._parameters:
            self._parameters[id(layer)] = (name, layer, parameters)
            return
        first, _, shared = self._parameters[id(layer)]
        if [(p.name, p.shape) for p in shared] != [(p.name, p.shape) for p in parameters]:
            raise InputError(f"{first} and {name} are one layer, but its parameters differ with the inputs' shapes")
        if any(parameter.kind == "statistic" for parameter in parameters):
            raise InputError(f"{first} and {name} are one {layer.kind}, whose statistics two places cannot share")

    def finish(self, outputs: Activity) -> Graph:
        """The graph whose outputs these are, without nodes that they do not depend on."""
        numbers = tuple(flatten(outputs))
        wanted = set(numbers)
        kept: list[_Draft] = []
        for draft in reversed(self._drafts):
            if wanted.intersection(draft.outputs):
                wanted.update(draft.sources)
                kept.append(draft)
        kept.reverse()
        laid_out = self._lay_out({id(draft.layer) for draft in kept})
        produced = {output: index for index, draft in enumerate(kept) for output in draft.outputs}
        # Values keep their order and get new numbers.
        old = [v for v in self._values if v.index in produced or v.producer is None]
        new = {value.index: index for index, value in enumerate(old)}
        values = tuple(Value(new[v.index], v.spec, v.repeat, produced.get(v.index)) for v in old)
        nodes = tuple(
            Node(
                index,
                draft.name,
                draft.layer,
                tuple(new[source] for source in draft.sources),
                tuple(new[output] for output in draft.outputs),
                tuple(self.spec(source) for source in draft.sources),
                tuple(self.spec(output) for output in draft.outputs),
                tuple(laid_out[id(draft.layer)]),
            )
            for index, draft in enumerate(kept)
        )
        parameters = sorted((p for found in laid_out.values() for p in found), key=lambda p: p.offset)
        return Graph(values, nodes, self._inputs, tuple(new[n] for n in numbers), tuple(parameters))

    def _lay_out(self, used: set[int]) -> dict[int, list[GraphParameter]]:
        """Gives each parameter its place: weights in the order of their layers, then statistics."""
        laid_out: dict[int, list[GraphParameter]] = {layer: [] for layer in used}
        offset = 0
        for kind in ("weight", "statistic"):
            for identity, (name, layer, parameters) in self._parameters.items():
                for spec in parameters if identity in used else ():
                    if spec.kind == kind:
                        found = GraphParameter(f"{name}.{spec.name}", spec, offset, layer)
                        laid_out[identity].append(found)
                        offset += found.size
        return laid_out


def check_parameters(parameters: object) -> None:
    """Raises InputError unless these are parameters with initializers."""
    if not isinstance(parameters, list | tuple) or not all(isinstance(item, Parameter) for item in parameters):
        raise InputError(f"its `parameters` must give a list of nn.Parameter, gave {parameters!r}")
    for parameter in parameters:
        if not callable(parameter.initializer):
            raise InputError(
                f"the initializer of {parameter.name} must be one of nn.init, got {parameter.initializer!r}"
            )


def flatten(activity: Activity) -> Sequence[int]:
    """The values of an activity in order, tables and nested tables opened."""
    if isinstance(activity, int):
        return [activity]
    return [value for item in activity for value in flatten(item)]


def build_graph(model: Module, inputs: SpecsLike) -> Graph:
    """The graph of a model for samples of these shapes and types.

    Raises:
        InputError: a layer cannot take what reaches it, names clash, or the model is empty.
    """
    if not isinstance(model, Module):
        raise InputError(f"the model must be an nn.Module such as nn.Sequential, got {type(model).__name__}")
    specs = as_specs(inputs)
    builder = GraphBuilder(specs)
    path = "" if any(True for _ in model.children()) else (model.name or model.kind.lower())
    outputs = model.build(builder, 0 if len(specs) == 1 else tuple(range(len(specs))), path)
    graph = builder.finish(outputs)
    if not graph.nodes:
        raise InputError("the model has no layers")
    for number in graph.outputs:
        if graph.values[number].repeat != 1:
            raise InputError("the model ends inside of an nn.Fold; undo it with a fold of 1 / times")
    return graph
