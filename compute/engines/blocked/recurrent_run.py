"""One layer and direction of a recurrent network, by oneDNN's recurrent primitive."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from compute import nn
from compute.engines import dnnl
from compute.engines.blocked.layout import Layout
from compute.engines.blocked.plan import BlockedPlan, workspace_of
from compute.engines.dnnl import Descriptor, Unimplemented
from compute.engines.dnnl.constants import (
    BIAS,
    DST_LAYER,
    F32,
    SRC_ITER,
    SRC_ITER_C,
    SRC_LAYER,
    WEIGHTS_ITER,
    WEIGHTS_LAYER,
    DataType,
    Direction,
    Eltwise,
    diff,
)
from compute.engines.dnnl.recurrent import Cell
from compute.engines.tensor import Tensor
from compute.nn.layer import Array, Arrayed
from compute.spec import Shape

NAMES = {
    SRC_LAYER: "src_layer",
    WEIGHTS_LAYER: "weights_layer",
    WEIGHTS_ITER: "weights_iter",
    BIAS: "bias",
    DST_LAYER: "dst_layer",
    SRC_ITER: "src_iter",
    SRC_ITER_C: "src_iter_c",
}
"""Arguments as `dnnl.Sequence` calls them."""

MAPS = {WEIGHTS_LAYER: "weight_ih", WEIGHTS_ITER: "weight_hh"}
"""Arguments as our layers call them."""


class Kind(NamedTuple):
    """What oneDNN has for a layer.

    Attributes:
        gates: which of PyTorch's gates each of oneDNN's is.
        separate: whether the last gate's two biases are told apart, as one row more.
    """

    cell: Cell
    gates: tuple[int, ...]
    separate: bool = False
    activation: Eltwise = Eltwise.TANH


def kind_of(layer: nn.Module) -> Kind:
    """Raises Unimplemented if oneDNN has no such cell."""
    match layer:
        case nn.LSTM() if not layer.peephole:
            return Kind(Cell.LSTM, (0, 1, 2, 3))
        case nn.GRU():
            return Kind(Cell.LBR_GRU, (1, 0, 2), separate=True)
        case nn.RNN():
            return Kind(Cell.RNN, (0,), activation=Eltwise.RELU if layer.nonlinearity == "relu" else Eltwise.TANH)
        case _:
            raise Unimplemented(f"oneDNN has no cell as {layer.kind}'s")


class Run:
    """From x (times, n, inputs) to y (times, n, hidden), both dense, beginning with states of zeros.

    Args:
        parameters, gradients: of this layer and direction, by the cell's names.
    """

    def __init__(
        self,
        plan: BlockedPlan,
        kind: Kind,
        hidden: int,
        x: Tensor,
        reverse: bool,
        parameters: Arrayed,
        gradients: Arrayed,
    ) -> None:
        self.plan, self.kind = plan, kind
        self._parameters, self._gradients = parameters, gradients
        times, n, inputs = plan.describe(x).dims
        gates = len(kind.gates)
        self._shapes: dict[int, Shape] = {
            SRC_LAYER: (times, n, inputs),
            WEIGHTS_LAYER: (1, 1, inputs, gates, hidden),
            WEIGHTS_ITER: (1, 1, hidden, gates, hidden),
            BIAS: (1, 1, gates + kind.separate, hidden),
            DST_LAYER: (times, n, hidden),
            SRC_ITER: (1, 1, n, hidden),
        }
        if kind.cell is Cell.LSTM:
            self._shapes[SRC_ITER_C] = (1, 1, n, hidden)
        self._states = [state for state in (SRC_ITER, SRC_ITER_C) if state in self._shapes]
        self._sequence = self._described(False)
        direction = Direction.RIGHT_TO_LEFT if reverse else Direction.LEFT_TO_RIGHT
        self._forward = dnnl.recurrent(plan.api, kind.cell, self._sequence, direction, kind.activation, plan.training)
        self._bias = plan.empty(self._shapes[BIAS])
        if "bias_ih" in parameters:
            plan.emit(self._join_biases)
        self.y = plan.tensor(plan.api.strided(self._shapes[DST_LAYER], dtype=plan.dtype))
        zeros = {state: self._zeros(state) for state in self._states}
        self._arguments = {SRC_LAYER: x, BIAS: Tensor(self._bias), DST_LAYER: self.y, **zeros}
        self._workspace = workspace_of(plan, self._forward)
        plan.run(self._forward, {**self._arguments, **self._weights(self._forward), **self._workspace})

    def _zeros(self, state: int) -> Tensor:
        described = self.plan.api.strided(self._shapes[state], dtype=self._dtype(state, False))
        return Tensor(self.plan.empty((described.size_bytes,), np.uint8), Layout(described))

    def _dtype(self, argument: int, gradient: bool) -> DataType:
        return F32 if gradient or argument in (BIAS, SRC_ITER_C) else self.plan.dtype

    def _described(self, gradients: bool) -> dnnl.Sequence:
        api = self.plan.api
        found: dict[str, Descriptor] = {}
        for argument, shape in self._shapes.items():
            dtype = self._dtype(argument, gradients)
            found[NAMES[argument]] = api.any(shape, dtype) if argument in MAPS else api.strided(shape, dtype=dtype)
        return dnnl.Sequence(**found)

    def _join_biases(self) -> None:
        first, second = (self._parameters[name].reshape(len(self.kind.gates), -1) for name in ("bias_ih", "bias_hh"))
        rows = self._bias.reshape(-1, first.shape[1])
        for row, gate in enumerate(self.kind.gates):
            np.add(first[gate], second[gate], out=rows[row])
        if self.kind.separate:
            rows[-2], rows[-1] = first[gate], second[gate]

    def _share_bias_gradient(self, rows: Array) -> None:
        """Hands the gradient of the joined biases to both."""
        for name in ("bias_ih", "bias_hh"):
            gradient = self._gradients[name].reshape(len(self.kind.gates), -1)
            for row, gate in enumerate(self.kind.gates):
                gradient[gate] = rows[row]
        if self.kind.separate:
            gradient[gate] = rows[-1]

    def _weights(self, operation: dnnl.Operation) -> dict[int, Tensor]:
        gates = self.kind.gates
        return {
            argument: self.plan.weight(
                self._parameters[name],
                self._shapes[argument],
                operation.layout(argument),
                _strides(self._shapes[argument]),
                gates if gates != tuple(sorted(gates)) else None,
            )
            for argument, name in MAPS.items()
        }

    def backward(self, grad_y: Tensor) -> Tensor:
        """Emits the gradients of the parameters and that of x, float32, given that of y, float32 and dense."""
        plan = self.plan
        operation = dnnl.recurrent_backward(self._forward, self._sequence, self._described(True))
        grad_x = plan.tensor(plan.api.strided(self._shapes[SRC_LAYER]))
        found = {argument: plan.tensor(operation.layout(diff(argument))) for argument in MAPS}
        bias = plan.rows(self._shapes[BIAS])
        grads = {diff(state): plan.rows(self._shapes[state]) for state in self._states}
        grads |= {diff(argument): tensor for argument, tensor in found.items()}
        grads |= {diff(SRC_LAYER): grad_x, diff(DST_LAYER): grad_y, diff(BIAS): bias}
        plan.run(operation, {**self._arguments, **self._weights(operation), **self._workspace, **grads})
        for argument, name in MAPS.items():
            self._store(found[argument], argument, name)
        if "bias_ih" in self._gradients:
            rows = bias.array.reshape(-1, self._shapes[BIAS][-1])
            plan.emit(lambda: self._share_bias_gradient(rows), uses=(rows,))
        return grad_x

    def _store(self, found: Tensor, argument: int, name: str) -> None:
        """Emits the copy of a map's gradient to its place, gates in PyTorch's order."""
        plan, gates, gradient = self.plan, self.kind.gates, self._gradients[name]
        described = Layout(plan.api.strided(self._shapes[argument], _strides(self._shapes[argument])))
        if gates == tuple(sorted(gates)):
            plan.reorder(found, Tensor(gradient, described))
            return
        ours = plan.rows(gradient.shape).array
        plan.reorder(found, Tensor(ours, described))
        source, target = ours.reshape(len(gates), -1), gradient.reshape(len(gates), -1)

        def copy() -> None:
            for row, gate in enumerate(gates):
                target[gate] = source[row]

        plan.emit(copy, uses=(ours,))


def _strides(shape: Shape) -> Shape:
    """Of a map (gates * hidden, inputs), as PyTorch has it, seen as oneDNN's (1, 1, inputs, gates, hidden)."""
    _, _, inputs, gates, hidden = shape
    return (inputs * gates * hidden, inputs * gates * hidden, 1, hidden * inputs, inputs)
