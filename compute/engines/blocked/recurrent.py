"""Recurrent networks over whole sequences, by oneDNN's recurrent primitives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compute import nn
from compute.engines import dnnl
from compute.engines.blocked.layout import Layout
from compute.engines.blocked.plan import BlockedPlan, workspace_of
from compute.engines.dnnl import Descriptor, EltwisePostOp, Unimplemented
from compute.engines.dnnl.constants import (
    BIAS,
    DST,
    DST_LAYER,
    F32,
    SRC,
    SRC_1,
    SRC_ITER,
    SRC_ITER_C,
    SRC_LAYER,
    U8,
    WEIGHTS_ITER,
    WEIGHTS_LAYER,
    Binary,
    DataType,
    Eltwise,
    diff,
)
from compute.engines.dnnl.recurrent import Cell
from compute.engines.staged import Stage, numpy_call
from compute.engines.tensor import Tensor
from compute.graph import Node
from compute.nn.dropout import keep_mask, keep_scale
from compute.nn.layer import LayerContext
from compute.nn.multi_cell import of_part
from compute.spec import Shape

GATES = {Cell.LSTM: 4, Cell.RNN: 1}


class _Run:
    """One layer of the stack, from x (times, n, inputs) to y (times, n, hidden)."""

    def __init__(self, stage: RecurrentStage, suffix: str, x: Tensor) -> None:
        self.stage = stage
        self.plan = plan = stage.plan
        api, gates, hidden = plan.api, GATES[stage.cell], stage.layer.hidden_size
        self.x = x
        times, n, inputs = plan.describe(x).dims
        self._parameters = of_part(plan.parameters(stage.nodes[0]), suffix)
        self._gradients = of_part(plan.gradients(stage.nodes[0]), suffix)
        self._shapes: dict[int, Shape] = {
            SRC_LAYER: (times, n, inputs),
            WEIGHTS_LAYER: (1, 1, inputs, gates, hidden),
            WEIGHTS_ITER: (1, 1, hidden, gates, hidden),
            BIAS: (1, 1, gates, hidden),
            DST_LAYER: (times, n, hidden),
            SRC_ITER: (1, 1, n, hidden),
        }
        if stage.cell is Cell.LSTM:
            self._shapes[SRC_ITER_C] = (1, 1, n, hidden)
        self._sequence = self._described(False)
        forward = dnnl.recurrent(
            api, stage.cell, self._sequence, activation=stage.activation, training=plan.training
        )
        self._forward = forward
        bias = plan.empty((gates * hidden,))
        if "bias_ih" in self._parameters:
            first, second = self._parameters["bias_ih"], self._parameters["bias_hh"]
            plan.emit(numpy_call(np.add, first, second, out=bias))
        self.y = plan.tensor(api.strided(self._shapes[DST_LAYER], dtype=plan.dtype))
        self._arguments = {
            SRC_LAYER: x,
            BIAS: Tensor(bias.reshape(self._shapes[BIAS])),
            DST_LAYER: self.y,
            **{state: self._zeros(state) for state in (SRC_ITER, SRC_ITER_C) if state in self._shapes},
        }
        self._workspace = workspace_of(plan, forward)
        plan.run(forward, {**self._arguments, **self._weights(forward), **self._workspace})

    def _zeros(self, state: int) -> Tensor:
        described = self.plan.api.strided(self._shapes[state], dtype=self._dtype(state, False))
        zeros = self.plan.empty((described.size_bytes,), np.uint8)
        return Tensor(zeros, Layout(described))

    def _dtype(self, argument: int, gradient: bool) -> DataType:
        return F32 if gradient or argument in (BIAS, SRC_ITER_C) else self.plan.dtype

    def _described(self, gradients: bool) -> dnnl.Sequence:
        api = self.plan.api
        names = {
            SRC_LAYER: "src_layer",
            WEIGHTS_LAYER: "weights_layer",
            WEIGHTS_ITER: "weights_iter",
            BIAS: "bias",
            DST_LAYER: "dst_layer",
            SRC_ITER: "src_iter",
            SRC_ITER_C: "src_iter_c",
        }
        found: dict[str, Descriptor] = {}
        for argument, shape in self._shapes.items():
            dtype = self._dtype(argument, gradients)
            free = argument in (WEIGHTS_LAYER, WEIGHTS_ITER)
            found[names[argument]] = api.any(shape, dtype) if free else api.strided(shape, dtype=dtype)
        return dnnl.Sequence(**found)

    def _weights(self, operation: dnnl.Operation) -> dict[int, Tensor]:
        plan = self.plan
        return {
            argument: plan.weight(
                self._parameters[name], self._shapes[argument], operation.layout(argument), _strides(shape)
            )
            for argument, name, shape in self._maps()
        }

    def _maps(self) -> list[tuple[int, str, Shape]]:
        return [
            (argument, name, self._shapes[argument])
            for argument, name in ((WEIGHTS_LAYER, "weight_ih"), (WEIGHTS_ITER, "weight_hh"))
        ]

    def backward(self, grad_y: Tensor) -> Tensor:
        """Emits the gradients of the parameters and that of x, float32, given that of y, float32."""
        plan = self.plan
        api = plan.api
        operation = dnnl.recurrent_backward(self._forward, self._sequence, self._described(True))
        grad_x = plan.tensor(api.strided(self._shapes[SRC_LAYER]))
        found = {
            diff(argument): plan.tensor(operation.layout(diff(argument)))
            for argument in (WEIGHTS_LAYER, WEIGHTS_ITER)
        }
        bias = plan.rows(self._shapes[BIAS])
        states = {
            diff(state): plan.rows(self._shapes[state]) for state in (SRC_ITER, SRC_ITER_C) if state in self._shapes
        }
        grads = {diff(SRC_LAYER): grad_x, diff(DST_LAYER): grad_y, diff(BIAS): bias, **states, **found}
        plan.run(operation, {**self._arguments, **self._weights(operation), **self._workspace, **grads})
        for argument, name, shape in self._maps():
            described = api.strided(shape, _strides(shape))
            plan.reorder(found[diff(argument)], Tensor(self._gradients[name], Layout(described)))
        for name in ("bias_ih", "bias_hh"):
            if name in self._gradients:
                plan.emit(numpy_call(np.copyto, self._gradients[name], bias.array.reshape(-1)), uses=(bias.array,))
        return grad_x


class RecurrentStage(Stage):
    """A stack of LSTM layers or plain ones, forward in time, with dropout between them.

    Raises:
        Unimplemented: sequences have lengths or first states, or two directions, or the cell is another.
    """

    plan: BlockedPlan

    def __init__(self, plan: BlockedPlan, nodes: Sequence[Node], inputs: Sequence[Tensor]) -> None:
        super().__init__(plan, nodes)
        layer = nodes[0].layer
        assert isinstance(layer, nn.LSTM | nn.GRU | nn.RNN)
        self.layer = layer
        plain = len(inputs) == 1 and not layer.bidirectional and not layer.return_state
        if not plain or isinstance(layer, nn.GRU) or (isinstance(layer, nn.LSTM) and layer.peephole):
            raise Unimplemented("left to the formulas")
        self.cell = Cell.LSTM if isinstance(layer, nn.LSTM) else Cell.RNN
        relu = isinstance(layer, nn.RNN) and layer.nonlinearity == "relu"
        self.activation = Eltwise.RELU if relu else Eltwise.TANH
        self._context = LayerContext(nodes[0].index, plan.current, (True,), {})
        self._stream = self._context.stream
        x = _swapped(plan, inputs[0], plan.dtype)
        self._runs: list[_Run] = []
        self._masks: list[Tensor] = []
        if plan.training and layer.dropout and layer.num_layers > 1:
            plan.emit(self._begin)
        for index, suffix in enumerate(layer.suffixes):
            if index and plan.training and layer.dropout:
                self._masks.append(self._draw(plan.describe(x)))
                dropped = plan.like(x)
                self._drop(x, dropped, self._masks[-1])
                x = dropped
            self._runs.append(_Run(self, suffix, x))
            x = self._runs[-1].y
        self.outputs = (_swapped(plan, x, plan.dtype),)

    def _begin(self) -> None:
        stream = self._context.stream()
        self._stream = lambda: stream

    def _draw(self, like: Descriptor) -> Tensor:
        """The mask of a dropout, a byte an element; all of a pass come from one stream."""
        plan, p = self.plan, self.layer.dropout
        drawn = plan.tensor(plan.api.strided(like.dims, dtype=U8))
        mask = drawn.array.view(np.bool_)
        plan.emit(lambda: np.copyto(mask, keep_mask(self._stream(), mask.size, p)), uses=(mask,))
        return drawn

    def _drop(self, x: Tensor, y: Tensor, mask: Tensor) -> None:
        plan, data = self.plan, self.plan.describe(x)
        attr = plan.api.attribute_of(EltwisePostOp(Eltwise.LINEAR, float(keep_scale(self.layer.dropout)), 0.0))
        operation = dnnl.binary(plan.api, Binary.MUL, data, plan.describe(mask), data, attr=attr)
        plan.run(operation, {SRC: x, SRC_1: mask, DST: y})

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        plan = self.plan
        grad = _swapped(plan, grads[0], F32)
        for index in reversed(range(len(self._runs))):
            grad = self._runs[index].backward(grad)
            if index and self._masks:
                self._drop(grad, grad, self._masks[index - 1])
        return [_swapped(plan, grad, plan.dtype)]


def _swapped(plan: BlockedPlan, x: Tensor, dtype: DataType) -> Tensor:
    """(times, n, size), dense, from (n, times, size), or back; in the wanted type."""
    described = plan.describe(x)
    if not described.is_plain:
        x = plan.to(x, plan.plain(described.dims))
        described = plan.describe(x)
    (first, second, size), strides = described.dims, described.strides
    turned = plan.api.strided((second, first, size), (strides[1], strides[0], strides[2]), described.dtype)
    found = plan.tensor(plan.api.strided((second, first, size), dtype=dtype))
    plan.extract(x, turned, found)
    return found


def _strides(shape: Shape) -> Shape:
    """Of a map (gates * hidden, inputs), as PyTorch has it, seen as oneDNN's (1, 1, inputs, gates, hidden)."""
    _, _, inputs, gates, hidden = shape
    return (inputs * gates * hidden, inputs * gates * hidden, 1, hidden * inputs, inputs)
