"""oneDNN's recurrent layers through our binding, against PyTorch's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from compute.engines import dnnl
from compute.engines.dnnl import Cell, Direction
from tests.compute.dnnl_runner import TYPES, check, double, fetch, random_array, run

GATES = {Cell.RNN: 1, Cell.LSTM: 4, Cell.LBR_GRU: 3}
MODULES = {Cell.RNN: torch.nn.RNN, Cell.LSTM: torch.nn.LSTM, Cell.LBR_GRU: torch.nn.GRU}
# Our gates in PyTorch's order.
ORDER = {Cell.RNN: [0], Cell.LSTM: [0, 1, 2, 3], Cell.LBR_GRU: [1, 0, 2]}
STATES = {
    dnnl.SRC_ITER: "src_iter",
    dnnl.SRC_ITER_C: "src_iter_c",
    dnnl.DST_ITER: "dst_iter",
    dnnl.DST_ITER_C: "dst_iter_c",
}


def torch_twin(
    cell: Cell, layers: int, bidirectional: bool, weights: dict[int, np.ndarray]
) -> tuple[torch.nn.Module, dict[int, list[torch.Tensor]]]:
    """PyTorch's module with our weights, and for each of our arguments its parameters by (layer, direction)."""
    size, inputs, states = weights[dnnl.BIAS].shape[-1], weights[dnnl.WEIGHTS_LAYER].shape[2], {}
    module = MODULES[cell](inputs, size, layers, bidirectional=bidirectional).double()
    for argument, name in ((dnnl.WEIGHTS_LAYER, "weight_ih"), (dnnl.WEIGHTS_ITER, "weight_hh")):
        states[argument] = []
        for layer in range(layers):
            for direction in range(1 + bidirectional):
                parameter = getattr(module, f"{name}_l{layer}" + ("_reverse" if direction else ""))
                # (in, gates, H) to (gates * H, in)
                ours = weights[argument][layer, direction][:, ORDER[cell]].transpose(1, 2, 0)
                parameter.data = torch.tensor(ours.reshape(parameter.shape).astype(np.float64))
                states[argument].append(parameter)
    states[dnnl.BIAS] = []
    for layer in range(layers):
        for direction in range(1 + bidirectional):
            suffix = f"_l{layer}" + ("_reverse" if direction else "")
            inside, state = getattr(module, f"bias_ih{suffix}"), getattr(module, f"bias_hh{suffix}")
            ours = weights[dnnl.BIAS][layer, direction].astype(np.float64)
            inside.data = torch.tensor(ours[ORDER[cell]].ravel())
            state.data = torch.zeros_like(inside)
            if cell is Cell.LBR_GRU:
                state.data[2 * size :] = torch.tensor(ours[3])
            states[dnnl.BIAS] += [inside, state]
    return module, states


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("cell", GATES, ids=str)
@pytest.mark.parametrize(
    ("layers", "direction", "steps", "samples", "inputs", "size"),
    [
        (1, Direction.LEFT_TO_RIGHT, 5, 3, 7, 9),
        (1, Direction.BIDIRECTIONAL_CONCAT, 4, 2, 16, 16),
        (2, Direction.LEFT_TO_RIGHT, 3, 4, 8, 8),
        (1, Direction.LEFT_TO_RIGHT, 1, 1, 1, 1),
    ],
    ids=str,
)
def test_recurrent(
    cell: Cell,
    layers: int,
    direction: Direction,
    steps: int,
    samples: int,
    inputs: int,
    size: int,
    dtype: dnnl.DataType,
) -> None:
    rng = np.random.default_rng(1)
    bidirectional = direction is Direction.BIDIRECTIONAL_CONCAT
    directions, gates = 1 + bidirectional, GATES[cell]
    state = (layers, directions, samples, size)
    shapes = {
        dnnl.SRC_LAYER: (steps, samples, inputs),
        dnnl.WEIGHTS_LAYER: (layers, directions, inputs, gates, size),
        dnnl.WEIGHTS_ITER: (layers, directions, size, gates, size),
        dnnl.BIAS: (layers, directions, gates + (cell is Cell.LBR_GRU), size),
        dnnl.DST_LAYER: (steps, samples, directions * size),
        dnnl.SRC_ITER: state,
        dnnl.DST_ITER: state,
    }
    if cell is Cell.LSTM:
        shapes |= {dnnl.SRC_ITER_C: state, dnnl.DST_ITER_C: state}
    float32 = {dnnl.BIAS, dnnl.SRC_ITER_C, dnnl.DST_ITER_C}
    kinds = {argument: dnnl.F32 if argument in float32 else dtype for argument in shapes}
    values = {a: random_array(rng, *shape, dtype=kinds[a]) / 2 for a, shape in shapes.items()}

    api = dnnl.Api()
    weights = (dnnl.WEIGHTS_LAYER, dnnl.WEIGHTS_ITER)
    names = {
        dnnl.SRC_LAYER: "src_layer",
        dnnl.WEIGHTS_LAYER: "weights_layer",
        dnnl.WEIGHTS_ITER: "weights_iter",
        dnnl.BIAS: "bias",
        dnnl.DST_LAYER: "dst_layer",
        **STATES,
    }

    def sequence(gradients: bool) -> dnnl.Sequence:
        found = {}
        for argument, shape in shapes.items():
            kind = dnnl.F32 if gradients else kinds[argument]
            found[names[argument]] = api.any(shape, kind) if argument in weights else api.strided(shape, dtype=kind)
        return dnnl.Sequence(**found)

    ours, grads = sequence(False), sequence(True)
    forward = dnnl.recurrent(api, cell, ours, direction)
    outputs = [a for a in (dnnl.DST_LAYER, dnnl.DST_ITER, dnnl.DST_ITER_C) if a in shapes]
    inputs_of = {a: values[a] for a in shapes if a not in outputs}
    out = run(forward, inputs_of, [*outputs, dnnl.WORKSPACE])

    module, parameters = torch_twin(cell, layers, bidirectional, values)
    leaves = {a: double(values[a]) for a in (dnnl.SRC_LAYER, dnnl.SRC_ITER, dnnl.SRC_ITER_C) if a in shapes}
    flat = [leaves[a].reshape(-1, samples, size) for a in (dnnl.SRC_ITER, dnnl.SRC_ITER_C) if a in shapes]
    y, last = module(leaves[dnnl.SRC_LAYER], tuple(flat) if cell is Cell.LSTM else flat[0])
    results = [y, *(last if cell is Cell.LSTM else [last])]
    for argument, result in zip(outputs, results, strict=True):
        check(fetch(out[argument]), result.reshape(shapes[argument]), dtype)

    backward = dnnl.recurrent_backward(forward, ours, grads)
    assert backward.flops == 2 * forward.flops
    grad_outputs = {a: random_array(rng, *shapes[a]) for a in outputs}
    # Weights go into the backward operation's layouts, all else stays.
    known = {a: out[a] for a in [*shapes, dnnl.WORKSPACE] if a not in weights} | {a: values[a] for a in weights}
    diffs = [dnnl.diff(a) for a in shapes if a not in outputs]
    out = run(backward, {**known, **{dnnl.diff(a): g for a, g in grad_outputs.items()}}, diffs)
    loss = sum(
        (result.reshape(shapes[a]) * double(grad_outputs[a], False)).sum()
        for a, result in zip(outputs, results, strict=True)
    )
    loss.backward()
    for argument, leaf in leaves.items():
        check(fetch(out[dnnl.diff(argument)]), leaf.grad, dtype)
    for argument in weights:
        gradient = torch.stack(
            [p.grad.reshape(gates, size, -1)[ORDER[cell]].permute(2, 0, 1) for p in parameters[argument]]
        )
        check(fetch(out[dnnl.diff(argument)]), gradient.reshape(shapes[argument]), dtype)
    rows = []
    for inside, hidden in zip(parameters[dnnl.BIAS][::2], parameters[dnnl.BIAS][1::2], strict=True):
        row = inside.grad.reshape(gates, size)[ORDER[cell]]
        if cell is Cell.LBR_GRU:
            row = torch.cat([row, hidden.grad[2 * size :].reshape(1, size)])
        rows.append(row)
    check(fetch(out[dnnl.DIFF_BIAS]), torch.stack(rows).reshape(shapes[dnnl.BIAS]), dtype)

    inference = dnnl.recurrent(api, cell, ours, direction, training=False)
    assert inference.workspace is None
    out = run(inference, inputs_of, outputs)
    check(fetch(out[dnnl.DST_LAYER]), y, dtype)


