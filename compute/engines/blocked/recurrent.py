"""Stacked and bidirectional recurrent networks over whole sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from compute import nn
from compute.engines import dnnl
from compute.engines.blocked.dropout import drawn_mask, drop, stream_of
from compute.engines.blocked.lstm_run import LstmRun, by_products
from compute.engines.blocked.plan import BlockedPlan
from compute.engines.blocked.recurrent_run import Run, kind_of
from compute.engines.dnnl import Unimplemented
from compute.engines.dnnl.constants import DST, F32, MULTIPLE_SRC, SRC, SRC_1, Binary, DataType
from compute.engines.staged import Stage
from compute.engines.tensor import Tensor
from compute.graph import Node
from compute.nn.multi_cell import of_part
from compute.philox import Stream


class RecurrentStage(Stage):
    """nn.LSTM, nn.GRU or nn.RNN on whole sequences, with dropout between the layers.

    Raises:
        Unimplemented: sequences have lengths or first states, or the last states are wanted.
    """

    plan: BlockedPlan

    def __init__(self, plan: BlockedPlan, nodes: Sequence[Node], inputs: Sequence[Tensor]) -> None:
        super().__init__(plan, nodes)
        layer = nodes[0].layer
        assert isinstance(layer, nn.LSTM | nn.GRU | nn.RNN)
        if len(inputs) > 1 or layer.return_state:
            raise Unimplemented("states and lengths of sequences are left to the formulas")
        products = isinstance(layer, nn.LSTM) and by_products(plan, layer)
        kind = None if products else kind_of(layer)
        self._layer = layer
        parameters, gradients = plan.parameters(nodes[0]), plan.gradients(nodes[0])
        x = swapped(plan, inputs[0], plan.dtype)
        self._runs: list[list[Run | LstmRun]] = []
        self._masks: list[Tensor] = []
        stream = _one_stream(plan, stream_of(plan, nodes[0])) if self._drops else None
        for index in range(layer.num_layers):
            if index and stream is not None:
                self._masks.append(drawn_mask(plan, stream, layer.dropout, plan.describe(x).dims))
                dropped = plan.like(x)
                drop(plan, x, self._masks[-1], layer.dropout, dropped)
                x = dropped
            own = layer.suffixes[index * layer.directions : (index + 1) * layer.directions]
            runs: list[Run | LstmRun] = []
            for direction, suffix in enumerate(own):
                parts = (of_part(parameters, suffix), of_part(gradients, suffix))
                if kind is None:
                    runs.append(LstmRun(plan, layer.hidden_size, x, direction == 1, *parts))
                else:
                    runs.append(Run(plan, kind, layer.hidden_size, x, direction == 1, *parts))
            self._runs.append(runs)
            x = self._joined([run.y for run in self._runs[-1]])
        self.outputs = (swapped(plan, x, plan.dtype),)

    @property
    def _drops(self) -> bool:
        return self.plan.training and self._layer.dropout > 0 and self._layer.num_layers > 1

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        """The outputs of both directions one behind the other."""
        if len(parts) == 1:
            return parts[0]
        plan, described = self.plan, [self.plan.describe(part) for part in parts]
        times, n, hidden = described[0].dims
        y = plan.tensor(plan.plain((times, n, 2 * hidden)))
        operation = dnnl.concat(plan.api, described, plan.describe(y), 2)
        plan.run(operation, {**{MULTIPLE_SRC + i: part for i, part in enumerate(parts)}, DST: y})
        return y

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        plan = self.plan
        grad = swapped(plan, grads[0], F32)
        for index in reversed(range(len(self._runs))):
            runs = self._runs[index]
            found = [run.backward(part) for run, part in zip(runs, self._parts(grad, len(runs)), strict=True)]
            grad = found[0]
            if len(found) == 2:
                data = plan.describe(grad)
                operation = dnnl.binary(plan.api, Binary.ADD, data, data, data)
                plan.run(operation, {SRC: grad, SRC_1: found[1], DST: grad})
            if index and self._masks:
                drop(plan, grad, self._masks[index - 1], self._layer.dropout, grad)
        return [swapped(plan, grad, plan.dtype)]

    def _parts(self, grad: Tensor, count: int) -> list[Tensor]:
        """The gradients of both directions' outputs."""
        if count == 1:
            return [grad]
        plan, described = self.plan, self.plan.describe(grad)
        times, n, size = described.dims
        dims, found = (times, n, size // 2), []
        for direction in range(count):
            found.append(plan.tensor(plan.api.strided(dims)))
            plan.extract(grad, described.part(dims, (0, 0, direction * dims[2])), found[-1])
        return found


def _one_stream(plan: BlockedPlan, begin: Callable[[], Stream]) -> Callable[[], Stream]:
    """Gives one stream in all of a pass: masks of further layers go on where those before ended."""
    streams: list[Stream] = []

    def start() -> None:
        streams[:] = [begin()]

    plan.emit(start)
    return lambda: streams[0]


def swapped(plan: BlockedPlan, x: Tensor, dtype: DataType) -> Tensor:
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
