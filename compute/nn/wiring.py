"""nn.Graph: models wired by hand, with several inputs and outputs.

    image, note = nn.Input(), nn.Input()
    features = nn.ReLU()(nn.Linear(784, 100)(image))
    model = nn.Graph([image, note], [nn.Linear(110, 10)(nn.JoinTable()(features, note))])
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compute.errors import InputError
from compute.nn.container import join
from compute.nn.module import Activity, Builder, Module, Wire


def Input() -> Wire:
    """A new input of an nn.Graph."""
    return Wire(None, ())


class Graph(Module):
    """A model wired by hand: `nn.Graph(inputs, outputs)`; a module called on several wires gets their table.

    Raises:
        InputError: an output depends on an input that is not listed, or an input leads to no output.
    """

    def __init__(self, inputs: Wire | Sequence[Wire], outputs: Wire | Sequence[Wire], name: str | None = None) -> None:
        super().__init__(name)
        self.inputs, self.outputs = _wires(inputs), _wires(outputs)
        if not self.inputs or not self.outputs:
            raise InputError("nn.Graph needs at least one nn.Input() and one output, each the result of a module")
        self._order = self._sorted()
        reached = set(map(id, self._order))
        for index, wire in enumerate(self.inputs):
            if id(wire) not in reached:
                raise InputError(f"nn.Graph: input {index} is not connected to any output")

    @property
    def wires(self) -> tuple[Wire, ...]:
        """All wires, each behind those it depends on."""
        return tuple(self._order)

    def _sorted(self) -> list[Wire]:
        """Wires, each behind those it depends on."""
        order: list[Wire] = []
        done: set[int] = set()
        stack: list[tuple[Wire, bool]] = [(wire, False) for wire in reversed(self.outputs)]
        known = {id(wire) for wire in self.inputs}
        while stack:
            wire, ready = stack.pop()
            if id(wire) in done:
                continue
            if ready or id(wire) in known:
                done.add(id(wire))
                order.append(wire)
            elif wire.module is None:
                raise InputError("nn.Graph: an output depends on an nn.Input() that is not among the graph's inputs")
            else:
                stack.append((wire, True))
                stack.extend((source, False) for source in reversed(wire.sources))
        return order

    def children(self) -> Iterator[Module]:
        seen: set[int] = set()
        for wire in self._order:
            if wire.module is not None and id(wire.module) not in seen:
                seen.add(id(wire.module))
                yield wire.module

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        table = (sources,) if isinstance(sources, int) else sources
        if len(table) != len(self.inputs):
            raise InputError(f"{self.name or self.kind} has {len(self.inputs)} inputs and is given {len(table)}")
        values: dict[int, Activity] = {id(wire): value for wire, value in zip(self.inputs, table, strict=True)}
        for index, wire in enumerate(self._order):
            if id(wire) in values or wire.module is None:
                continue
            inputs = tuple(values[id(source)] for source in wire.sources)
            own = wire.module.name or f"{wire.module.kind.lower()}_{index}"
            arguments = inputs[0] if len(inputs) == 1 else inputs
            values[id(wire)] = wire.module.build(builder, arguments, join(path, own))
        outputs = tuple(values[id(wire)] for wire in self.outputs)
        return outputs[0] if len(outputs) == 1 else outputs


def _wires(given: object) -> tuple[Wire, ...]:
    """One wire or several as a tuple; empty if it is anything else."""
    several = tuple(given) if isinstance(given, list | tuple) else (given,)
    return several if all(isinstance(item, Wire) for item in several) else ()
