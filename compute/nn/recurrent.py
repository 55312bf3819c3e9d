"""Layers that run any cell over sequences (BigDL's Recurrent, BiRecurrent, RecurrentDecoder)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from compute.errors import InputError
from compute.nn.cell import Cell, States
from compute.nn.container import join
from compute.nn.layer import Array, Arrayed, Layer, LayerContext
from compute.nn.module import Activity, Builder, Module, Parameter, positive
from compute.nn.recurrence import Run, order_of, run, run_backward, split_arrays, split_specs, time_major
from compute.nn.table import JoinTable
from compute.nn.table_arithmetic import CAddTable
from compute.spec import Arrays, Shape, Specs, TensorSpec


class CellLayer(Layer):
    """Base of layers made of one cell, whose parameters are theirs."""

    def __init__(self, cell: Cell, return_state: bool, name: str | None) -> None:
        super().__init__(name)
        if not isinstance(cell, Cell):
            raise InputError(f"{self.kind} takes a cell such as nn.LSTMCell(10, 20), got {cell!r}")
        self.cell = cell
        self.return_state = return_state

    def sequence_specs(self, times: int, states: tuple[Shape, ...]) -> Specs:
        """The outputs of so many steps, and of return_state."""
        final = tuple(TensorSpec(shape) for shape in states) if self.return_state else ()
        return (TensorSpec((times, *states[self.cell.output_state])), *final)


class Recurrent(CellLayer):
    """Runs a cell over sequences: (times, *shape) to (times, *state), the output state of every step.

    Takes x, or a table of x, lengths and initial states, of which lengths, the states or both may be left out:
        x        float32 (times, *shape)
        lengths  int64 (), in 1..times: the sequence's own length. Its states stop there and its outputs behind are 0;
                 a reversed run begins there (as with torch's packed sequences)
        states   float32, as the cell's; zeros by default

    Args:
        reverse: runs from the last step to the first; outputs stay at their steps.
        return_state: gives a table of the outputs and of the states behind the last step.

    Parameters are the cell's.
    """

    def __init__(self, cell: Cell, reverse: bool = False, return_state: bool = False, name: str | None = None) -> None:
        super().__init__(cell, return_state, name)
        self.reverse = reverse

    def output_specs(self, *inputs: TensorSpec) -> Specs:
        step, initial = split_specs(inputs)
        return self.sequence_specs(inputs[0].shape[0], self.cell.checked_states(step, initial))

    def parameters(self, input_shape: Shape, *others: Shape) -> list[Parameter]:
        return self.cell.parameters(input_shape[1:])

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        x, lengths, initial = split_arrays(inputs)
        order = order_of(x.shape[1], len(x), lengths, self.reverse)
        done = run(self.cell, time_major(x), initial or self.cell.zero_states(x[:, 0]), parameters, order)
        context.saved["run"] = done
        return (time_major(done.outputs), *(done.final if self.return_state else ()))

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        done: Run = context.saved["run"]
        grad_final = grad_outputs[1:] or tuple(np.zeros_like(state[0]) for state in done.states)
        grad_x, grad_initial = run_backward(
            self.cell, done, time_major(grad_outputs[0]), grad_final, parameters, gradients
        )
        return _gradients(inputs, time_major(grad_x), grad_initial)


class RecurrentDecoder(CellLayer):
    """Runs a cell for `length` steps, each taking the output of the one before as its input.

    Takes the first input x (*shape), or a table of x and the initial states (zeros by default); gives the outputs
    (length, *shape), and with return_state a table of these and the last states. Parameters are the cell's, whose
    output must have the shape of its input. BigDL's RecurrentDecoder.
    """

    def __init__(self, cell: Cell, length: int, return_state: bool = False, name: str | None = None) -> None:
        super().__init__(cell, return_state, name)
        positive(self.kind, length=length)
        self.length = length

    def output_specs(self, *inputs: TensorSpec) -> Specs:
        states = self.cell.checked_states(inputs[0], inputs[1:])
        if states[self.cell.output_state] != inputs[0].shape:
            raise InputError(f"needs a cell whose output {states[self.cell.output_state]} can be its next input")
        return self.sequence_specs(self.length, states)

    def parameters(self, input_shape: Shape, *others: Shape) -> list[Parameter]:
        return self.cell.parameters(input_shape)

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        x, cell = inputs[0], self.cell
        states: list[States] = [inputs[1:] or cell.zero_states(x)]
        saved = []
        for _ in range(self.length):
            after, kept = cell.step(cell.project(x, parameters), states[-1], parameters)
            saved.append(kept)
            states.append(after)
            x = after[cell.output_state]
        context.saved["states"], context.saved["steps"] = states, saved
        outputs = np.stack([state[cell.output_state] for state in states[1:]], axis=1)
        return (outputs, *(states[-1] if self.return_state else ()))

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        cell, out = self.cell, self.cell.output_state
        states: list[States] = context.saved["states"]
        grads = list(grad_outputs[1:]) or [np.zeros_like(state) for state in states[0]]
        grad_z, records = [], []
        for t in reversed(range(self.length)):
            grads[out] = grads[out] + grad_outputs[0][:, t]
            grad, passed, record = cell.step_backward(tuple(grads), states[t], context.saved["steps"][t], parameters)
            grads = list(passed)
            grad_x = cell.project_backward(grad, parameters)
            if t:
                grads[out] = grads[out] + grad_x
            grad_z.append(grad)
            records.append(record)
        x = np.concatenate([inputs[0], *(state[out] for state in states[1:-1])])
        before = tuple(np.concatenate(parts) for parts in zip(*states[:-1], strict=True))
        after = tuple(np.concatenate(parts) for parts in zip(*states[1:], strict=True))
        record = tuple(np.concatenate(parts[::-1]) for parts in zip(*records, strict=True))
        cell.accumulate(x, before, after, np.concatenate(grad_z[::-1]), record, parameters, gradients)
        return _gradients(inputs, grad_x, tuple(grads))


class BiRecurrent(Module):
    """Runs one cell forward and another backward over sequences and merges their outputs at each step.

    Takes x, or a table of x and lengths, as nn.Recurrent.

    Args:
        merge: "concat" joins the outputs along their first dimension, "sum" (BigDL's default) adds them.
    """

    def __init__(self, forward: Cell, backward: Cell, merge: str = "concat", name: str | None = None) -> None:
        super().__init__(name)
        if merge not in ("concat", "sum"):
            raise InputError(f"{self.kind}: merge must be concat or sum, got {merge!r}")
        self.forward = Recurrent(forward)
        self.backward = Recurrent(backward, reverse=True)
        self.merge = JoinTable(1) if merge == "concat" else CAddTable()

    def children(self) -> Iterator[Module]:
        yield from (self.forward, self.backward, self.merge)

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        outputs = tuple(
            getattr(self, part).build(builder, sources, join(path, part)) for part in ("forward", "backward")
        )
        return self.merge.build(builder, outputs, join(path, "merge"))


def _gradients(inputs: Arrays, grad_x: Array, grad_initial: States) -> tuple[Array | None, ...]:
    """One for each input: x, lengths, initial states, of which the latter may be missing."""
    lengths = (None,) if len(inputs) > 1 and inputs[1].dtype == np.int64 else ()
    found = (grad_x, *lengths, *grad_initial)
    return found[: len(inputs)]
