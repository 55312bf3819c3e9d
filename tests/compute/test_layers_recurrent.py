"""Recurrent layers against PyTorch's, and against autograd through the formulas where PyTorch has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from layer_check import check_layer

import compute
from compute import InputError, TensorSpec, nn
from compute.nn.layer import LayerContext, Pass

LENGTHS = TensorSpec((), "int64")
Tensor = torch.Tensor
KINDS: dict[str, tuple[type[nn.Module], dict[str, Any], type[torch.nn.Module]]] = {
    "tanh": (nn.RNN, {}, torch.nn.RNN),
    "relu": (nn.RNN, {"nonlinearity": "relu"}, torch.nn.RNN),
    "lstm": (nn.LSTM, {}, torch.nn.LSTM),
    "gru": (nn.GRU, {}, torch.nn.GRU),
}


def torch_twin(make: type[torch.nn.Module], *arguments: int, **options: Any) -> Callable[..., Any]:
    """A reference that runs torch's module with the given weights; lengths as a packed sequence."""
    module = make(*arguments, batch_first=True, **options).double()

    def reference(x: Tensor, *rest: Tensor, **weights: Tensor) -> list[Tensor]:
        lengths = rest[0] if rest and rest[0].dtype == torch.int64 else None
        states = [state.transpose(0, 1) for state in rest[0 if lengths is None else 1 :]]
        hx = None if not states else tuple(states) if len(states) > 1 else states[0]
        steps: Any = x
        if lengths is not None:
            steps = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, final = torch.func.functional_call(module, weights, (steps, hx))
        if lengths is not None:
            output, _ = torch.nn.utils.rnn.pad_packed_sequence(output, batch_first=True, total_length=x.shape[1])
        last = final if isinstance(final, tuple) else (final,)
        return [output, *(state.transpose(0, 1) for state in last)]

    return reference


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("n", "times", "size", "hidden", "layers", "bidirectional", "bias"),
    [
        (1, 1, 1, 1, 1, False, True),
        (4, 7, 2, 5, 2, True, True),
        (2, 4, 3, 2, 3, False, False),
        (5, 3, 6, 17, 2, True, False),
    ],
)
@pytest.mark.parametrize(("with_lengths", "with_states"), [(False, False), (True, False), (True, True)])
def test_stacks(
    kind: str,
    n: int,
    times: int,
    size: int,
    hidden: int,
    layers: int,
    bidirectional: bool,
    bias: bool,
    with_lengths: bool,
    with_states: bool,
) -> None:
    ours, options, theirs = KINDS[kind]
    shared = {**options, "num_layers": layers, "bidirectional": bidirectional, "bias": bias}
    layer = ours(size, hidden, **shared, return_state=True)  # type: ignore[call-arg]
    specs: list[Any] = [(times, size)]
    data = [normal(n, times, size)]
    if with_lengths:
        specs.append(LENGTHS)
        data.append(np.random.default_rng(n).integers(1, times + 1, n))
        data[-1][0] = times  # torch pads to the longest
        data[-1][-1] = 1
    if with_states:
        state = (layers * (1 + bidirectional), hidden)
        for index in range(2 if kind == "lstm" else 1):
            specs.append(state)
            data.append(normal(n, *state, seed=index + 1))
    check_layer(layer, specs, torch_twin(theirs, size, hidden, **shared), data=data)


def test_output_alone() -> None:
    reference = torch_twin(torch.nn.LSTM, 3, 4)
    check_layer(nn.LSTM(3, 4), [(5, 3)], lambda x, **weights: reference(x, **weights)[0])


def test_long_sequences() -> None:
    check_layer(nn.GRU(3, 8, return_state=True), [(200, 3)], torch_twin(torch.nn.GRU, 3, 8), batch=2)
    check_layer(nn.LSTM(3, 8, return_state=True), [(200, 3)], torch_twin(torch.nn.LSTM, 3, 8), batch=2)


def test_names_are_those_of_torch() -> None:
    for ours, _, theirs in KINDS.values():
        layer = ours(3, 4, num_layers=2, bidirectional=True)  # type: ignore[call-arg]
        found = [(p.name, p.shape) for p in layer.parameters((5, 3))]
        module = theirs(3, 4, num_layers=2, bidirectional=True)
        assert found == [(name, tuple(p.shape)) for name, p in module.named_parameters()]


