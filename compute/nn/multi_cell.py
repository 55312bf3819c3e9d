"""Several recurrent cells as one."""

from __future__ import annotations

from typing import Any

from compute.errors import InputError
from compute.nn.cell import Cell, States
from compute.nn.layer import Array, Arrayed
from compute.nn.module import Parameter
from compute.spec import Shape


def of_part(arrays: Arrayed, suffix: str) -> Arrayed:
    """The arrays whose names end so, without that ending."""
    return {name.removesuffix(suffix): array for name, array in arrays.items() if name.endswith(suffix)}


def for_part(parameters: list[Parameter], suffix: str) -> list[Parameter]:
    """The parameters with this ending added to their names."""
    return [Parameter(p.name + suffix, p.shape, p.initializer) for p in parameters]


class MultiRNNCell(Cell):
    """Several cells as one, each taking the output of the one before as its input (BigDL's MultiRNNCell).

    Its states are those of the first cell, of the second and so on; its output is the last cell's. Parameters are the
    cells', with the endings "_l0", "_l1" and so on.
    """

    def __init__(self, *cells: Cell, name: str | None = None) -> None:
        super().__init__(name)
        if not cells or not all(isinstance(cell, Cell) for cell in cells):
            raise InputError(f"{self.kind} takes cells such as nn.LSTMCell(10, 20)")
        self.cells = cells
        self.states = sum(cell.states for cell in cells)
        self.output_state = self.states - cells[-1].states + cells[-1].output_state
        self.records = sum(cell.records for cell in cells) + len(cells) - 1

    def state_shapes(self, input_shape: Shape) -> tuple[Shape, ...]:
        found: list[Shape] = []
        for cell in self.cells:
            shapes = cell.state_shapes(input_shape)
            found.extend(shapes)
            input_shape = shapes[cell.output_state]
        return tuple(found)

    def parameters(self, input_shape: Shape, *others: Shape) -> list[Parameter]:
        found: list[Parameter] = []
        for index, cell in enumerate(self.cells):
            found += for_part(cell.parameters(input_shape), f"_l{index}")
            input_shape = cell.state_shapes(input_shape)[cell.output_state]
        return found

    def project(self, x: Array, parameters: Arrayed) -> Array:
        return self.cells[0].project(x, of_part(parameters, "_l0"))

    def project_backward(self, grad_z: Array, parameters: Arrayed) -> Array:
        return self.cells[0].project_backward(grad_z, of_part(parameters, "_l0"))

    def step(self, z: Array, states: States, parameters: Arrayed) -> tuple[States, Any]:
        after: list[Array] = []
        saved = []
        output = z
        for index, cell in enumerate(self.cells):
            own = of_part(parameters, f"_l{index}")
            if index:
                z = cell.project(output, own)
            new, kept = cell.step(z, states[len(after) : len(after) + cell.states], own)
            output = new[cell.output_state]
            after.extend(new)
            saved.append(kept)
        return tuple(after), saved

    def step_backward(
        self, grads: States, states: States, saved: Any, parameters: Arrayed
    ) -> tuple[Array, States, tuple[Array, ...]]:
        passed: States = ()
        records: tuple[Array, ...] = ()
        grad_output: Array | None = None
        end = self.states
        for index in reversed(range(len(self.cells))):
            cell, own = self.cells[index], of_part(parameters, f"_l{index}")
            span = slice(end - cell.states, end)
            end = span.start
            given = list(grads[span])
            if grad_output is not None:
                given[cell.output_state] = given[cell.output_state] + grad_output
            grad_z, before, record = cell.step_backward(tuple(given), states[span], saved[index], own)
            passed = (*before, *passed)
            records = (*((grad_z,) if index else ()), *record, *records)
            if index:
                grad_output = cell.project_backward(grad_z, own)
        return grad_z, passed, records

    def accumulate(
        self,
        x: Array,
        before: States,
        after: States,
        grad_z: Array,
        record: tuple[Array, ...],
        parameters: Arrayed,
        gradients: Arrayed,
    ) -> None:
        start = 0
        for index, cell in enumerate(self.cells):
            own, into = of_part(parameters, f"_l{index}"), of_part(gradients, f"_l{index}")
            span = slice(start, start + cell.states)
            start = span.stop
            if index:
                grad_z, record = record[0], record[1:]
            cell.accumulate(x, before[span], after[span], grad_z, record[: cell.records], own, into)
            x, record = after[span][cell.output_state], record[cell.records :]