def test_lstm_with_peepholes() -> None:
    """Against the formula: gates i, f see the old cell state, o the new one."""
    rng = np.random.default_rng(2)
    steps, samples, inputs, size = 3, 2, 4, 5
    x, w = random_array(rng, steps, samples, inputs), random_array(rng, 1, 1, inputs, 4, size)
    u, b = random_array(rng, 1, 1, size, 4, size), random_array(rng, 1, 1, 4, size)
    p, state = random_array(rng, 1, 1, 3, size), (1, 1, samples, size)
    api = dnnl.Api()
    sequence = dnnl.Sequence(
        api.strided(x.shape),
        api.strided(state),
        api.any(w.shape),
        api.any(u.shape),
        api.strided(b.shape),
        api.strided((steps, samples, size)),
        src_iter_c=api.strided(state),
        weights_peephole=api.strided(p.shape),
    )
    forward = dnnl.recurrent(api, Cell.LSTM, sequence)
    given = {
        dnnl.SRC_LAYER: x,
        dnnl.SRC_ITER: random_array(rng, *state),
        dnnl.SRC_ITER_C: random_array(rng, *state),
        dnnl.WEIGHTS_LAYER: w,
        dnnl.WEIGHTS_ITER: u,
        dnnl.WEIGHTS_PEEPHOLE: p,
        dnnl.BIAS: b,
    }
    out = run(forward, given, [dnnl.DST_LAYER, dnnl.WORKSPACE])
    tensors = {argument: double(value) for argument, value in given.items()}
    tw, tu, tp, tb = (
        tensors[a][0, 0] for a in (dnnl.WEIGHTS_LAYER, dnnl.WEIGHTS_ITER, dnnl.WEIGHTS_PEEPHOLE, dnnl.BIAS)
    )
    h, c = tensors[dnnl.SRC_ITER][0, 0], tensors[dnnl.SRC_ITER_C][0, 0]
    ys = []
    for step in range(steps):
        gates = torch.einsum("nc,cgh->ngh", tensors[dnnl.SRC_LAYER][step], tw) + torch.einsum("nc,cgh->ngh", h, tu) + tb
        i, f = torch.sigmoid(gates[:, 0] + tp[0] * c), torch.sigmoid(gates[:, 1] + tp[1] * c)
        c = f * c + i * torch.tanh(gates[:, 2])
        h = torch.sigmoid(gates[:, 3] + tp[2] * c) * torch.tanh(c)
        ys.append(h)
    y = torch.stack(ys)
    check(fetch(out[dnnl.DST_LAYER]), y, dnnl.F32)
    backward = dnnl.recurrent_backward(forward, sequence, sequence)
    weights = (dnnl.WEIGHTS_LAYER, dnnl.WEIGHTS_ITER)
    known = {a: memory for a, memory in out.items() if a not in weights}
    grad_y = random_array(rng, *y.shape)
    out = run(
        backward,
        {**known, **{a: given[a] for a in weights}, dnnl.diff(dnnl.DST_LAYER): grad_y},
        [dnnl.diff(a) for a in given],
    )
    (y * double(grad_y, False)).sum().backward()
    for argument in given:
        check(fetch(out[dnnl.diff(argument)]), tensors[argument].grad, dnnl.F32)