def test_dropout_between_layers() -> None:
    """The masks are those that the layer drew; the last layer's outputs are not dropped."""
    masks: list[np.ndarray] = []

    def reference(x: Tensor, **weights: Tensor) -> Tensor:
        for index in range(3):
            if index:
                x = x * torch.tensor(masks[index - 1].astype(np.float64)).transpose(0, 1)
            own = {name.replace(f"l{index}", "l0"): w for name, w in weights.items() if name.endswith(f"l{index}")}
            x = torch_twin(torch.nn.LSTM, x.shape[2], 6)(x, **own)[0]
        return x

    layer = nn.LSTM(4, 6, num_layers=3, dropout=0.25)
    forward = layer.forward_many

    def spy(inputs: Any, parameters: Any, context: LayerContext) -> Any:
        outputs = forward(inputs, parameters, context)
        if context.training:
            masks[:] = context.saved["masks"]
        return outputs

    layer.forward_many = spy  # type: ignore[method-assign]
    check_layer(layer, [(9, 4)], reference, evaluation=False, batch=8, bf16=4e-2)  # three layers, nine steps
    assert len(masks) == 2
    assert not np.array_equal(masks[0], masks[1])
    for mask in masks:
        assert set(np.unique(mask)) == {np.float32(0), np.float32(4 / 3)}
        assert (mask == 0).mean() == pytest.approx(0.25, abs=0.1)
    check_layer(nn.LSTM(4, 6, 2), [(9, 4)], lambda x, **w: torch_twin(torch.nn.LSTM, 4, 6, num_layers=2)(x, **w)[0])


# Formulas for what torch has not, and for cells in general.


