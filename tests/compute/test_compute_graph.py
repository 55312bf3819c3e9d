"""Containers, tables, wired graphs and shared layers on the engine numpy, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import compute
from compute import InputError, nn, optim
from compute.graph import build_graph


@pytest.fixture(params=["numpy", "mkl", "onednn"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def program_of(model: nn.Module, inputs: compute.spec.SpecsLike, engine: str) -> compute.Program:
    program = compute.compile(model, nn.NLLLoss(), inputs, engine=engine)
    program.parameters[:] = compute.initial_parameters(model, inputs, 3)
    program.parameters_changed()
    return program


def parameter(program: compute.Program, name: str) -> torch.Tensor:
    found = next(p for p in program.graph.parameters if p.name == name)
    return torch.tensor(program.parameters[found.span].reshape(found.spec.shape), requires_grad=True)


def test_shared_layers_branches_and_time_distribution(engine: str) -> None:
    """One Linear in two branches of a table, whose sum and join go through a time-distributed layer."""
    shared = nn.Linear(6, 6, name="shared")
    a, b = nn.Input(), nn.Input()
    summed = nn.CAddTable()(shared(a), nn.Tanh()(shared(b)))
    joined = nn.JoinTable(0)(nn.Reshape(2, 3)(summed), nn.Reshape(2, 3)(b))
    steps = nn.TimeDistributed(nn.Sequential(nn.Linear(3, 2, name="step"), nn.ReLU()), name="td")(joined)
    model = nn.Graph([a, b], nn.LogSoftmax()(nn.Flatten()(steps)))
    specs = (compute.TensorSpec((6,)), compute.TensorSpec((6,)))
    program = program_of(model, specs, engine)
    rng = np.random.default_rng(1)
    x = (rng.standard_normal((5, 6), dtype=np.float32), rng.standard_normal((5, 6), dtype=np.float32))
    target = rng.integers(0, 8, 5)
    loss = program.forward_backward(x, target, 0.2)

    weights = {name: parameter(program, name) for name in ("shared.weight", "shared.bias")}
    step = next(p.name for p in program.graph.parameters if p.name.endswith("step.weight"))
    weights |= {name: parameter(program, name) for name in (step, step.replace("weight", "bias"))}
    assert len(program.graph.parameters) == 4
    ta, tb = map(torch.tensor, x)
    linear = torch.nn.functional.linear
    w, bias = weights["shared.weight"], weights["shared.bias"]
    total = linear(ta, w, bias) + torch.tanh(linear(tb, w, bias))
    sequence = torch.cat([total.reshape(5, 2, 3), tb.reshape(5, 2, 3)], 1)
    out = torch.relu(linear(sequence, weights[step], weights[step.replace("weight", "bias")])).flatten(1)
    expected = torch.nn.functional.nll_loss(torch.log_softmax(out, 1), torch.tensor(target), reduction="sum")
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    (0.2 * expected).backward()
    for p in program.graph.parameters:
        grad = weights[p.name].grad
        assert grad is not None
        np.testing.assert_allclose(
            program.gradients[p.span].reshape(p.spec.shape), grad.numpy(), rtol=1e-5, atol=1e-6
        )


def test_concat_and_parallel_tables(engine: str) -> None:
    model = nn.Sequential(
        nn.ConcatTable(nn.Linear(4, 3), nn.Linear(4, 5)),
        nn.ParallelTable(nn.ReLU(), nn.Tanh()),
        nn.JoinTable(0),
        nn.Concat(nn.Linear(8, 2), nn.Linear(8, 1)),
        nn.LogSoftmax(),
    )
    program = program_of(model, (4,), engine)
    x = np.random.default_rng(0).standard_normal((3, 4), dtype=np.float32)
    w = {p.name: torch.tensor(program.parameters[p.span].reshape(p.spec.shape)) for p in program.graph.parameters}
    linear = torch.nn.functional.linear
    t = torch.tensor(x)

    def apply(name: str, value: torch.Tensor) -> torch.Tensor:
        return linear(value, w[f"{name}.weight"], w[f"{name}.bias"])

    left, right = apply("concattable_0.linear_0", t), apply("concattable_0.linear_1", t)
    joined = torch.cat([torch.relu(left), torch.tanh(right)], 1)
    out = torch.cat([apply("concat_3.linear_0", joined), apply("concat_3.linear_1", joined)], 1)
    np.testing.assert_allclose(program.forward(x), torch.log_softmax(out, 1).numpy(), rtol=1e-5, atol=1e-6)


def test_sequences_shorter_than_compiled_for(engine: str) -> None:
    model = nn.Sequential(nn.TimeDistributed(nn.Linear(3, 2, name="l")), nn.Reshape(-1), nn.LogSoftmax())
    program = program_of(model, (7, 3), engine)
    x = np.ones((2, 4, 3), dtype=np.float32)
    assert program.forward(x).shape == (2, 8)
    assert program.forward(np.ones((2, 7, 3), dtype=np.float32)).shape == (2, 14)


def test_frozen_layers_get_no_gradient_and_stop_backward(engine: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4, name="first"), nn.Tanh(), nn.Linear(4, 2, name="last"), nn.LogSoftmax())
    model.freeze("first")
    program = program_of(model, (4,), engine)
    program.forward_backward(np.ones((2, 4), dtype=np.float32), np.array([0, 1]), 1.0)
    first = [p for p in program.graph.parameters if p.name.startswith("first")]
    assert all(not program.gradients[p.span].any() for p in first)
    assert program.gradients.any()
    layout = {info.name: info for info in compute.parameter_layout(model, (4,))}
    assert layout["first.weight"].frozen
    assert not layout["last.weight"].frozen
    model.unfreeze().regularize(weight=nn.L2(0.5)).scale_rate(2.0, bias=1.0)
    layout = {info.name: info for info in compute.parameter_layout(model, (4,))}
    assert (layout["first.weight"].l2, layout["first.bias"].l2) == (0.5, 0.0)
    assert (layout["last.weight"].learning_rate_scale, layout["last.bias"].learning_rate_scale) == (2.0, 1.0)


def test_errors_name_the_layer() -> None:
    def error(model: nn.Module, inputs: compute.spec.SpecsLike = (4,)) -> str:
        with pytest.raises(InputError) as caught:
            build_graph(model, inputs)
        return str(caught.value)

    assert "two layers are called a" in error(nn.Sequential(nn.Linear(4, 4, name="a"), nn.Linear(4, 4, name="a")))
    assert "layer l (Linear) cannot take float32 (4): needs (..., 3)" in error(nn.Linear(3, 2, name="l"))
    assert "takes 1 input(s) and is given 2" in error(
        nn.Sequential(nn.ConcatTable(nn.Tanh(), nn.Tanh()), nn.ReLU(name="r"))
    )
    assert "nested table" in error(
        nn.Sequential(nn.ConcatTable(nn.Tanh(), nn.ConcatTable(nn.Tanh(), nn.Tanh())), nn.CAddTable())
    )
    assert "takes float32" in error(nn.Tanh(name="t"), compute.TensorSpec((4,), "int64"))
    a, b = nn.Input(), nn.Input()
    with pytest.raises(InputError, match="input 1 is not connected"):
        nn.Graph([a, b], nn.Tanh()(a))
    with pytest.raises(InputError, match="not among the graph's inputs"):
        nn.Graph([a], nn.CAddTable()(a, b))
    with pytest.raises(InputError, match="no module is named x; the named ones are: y"):
        nn.Sequential(nn.Tanh(name="y")).freeze("x")


def test_a_frozen_batch_norm_keeps_its_statistics(engine: str) -> None:
    """It computes as in evaluation, and the update touches neither its weights nor its statistics."""
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, name="norm"), nn.Linear(3, 2), nn.LogSoftmax())
    model.freeze("norm")
    program = program_of(model, (4,), engine)
    norm = [p for p in program.graph.parameters if p.name.startswith("norm")]
    before = {p.name: program.parameters[p.span].copy() for p in norm}
    rest = program.parameters.copy()
    program.forward_backward(np.ones((5, 4), dtype=np.float32), np.zeros(5, dtype=np.int64), 0.2)
    update = optim.ParameterUpdate(compute.parameter_layout(model, (4,)), optim.SGD(0.1))
    update.step(program.parameters, program.gradients, 1, 1)
    for p in norm:
        assert program.parameters[p.span].tobytes() == before[p.name].tobytes(), p.name
    assert (program.parameters != rest).any()