def test_gru_that_resets_before_the_product() -> None:
    rng = np.random.default_rng(3)
    steps, samples, inputs, size = 3, 2, 4, 5
    api = dnnl.Api()
    given = {
        dnnl.SRC_LAYER: random_array(rng, steps, samples, inputs),
        dnnl.SRC_ITER: random_array(rng, 1, 1, samples, size),
        dnnl.WEIGHTS_LAYER: random_array(rng, 1, 1, inputs, 3, size),
        dnnl.WEIGHTS_ITER: random_array(rng, 1, 1, size, 3, size),
        dnnl.BIAS: random_array(rng, 1, 1, 3, size),
    }
    weights = (dnnl.WEIGHTS_LAYER, dnnl.WEIGHTS_ITER)
    layouts = [
        (api.any if argument in weights else api.strided)(given[argument].shape)
        for argument in (dnnl.SRC_LAYER, dnnl.SRC_ITER, *weights, dnnl.BIAS)
    ]
    sequence = dnnl.Sequence(*layouts, api.strided((steps, samples, size)))
    forward = dnnl.recurrent(api, Cell.GRU, sequence)
    out = run(forward, given, [dnnl.DST_LAYER, dnnl.WORKSPACE])
    tensors = {argument: double(value) for argument, value in given.items()}
    w, u, b = (tensors[argument][0, 0] for argument in (*weights, dnnl.BIAS))
    h, ys = tensors[dnnl.SRC_ITER][0, 0], []
    for step in range(steps):
        gates = torch.einsum("nc,cgh->ngh", tensors[dnnl.SRC_LAYER][step], w) + b
        update, reset = (torch.sigmoid(gates[:, gate] + h @ u[:, gate]) for gate in range(2))
        h = update * h + (1 - update) * torch.tanh(gates[:, 2] + (reset * h) @ u[:, 2])
        ys.append(h)
    y = torch.stack(ys)
    check(fetch(out[dnnl.DST_LAYER]), y, dnnl.F32)
    grad_y = random_array(rng, *y.shape)
    backward = dnnl.recurrent_backward(forward, sequence, sequence)
    known = {a: memory for a, memory in out.items() if a not in weights} | {a: given[a] for a in weights}
    out = run(backward, {**known, dnnl.diff(dnnl.DST_LAYER): grad_y}, [dnnl.diff(a) for a in given])
    (y * double(grad_y, False)).sum().backward()
    for argument in given:
        check(fetch(out[dnnl.diff(argument)]), tensors[argument].grad, dnnl.F32)


