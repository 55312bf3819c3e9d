"""Recurrent networks of whole sequences: RNN, LSTM, GRU. Names of parameters are PyTorch's."""

from __future__ import annotations

import numpy as np

from compute.errors import InputError
from compute.nn.dropout import keep_mask, keep_scale, probability
from compute.nn.gated_cell import GatedCell, GRUCell, LSTMCell, RNNCell
from compute.nn.layer import Array, Arrayed, Layer, LayerContext
from compute.nn.module import Parameter, positive
from compute.nn.multi_cell import for_part, of_part
from compute.nn.recurrence import Run, order_of, run, run_backward, split_arrays, split_specs, time_major
from compute.spec import Arrays, Shape, Specs, TensorSpec


class RecurrentStack(Layer):
    """Base of stacked and bidirectional recurrent networks.

    Takes x, or a table of x, lengths and initial states, of which lengths, the states or both may be left out:
        x        float32 (times, input_size)
        lengths  int64 (), in 1..times: the sequence's own length. Its states stop there, its outputs behind are 0, and
                 the backward direction begins there (as with torch's packed sequences)
        states   float32, each (num_layers * directions, hidden_size), zeros by default: layer by layer, forward
                 before backward
    Gives the last layer's output at each step, (times, directions * hidden_size), and with return_state=True a table
    of it and the states behind the last step, shaped as the initial ones.

    Parameters are those of the cell (`weight_ih`, `weight_hh`, `bias_ih`, `bias_hh`), with the ending _l0 for the
    first layer, _l0_reverse for its backward direction, _l1 and so on. A layer's input is the joined outputs of both
    directions of the layer before.

    Args:
        dropout: probability of nn.Dropout on the outputs of each layer but the last.
        bidirectional: two directions instead of one.
    """

    def __init__(
        self,
        first: GatedCell,
        further: GatedCell,
        num_layers: int,
        dropout: float,
        bidirectional: bool,
        return_state: bool,
        name: str | None,
    ) -> None:
        super().__init__(name)
        positive(self.kind, num_layers=num_layers)
        self.num_layers = num_layers
        self.dropout = probability(self.kind, dropout)
        self.bidirectional = bidirectional
        self.return_state = return_state
        self.input_size = first.input_size
        self.hidden_size = first.hidden_size
        self.bias = first.bias
        self.cells = (first, *(further,) * (num_layers - 1))

    @property
    def directions(self) -> int:
        """2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def suffixes(self) -> list[str]:
        """Endings of the parameters' names, in the order of the states."""
        directions = ("", "_reverse")[: self.directions]
        return [f"_l{index}{direction}" for index in range(self.num_layers) for direction in directions]

    def output_specs(self, *inputs: TensorSpec) -> Specs:
        step, initial = split_specs(inputs)
        cell = self.cells[0]
        cell.checked_states(step, ())
        state = TensorSpec((len(self.suffixes), self.hidden_size))
        if initial not in ((), (state,) * cell.states):
            raise InputError(f"needs, behind x, either no initial states or {cell.states} of {state}")
        output = TensorSpec((inputs[0].shape[0], self.directions * self.hidden_size))
        return (output, *((state,) * cell.states if self.return_state else ()))

    def parameters(self, input_shape: Shape, *others: Shape) -> list[Parameter]:
        found: list[Parameter] = []
        for index, suffix in enumerate(self.suffixes):
            cell = self.cells[index // self.directions]
            found += for_part(cell.parameters((cell.input_size,)), suffix)
        return found

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        x, lengths, initial = split_arrays(inputs)
        rows, times = x.shape[:2]
        states = initial or (np.zeros((rows, len(self.suffixes), self.hidden_size), dtype=np.float32),) * 2
        orders = [order_of(times, rows, lengths, reverse) for reverse in (False, True)]
        stream = context.stream() if context.training and self.dropout else None
        sequence = time_major(x)
        runs: list[Run] = []
        masks: list[Array] = []
        for layer, cell in enumerate(self.cells):
            if layer and stream is not None:
                mask = keep_mask(stream, sequence.size, self.dropout).reshape(sequence.shape)
                masks.append(mask * keep_scale(self.dropout))
                sequence = sequence * masks[-1]
            outputs = []
            for direction in range(self.directions):
                place = layer * self.directions + direction
                first = tuple(state[:, place] for state in states[: cell.states])
                own = of_part(parameters, self.suffixes[place])
                runs.append(run(cell, sequence, first, own, orders[direction]))
                outputs.append(runs[-1].outputs)
            sequence = np.concatenate(outputs, axis=2) if self.bidirectional else outputs[0]
        context.saved["runs"], context.saved["masks"] = runs, masks
        if not self.return_state:
            return (time_major(sequence),)
        final = zip(*(done.final for done in runs), strict=True)
        return (time_major(sequence), *(np.stack(state, axis=1) for state in final))

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        runs: list[Run] = context.saved["runs"]
        masks: list[Array] = context.saved["masks"]
        grad = time_major(grad_outputs[0])
        grad_states = grad_outputs[1:] or tuple(
            np.zeros((grad.shape[1], len(runs), self.hidden_size), dtype=np.float32) for _ in runs[0].states
        )
        grad_initial = [np.empty_like(state) for state in grad_states]
        for layer in reversed(range(self.num_layers)):
            below: Array | None = None
            for direction in range(self.directions):
                place = layer * self.directions + direction
                part = grad[:, :, direction * self.hidden_size : (direction + 1) * self.hidden_size]
                grad_x, first = run_backward(
                    self.cells[layer],
                    runs[place],
                    part,
                    tuple(state[:, place] for state in grad_states),
                    of_part(parameters, self.suffixes[place]),
                    of_part(gradients, self.suffixes[place]),
                )
                below = grad_x if below is None else below + grad_x
                for into, value in zip(grad_initial, first, strict=True):
                    into[:, place] = value
            assert below is not None
            grad = below * masks[layer - 1] if layer and masks else below
        found: list[Array | None] = [time_major(grad)]
        if len(inputs) > 1 and inputs[1].dtype == np.int64:
            found.append(None)
        found.extend(grad_initial)
        return tuple(found[: len(inputs)])


class RNN(RecurrentStack):
    """Elman network: nn.RNNCell over sequences, (times, input_size) to (times, hidden_size); torch.nn.RNN, batch first.

    See nn.RNNCell for the formula, and RecurrentStack for inputs, outputs and parameters.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        return_state: bool = False,
        name: str | None = None,
    ) -> None:
        first = RNNCell(input_size, hidden_size, bias, nonlinearity)
        further = RNNCell(hidden_size * (1 + bool(bidirectional)), hidden_size, bias, nonlinearity)
        super().__init__(first, further, num_layers, dropout, bidirectional, return_state, name)
        self.nonlinearity = nonlinearity


class LSTM(RecurrentStack):
    """Long short-term memory: nn.LSTMCell over sequences, (times, input_size) to (times, hidden_size); torch.nn.LSTM.

    See nn.LSTMCell for the formula, and RecurrentStack for inputs, outputs and parameters (batch first). Its states are
    h and c.

    Args:
        peephole: as nn.LSTMCell.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        peephole: bool = False,
        return_state: bool = False,
        name: str | None = None,
    ) -> None:
        first = LSTMCell(input_size, hidden_size, bias, peephole)
        further = LSTMCell(hidden_size * (1 + bool(bidirectional)), hidden_size, bias, peephole)
        super().__init__(first, further, num_layers, dropout, bidirectional, return_state, name)
        self.peephole = peephole


class GRU(RecurrentStack):
    """Gated recurrent units: nn.GRUCell over sequences, (times, input_size) to (times, hidden_size); torch.nn.GRU.

    See nn.GRUCell for the formula, and RecurrentStack for inputs, outputs and parameters (batch first).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        return_state: bool = False,
        name: str | None = None,
    ) -> None:
        first = GRUCell(input_size, hidden_size, bias)
        further = GRUCell(hidden_size * (1 + bool(bidirectional)), hidden_size, bias)
        super().__init__(first, further, num_layers, dropout, bidirectional, return_state, name)