def lstm_step(x: Tensor, h: Tensor, c: Tensor, w: dict[str, Tensor], suffix: str = "") -> tuple[Tensor, Tensor]:
    def get(name: str) -> Tensor:
        return w[name + suffix]

    def conv(value: Tensor, weight: Tensor) -> Tensor:
        dims = weight.ndim - 2
        if not dims:
            return value @ weight.T
        function = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)[dims - 1]
        return function(value, weight, padding=tuple(size // 2 for size in weight.shape[2:]))

    def column(vector: Tensor) -> Tensor:
        return vector.reshape(-1, *(1,) * (x.ndim - 2))

    a = conv(x, get("weight_ih")) + conv(h, get("weight_hh"))
    if f"bias_ih{suffix}" in w:
        a = a + column(get("bias_ih") + get("bias_hh"))
    i, f, g, o = a.chunk(4, 1)
    if f"weight_ci{suffix}" in w:
        i = i + c * column(get("weight_ci"))
        f = f + c * column(get("weight_cf"))
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    if f"weight_co{suffix}" in w:
        o = o + c * column(get("weight_co"))
    return torch.sigmoid(o) * torch.tanh(c), c


def over_steps(x: Tensor, lengths: Tensor | None, h: Tensor, c: Tensor, w: Any, reverse: bool) -> list[Tensor]:
    """Sample by sample, with nothing but the steps that a sample has."""
    outputs, finals = [], []
    for row in range(len(x)):
        length = x.shape[1] if lengths is None else int(lengths[row])
        state = (h[row : row + 1], c[row : row + 1])
        steps: list[Tensor] = [torch.zeros_like(state[0][0])] * x.shape[1]
        for t in reversed(range(length)) if reverse else range(length):
            state = lstm_step(x[row : row + 1, t], *state, w)
            steps[t] = state[0][0]
        outputs.append(torch.stack(steps))
        finals.append(state)
    return [torch.stack(outputs), torch.cat([s[0] for s in finals]), torch.cat([s[1] for s in finals])]


CELLS: dict[str, tuple[nn.Cell, tuple[int, ...], tuple[int, ...]]] = {
    "lstm": (nn.LSTMCell(3, 4), (3,), (4,)),
    "no bias": (nn.LSTMCell(3, 4, bias=False), (3,), (4,)),
    "peephole": (nn.LSTMCell(3, 4, peephole=True), (3,), (4,)),
    "one": (nn.LSTMCell(1, 1, peephole=True), (1,), (1,)),
    "conv1d": (nn.ConvLSTMCell(2, 3, 5, dims=1), (2, 4), (3, 4)),
    "conv2d": (nn.ConvLSTMCell(2, 3, (3, 1)), (2, 5, 4), (3, 5, 4)),
    "conv2d without peephole": (nn.ConvLSTMCell(1, 2, 3, peephole=False, bias=False), (1, 1, 3), (2, 1, 3)),
    "conv3d": (nn.ConvLSTMCell(2, 2, 3, dims=3), (2, 2, 3, 2), (2, 2, 3, 2)),
}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize(
    ("reverse", "with_lengths", "with_states"),
    [(False, False, True), (True, False, False), (False, True, False), (True, True, True)],
)
def test_cells_over_sequences(name: str, reverse: bool, with_lengths: bool, with_states: bool) -> None:
    cell, shape, state = CELLS[name]

    def reference(x: Tensor, *rest: Tensor, **w: Tensor) -> list[Tensor]:
        zeros = torch.zeros((len(x), *state), dtype=torch.float64)
        h, c = rest[-2:] if with_states else (zeros, zeros)
        return over_steps(x, rest[0] if with_lengths else None, h, c, w, reverse)

    data: list[np.ndarray] = [normal(3, 4, *shape)]
    specs: list[Any] = [(4, *shape)]
    if with_lengths:
        specs, data = [*specs, LENGTHS], [*data, np.array([2, 4, 1])]
    if with_states:
        specs, data = [*specs, state, state], [*data, normal(3, *state, seed=1), normal(3, *state, seed=2)]
    rtol = 5e-5 if name == "one" else 1e-5  # a single number, in whose gradient terms cancel
    check_layer(nn.Recurrent(cell, reverse=reverse, return_state=True), specs, reference, data=data, rtol=rtol)


def test_cells_as_layers() -> None:
    """One step, as torch's cells."""
    for ours, theirs, states in (
        (nn.RNNCell(3, 4), torch.nn.RNNCell(3, 4), 1),
        (nn.LSTMCell(3, 4), torch.nn.LSTMCell(3, 4), 2),
        (nn.GRUCell(3, 4), torch.nn.GRUCell(3, 4), 1),
        (nn.GRUCell(3, 4, bias=False), torch.nn.GRUCell(3, 4, bias=False), 1),
    ):
        module = theirs.double()

        def reference(x: Tensor, *hx: Tensor, module: Any = module, **w: Tensor) -> Any:
            state = (hx if len(hx) > 1 else hx[0]) if hx else None
            return torch.func.functional_call(module, w, (x, state))

        check_layer(ours, [(3,)], reference)
        check_layer(ours, [(3,), *[(4,)] * states], reference, batch=5)


def test_stacked_peepholes() -> None:
    layer = nn.LSTM(3, 4, peephole=True, bidirectional=True)

    def reference(x: Tensor, lengths: Tensor, **w: Tensor) -> Tensor:
        zeros = torch.zeros((len(x), 4), dtype=torch.float64)
        both = []
        for suffix, reverse in (("_l0", False), ("_l0_reverse", True)):
            own = {k.removesuffix(suffix): v for k, v in w.items() if k.endswith(suffix)}
            both.append(over_steps(x, lengths, zeros, zeros, own, reverse)[0])
        return torch.cat(both, 2)

    check_layer(layer, [(6, 3), LENGTHS], reference, data=[normal(3, 6, 3), np.array([6, 1, 4])])


@pytest.mark.parametrize("merge", ["concat", "sum"])
def test_birecurrent(merge: str) -> None:
    def reference(x: Tensor, lengths: Tensor, **w: Tensor) -> Tensor:
        zeros = torch.zeros((len(x), 4), dtype=torch.float64)
        both = []
        for direction, reverse in (("forward_", False), ("backward_", True)):
            own = {k.removeprefix(direction): v for k, v in w.items() if k.startswith(direction)}
            both.append(over_steps(x, lengths, zeros, zeros, own, reverse)[0])
        return torch.cat(both, 2) if merge == "concat" else both[0] + both[1]

    layer = nn.BiRecurrent(nn.LSTMCell(3, 4), nn.LSTMCell(3, 4, peephole=True), merge=merge)
    check_layer(layer, [(5, 3), LENGTHS], reference, data=[normal(3, 5, 3), np.array([2, 5, 1])])


MIXED = (nn.LSTMCell(3, 5, peephole=True), nn.GRUCell(5, 4), nn.LSTMCell(4, 3))


def mixed_step(x: Tensor, states: list[Tensor], w: dict[str, Tensor]) -> list[Tensor]:
    h, c = lstm_step(x, *states[:2], w, "_l0")
    gru = torch.nn.GRUCell(5, 4).double()
    own = {k.removesuffix("_l1"): v for k, v in w.items() if k.endswith("_l1")}
    m = torch.func.functional_call(gru, own, (h, states[2]))
    return [h, c, m, *lstm_step(m, *states[3:], w, "_l2")]


def mixed_states(x: Tensor, given: tuple[Tensor, ...]) -> list[Tensor]:
    return list(given) or [torch.zeros((len(x), size), dtype=torch.float64) for size in (5, 5, 4, 3, 3)]


def test_multi_cell() -> None:
    def reference(x: Tensor, *given: Tensor, **w: Tensor) -> list[Tensor]:
        states, outputs = mixed_states(x, given), []
        for t in range(x.shape[1]):
            states = mixed_step(x[:, t], states, w)
            outputs.append(states[3])
        return [torch.stack(outputs, 1), *states]

    layer = nn.Recurrent(nn.MultiRNNCell(*MIXED), return_state=True)
    check_layer(layer, [(4, 3)], reference)
    check_layer(layer, [(4, 3), (5,), (5,), (4,), (3,), (3,)], reference)
    check_layer(
        nn.Recurrent(nn.MultiRNNCell(nn.LSTMCell(3, 4))),
        [(4, 3)],
        lambda x, **w: torch_twin(torch.nn.LSTM, 3, 4)(x, **w)[0],
    )


@pytest.mark.parametrize("length", [1, 5])
def test_decoder_takes_its_own_output(length: int) -> None:
    def reference(x: Tensor, *given: Tensor, **w: Tensor) -> list[Tensor]:
        states, outputs = mixed_states(x, given), []
        for _ in range(length):
            states = mixed_step(x, states, w)
            x = states[3]
            outputs.append(x)
        return [torch.stack(outputs, 1), *states]

    layer = nn.RecurrentDecoder(nn.MultiRNNCell(*MIXED), length, return_state=True)
    check_layer(layer, [(3,)], reference)
    check_layer(layer, [(3,), (5,), (5,), (4,), (3,), (3,)], reference)


class Leaky(nn.Cell):
    """h' = decay * h + x: a user's cell with no more than it must have."""

    def state_shapes(self, input_shape: nn.Shape) -> tuple[nn.Shape, ...]:
        return (input_shape,)

    def parameters(self, input_shape: nn.Shape, *others: nn.Shape) -> list[nn.Parameter]:
        return [nn.Parameter("decay", input_shape, nn.init.Ones())]

    def step(self, z: Any, states: Any, parameters: Any) -> Any:
        return (parameters["decay"] * states[0] + z,), None

    def step_backward(self, grads: Any, states: Any, saved: Any, parameters: Any) -> Any:
        return grads[0], (parameters["decay"] * grads[0],), ()

    def accumulate(self, x, before, after, grad_z, record, parameters, gradients):  # type: ignore[no-untyped-def]
        gradients["decay"] += (grad_z * before[0]).sum(axis=0)


def test_cell_of_a_user() -> None:
    def reference(x: Tensor, decay: Tensor) -> Tensor:
        h, outputs = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            h = decay * h + x[:, t]
            outputs.append(h)
        return torch.stack(outputs, 1)

    check_layer(nn.Recurrent(Leaky()), [(5, 2, 3)], reference)


def test_large_inputs_saturate_without_overflow() -> None:
    context = LayerContext(0, Pass(), (True,), {})
    for cell in (nn.LSTMCell(1, 1, bias=False), nn.GRUCell(1, 1, bias=False)):
        parameters = {
            p.name: np.full(p.shape, -1000, dtype=np.float32) for p in cell.parameters((1,))
        }
        out = cell.forward_many((np.array([[1.0], [-1.0]], dtype=np.float32),), parameters, context)
        assert all(np.isfinite(y).all() for y in out)


@pytest.mark.parametrize("bad", [0, 6, -1])
def test_wrong_lengths_name_layer_and_sample(bad: int) -> None:
    model = nn.Sequential(nn.GRU(2, 3, name="gru"), nn.Flatten(), nn.LogSoftmax())
    program = compute.compile(model, nn.NLLLoss(), (TensorSpec((5, 2)), LENGTHS), engine="numpy")
    message = rf"layer gru \(GRU\): the length {bad} of sample 1 of the batch is not in 1..5"
    with pytest.raises(InputError, match=message):
        program.forward((normal(2, 5, 2), np.array([5, bad])))


def test_wrong_shapes_and_arguments() -> None:
    def error(layer: nn.Module, *specs: TensorSpec) -> str:
        with pytest.raises(InputError) as caught:
            compute.compile(layer, nn.NLLLoss(), specs, engine="numpy")
        return str(caught.value)

    x = TensorSpec((4, 3))
    assert "needs inputs of 2 features" in error(nn.LSTM(2, 3), x)
    assert "needs sequences (times, ...)" in error(nn.LSTM(3, 3), TensorSpec((3,)))
    assert "nn.Embedding" in error(nn.LSTM(3, 3), TensorSpec((4, 3), "int64"))
    assert "either no initial states or 2 of float32 (1, 5)" in error(nn.LSTM(3, 5), x, TensorSpec((1, 5)))
    assert "either no initial states or float32 (5)" in error(nn.Recurrent(nn.GRUCell(3, 5)), x, TensorSpec((4,)))
    decoder = nn.RecurrentDecoder(nn.GRUCell(3, 5), 2)
    assert "whose output (5,) can be its next input" in error(decoder, TensorSpec((3,)))
    with pytest.raises(InputError, match="nonlinearity must be tanh or relu"):
        nn.RNN(2, 2, nonlinearity="sigmoid")
    with pytest.raises(InputError, match="takes a cell such as"):
        nn.Recurrent(nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="kernel_size must be odd"):
        nn.ConvLSTMCell(2, 2, 4)
    with pytest.raises(InputError, match="merge must be concat or sum"):
        nn.BiRecurrent(nn.GRUCell(2, 2), nn.GRUCell(2, 2), merge="mean")
    with pytest.raises(InputError, match="takes cells such as"):
        nn.MultiRNNCell()