@pytest.mark.parametrize(
    ("activation", "function"), [(dnnl.Eltwise.RELU, torch.relu), (dnnl.Eltwise.LOGISTIC, torch.sigmoid)], ids=str
)
@pytest.mark.parametrize("direction", [Direction.LEFT_TO_RIGHT, Direction.RIGHT_TO_LEFT], ids=str)
def test_plain_rnn_with_other_activations(direction: Direction, activation: dnnl.Eltwise, function: Callable) -> None:
    rng = np.random.default_rng(4)
    x, state = random_array(rng, 3, 2, 4), random_array(rng, 1, 1, 2, 5)
    w, u, b = random_array(rng, 1, 1, 4, 1, 5), random_array(rng, 1, 1, 5, 1, 5), random_array(rng, 1, 1, 1, 5)
    api = dnnl.Api()
    shapes = (api.strided(x.shape), api.strided(state.shape), api.any(w.shape), api.any(u.shape), api.strided(b.shape))
    sequence = dnnl.Sequence(*shapes, api.strided((3, 2, 5)))
    forward = dnnl.recurrent(api, Cell.RNN, sequence, direction, activation, training=False)
    given = zip(
        (dnnl.SRC_LAYER, dnnl.SRC_ITER, dnnl.WEIGHTS_LAYER, dnnl.WEIGHTS_ITER, dnnl.BIAS),
        (x, state, w, u, b),
        strict=True,
    )
    out = run(forward, dict(given), [dnnl.DST_LAYER])
    h, expected = double(state[0, 0]), [torch.empty(0)] * 3
    for step in range(3) if direction is Direction.LEFT_TO_RIGHT else reversed(range(3)):
        h = expected[step] = function(
            double(x[step]) @ double(w[0, 0, :, 0]) + h @ double(u[0, 0, :, 0]) + double(b[0, 0])
        )
    check(fetch(out[dnnl.DST_LAYER]), torch.stack(expected), dnnl.F32)
