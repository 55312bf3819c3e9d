"""Running a cell over sequences, forward and backward in time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.cell import Cell, States
from compute.nn.layer import Array, Arrayed
from compute.spec import Arrays, Specs, TensorSpec

LENGTHS = TensorSpec((), "int64")


class Order(NamedTuple):
    """How steps of the sequences follow each other.

    Attributes:
        steps: int64 (times, n): the step that comes t-th, its own inverse; None for the natural order.
        active: bool (times, n): whether the t-th step belongs to the sequence; None if all do.
    """

    steps: NDArray[np.int64] | None
    active: NDArray[np.bool_] | None

    def apply(self, x: Array) -> Array:
        """x (times, n, ...) in this order, or back from it."""
        if self.steps is None:
            return x
        return x[self.steps, np.arange(x.shape[1])]


def order_of(times: int, rows: int, lengths: NDArray[np.int64] | None, reverse: bool) -> Order:
    """The order of sequences of these lengths; reversed sequences begin at their last step."""
    steps = np.arange(times)[:, None]
    if lengths is None:
        return Order(np.broadcast_to(steps[::-1], (times, rows)) if reverse else None, None)
    active = steps < lengths
    return Order(np.where(active, lengths - 1 - steps, steps) if reverse else None, active)


class Run(NamedTuple):
    """A cell's run over sequences, for the backward pass.

    Attributes:
        x: (times, n, ...), in the order of the run.
        states: each (times + 1, n, ...), those before the t-th step at t.
        saved: of each step.
        outputs: (times, n, ...), in the order of the sequences, 0 behind their ends.
    """

    x: Array
    states: States
    saved: list[Any]
    order: Order
    outputs: Array

    @property
    def final(self) -> States:
        """The states behind the last step of each sequence."""
        return tuple(state[-1] for state in self.states)


def run(cell: Cell, x: Array, initial: States, parameters: Arrayed, order: Order) -> Run:
    """Runs the cell over x (times, n, ...) in this order; where a step is not active, the states stay as they are."""
    x, active = order.apply(x), order.active
    times, rows = x.shape[:2]
    z = _unfold(cell.project(_fold(x), parameters), times)
    states = tuple(np.empty((times + 1, rows, *state.shape[1:]), dtype=np.float32) for state in initial)
    for state, first in zip(states, initial, strict=True):
        state[0] = first
    saved = []
    for t in range(times):
        before = tuple(state[t] for state in states)
        after, kept = cell.step(z[t], before, parameters)
        saved.append(kept)
        for state, new, old in zip(states, after, before, strict=True):
            state[t + 1] = new if active is None else np.where(_column(active[t], new), new, old)
    outputs = states[cell.output_state][1:]
    return Run(x, states, saved, order, order.apply(_where_active(active, outputs)))


def run_backward(
    cell: Cell, done: Run, grad_outputs: Array, grad_final: States, parameters: Arrayed, gradients: Arrayed
) -> tuple[Array, States]:
    """Gradients for x (times, n, ...) and for the initial states; adds those of the parameters to `gradients`."""
    times, active = len(done.x), done.order.active
    grad_outputs = _where_active(active, done.order.apply(grad_outputs))
    grads = list(grad_final)
    grad_z: list[Array] = []
    records: list[tuple[Array, ...]] = []
    for t in reversed(range(times)):
        grads[cell.output_state] = grads[cell.output_state] + grad_outputs[t]
        before = tuple(state[t] for state in done.states)
        if active is None:
            grad, passed, record = cell.step_backward(tuple(grads), before, done.saved[t], parameters)
            grads = list(passed)
        else:
            # Where the step is not active, gradients pass it by.
            masks = [_column(active[t], g) for g in grads]
            taken = tuple(np.where(mask, g, np.float32(0)) for mask, g in zip(masks, grads, strict=True))
            grad, passed, record = cell.step_backward(taken, before, done.saved[t], parameters)
            grads = [np.where(mask, p, g) for mask, p, g in zip(masks, passed, grads, strict=True)]
        grad_z.append(grad)
        records.append(record)
    every = np.concatenate(grad_z[::-1])
    record = tuple(np.concatenate(parts[::-1]) for parts in zip(*records, strict=True))
    before = tuple(_fold(state[:-1]) for state in done.states)
    after = tuple(_fold(state[1:]) for state in done.states)
    cell.accumulate(_fold(done.x), before, after, every, record, parameters, gradients)
    grad_x = _unfold(cell.project_backward(every, parameters), times)
    return done.order.apply(grad_x), tuple(grads)


def split_specs(inputs: Specs) -> tuple[TensorSpec, Specs]:
    """What x (times, ...) is at one step, and the initial states; lengths may stand between them."""
    x, rest = inputs[0], inputs[1:]
    if len(x.shape) < 2:
        raise InputError("needs sequences (times, ...)")
    return TensorSpec(x.shape[1:], x.dtype), rest[1:] if rest[:1] == (LENGTHS,) else rest


def split_arrays(inputs: Arrays) -> tuple[Array, NDArray[np.int64] | None, States]:
    """x, the lengths or None, and the initial states or ().

    Raises:
        InputError: a length is not in 1..times.
    """
    x, rest = inputs[0], inputs[1:]
    if not rest or rest[0].dtype != np.int64:
        return x, None, rest
    check_lengths(rest[0], x.shape[1])
    return x, rest[0], rest[1:]


def check_lengths(lengths: NDArray[np.int64], times: int) -> None:
    """Raises InputError if a length is not in 1..times."""
    wrong = (lengths < 1) | (lengths > times)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"the length {lengths[row]} of sample {row} of the batch is not in 1..{times}", row)


def time_major(x: Array) -> Array:
    """(n, times, ...) from (times, n, ...), or back; C-contiguous."""
    return np.ascontiguousarray(x.swapaxes(0, 1))


def _fold(x: Array) -> Array:
    return x.reshape(-1, *x.shape[2:])


def _unfold(x: Array, times: int) -> Array:
    return x.reshape(times, -1, *x.shape[1:])


def _where_active(active: NDArray[np.bool_] | None, x: Array) -> Array:
    return x if active is None else np.where(active.reshape(*active.shape, *(1,) * (x.ndim - 2)), x, np.float32(0))


def _column(mask: NDArray[np.bool_], like: Array) -> NDArray[np.bool_]:
    return mask.reshape(-1, *(1,) * (like.ndim - 1))
