"""Every layer and every fusion of layers, on each engine, against PyTorch in float64 and against finite differences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_reference import named_views, torch_forward_backward

import compute
from compute import nn

ENGINES = ("numpy", "mkl", "onednn")
TOLERANCE = 3e-5


def compare(
    engine: str, layers: list[nn.Module], input_shape: tuple[int, ...], batch: int, seed: int, threads: int = 1
) -> None:
    """Runs a network on an engine and in PyTorch; asserts that outputs, loss and gradients agree."""
    rng = np.random.default_rng(seed)
    model = nn.Sequential(*layers)
    program = compute.compile(model, nn.NLLLoss(), input_shape, engine=engine, threads=threads)
    # Not larger: where softmax saturates, the gradient is a difference of nearly equal float32.
    program.parameters[:] = compute.initial_parameters(model, input_shape, seed)
    program.gradients.fill(np.nan)
    program.parameters_changed()
    x = rng.standard_normal((batch, *input_shape), dtype=np.float32)
    target = rng.integers(0, program.output_specs[0].shape[0], batch)
    scale = 0.25
    output, loss, gradients = torch_forward_backward(
        layers, named_views(program, program.parameters), x, target, scale
    )
    assert program.forward_backward(x, target, scale) == pytest.approx(loss, rel=TOLERANCE, abs=TOLERANCE * batch)
    for name, found in named_views(program, program.gradients).items():
        size = max(1e-3, float(np.abs(gradients[name]).max()))
        np.testing.assert_allclose(found / size, gradients[name] / size, atol=2 * TOLERANCE, err_msg=name)
    size = max(1.0, float(np.abs(output).max()))
    np.testing.assert_allclose(program.forward(x) / size, output / size, atol=TOLERANCE)


@st.composite
def conv_networks(draw: st.DrawFn) -> tuple[list[nn.Module], tuple[int, ...]]:
    """conv [pool] [activation] [conv ...] flatten linear log-softmax, whose shapes fit, in varying order."""
    channels = draw(st.integers(1, 4))
    shape: tuple[int, ...] = (channels, draw(st.integers(5, 12)), draw(st.integers(5, 12)))
    first = shape
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 2))):
        out = draw(st.integers(1, 7))
        kernel = (draw(st.integers(1, min(3, shape[1]))), draw(st.integers(1, min(4, shape[2]))))
        conv = nn.Conv2d(
            shape[0],
            out,
            kernel,
            stride=(draw(st.integers(1, 2)), draw(st.integers(1, 2))),
            padding=(draw(st.integers(0, 2)), draw(st.integers(0, 2))),
            bias=draw(st.booleans()),
        )
        shape = conv.output_shape(shape)
        parts: list[nn.Module] = [conv]
        extras = draw(st.permutations(["pool", "activation"]))
        for extra in extras[: draw(st.integers(0, 2))]:
            if extra == "activation":
                parts.append(draw(st.sampled_from([nn.Tanh, nn.ReLU]))())
            elif min(shape[1:]) >= 2:
                size = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
                pool = nn.MaxPool2d(
                    size,
                    stride=(draw(st.integers(1, 3)), draw(st.integers(1, 2))),
                    padding=(draw(st.integers(0, size[0] // 2)), draw(st.integers(0, size[1] // 2))),
                )
                shape = pool.output_shape(shape)
                parts.append(pool)
        layers += parts
    features = int(np.prod(shape))
    layers += [nn.Flatten(), nn.Linear(features, 3, bias=draw(st.booleans())), nn.LogSoftmax()]
    return layers, first


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=40, deadline=None)
@given(network=conv_networks(), batch=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
def test_convolutional_networks_agree_with_torch(
    engine: str, network: tuple[list[nn.Module], tuple[int, ...]], batch: int, seed: int
) -> None:
    compare(engine, *network, batch, seed)


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    activation=st.sampled_from([nn.Tanh, nn.ReLU]),
    batch=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_fully_connected_networks_agree_with_torch(
    engine: str, sizes: list[int], activation: type[nn.Module], batch: int, seed: int
) -> None:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), activation()]
    compare(engine, [*layers, nn.LogSoftmax()], (sizes[0],), batch, seed)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "layers",
    [
        [nn.MaxPool2d(2), nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 3), nn.LogSoftmax()],
        [nn.Tanh(), nn.Conv2d(2, 3, 3), nn.Tanh(), nn.ReLU(), nn.Flatten(), nn.Linear(108, 3), nn.LogSoftmax()],
        [nn.Conv2d(2, 3, 3), nn.MaxPool2d(2), nn.MaxPool2d(3, 1, 1), nn.Flatten(), nn.Linear(27, 3), nn.LogSoftmax()],
        [nn.Flatten(), nn.Linear(128, 18), nn.Reshape(2, 3, -1), nn.Conv2d(2, 2, 2), nn.Flatten(), nn.LogSoftmax()],
        [nn.Conv2d(2, 1, 8), nn.Reshape(1), nn.LogSoftmax()],
        [nn.Conv2d(2, 3, 3, stride=3, padding=1), nn.Conv2d(3, 2, 1), nn.Flatten(), nn.ReLU(), nn.LogSoftmax()],
        [nn.Flatten(), nn.Linear(128, 5)],
    ],
    ids=["pool first", "tanh first", "two pools", "dense to image", "whole image", "stride 3", "no softmax"],
)
def test_unusual_orders_agree_with_torch(engine: str, layers: list[nn.Module]) -> None:
    compare(engine, layers, (2, 8, 8), 5, 1)


@pytest.mark.parametrize("engine", ["numpy", "onednn"])
def test_calls_large_enough_for_two_threads_agree_with_torch(engine: str) -> None:
    layers = [
        nn.Conv2d(16, 32, 3, padding=1),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 14 * 14, 100),
        nn.LogSoftmax(),
    ]
    compare(engine, layers, (16, 32, 32), 16, 1, threads=2)


def test_mkl_refuses_threads_where_pytorch_s_openmp_came_first() -> None:
    """This process has imported PyTorch; MKL's own two threads are tried in test_compute_determinism."""
    with pytest.raises(compute.InputError, match="engine mkl cannot use several threads here"):
        compute.compile(compute.models.lenet5(), nn.NLLLoss(), (1, 28, 28), engine="mkl", threads=2)


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_agree_with_finite_differences(engine: str) -> None:
    layers = [
        nn.Conv2d(2, 4, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(4, 3, 2, stride=2),
        nn.Flatten(),
        nn.Linear(27, 8),
        nn.Tanh(),
        nn.Linear(8, 4),
        nn.LogSoftmax(),
    ]
    rng = np.random.default_rng(3)
    program = compute.compile(nn.Sequential(*layers), nn.NLLLoss(), (2, 6, 6), engine=engine)
    start = rng.standard_normal(program.parameters.size, dtype=np.float32) * np.float32(0.3)
    x, target = rng.standard_normal((16, 2, 6, 6), dtype=np.float32), rng.integers(0, 4, 16)
    program.parameters[:] = start
    program.parameters_changed()
    program.forward_backward(x, target, 1.0)
    gradients = program.gradients.astype(np.float64)
    step = 2e-3
    for parameter in program.graph.parameters:
        direction = np.zeros_like(start)
        span = slice(parameter.offset, parameter.offset + parameter.size)
        direction[span] = np.sign(gradients[span]) + (gradients[span] == 0)
        losses = []
        for sign in (1, -1):
            program.parameters[:] = start + np.float32(sign * step) * direction
            program.parameters_changed()
            losses.append(program.forward_backward(x, target, 1.0))
        slope = (losses[0] - losses[1]) / (2 * step)
        assert slope == pytest.approx(float(gradients @ direction), rel=0.02), parameter.name


@pytest.mark.parametrize("engine", ENGINES)
def test_a_forward_uses_parameters_as_last_announced(engine: str) -> None:
    program = compute.compile(
        nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.LogSoftmax()), nn.NLLLoss(), (1, 3, 3), engine=engine
    )
    x = np.ones((2, 1, 3, 3), dtype=np.float32)
    before = program.forward(x).copy()
    program.parameters[:4] = 1.0
    program.parameters_changed()
    after = program.forward(x).copy()
    assert not np.array_equal(before, after)
    assert after[0, 0] - after[0, 4] == pytest.approx(4.0, abs=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_flat_vectors_are_aligned(engine: str) -> None:
    program = compute.compile(compute.models.lenet5(), nn.NLLLoss(), (1, 28, 28), engine=engine)
    for flat in (program.parameters, program.gradients):
        assert flat.ctypes.data % 64 == 0
        assert flat.flags.c_contiguous
        assert flat.dtype == np.float32
        assert flat.shape == (22278,)


@pytest.mark.parametrize("engine", ENGINES)
def test_wrong_calls_are_refused(engine: str) -> None:
    program = compute.compile(nn.Sequential(nn.Linear(3, 2), nn.LogSoftmax()), nn.NLLLoss(), (3,), engine=engine)
    x = np.zeros((4, 3), dtype=np.float32)
    for bad in (-1, 2, 2**62):
        with pytest.raises(compute.InputError, match=rf"label {bad} is not in 0\.\.1"):
            program.forward_backward(x, np.array([0, 1, bad, 0]), 1.0)
    with pytest.raises(compute.InputError, match=r"takes float32 \(n, 3\)"):
        program.forward(np.zeros((4, 2), dtype=np.float32))
    with pytest.raises(compute.InputError, match="float64"):
        program.forward(np.zeros((4, 3)))  # type: ignore[arg-type]
    with pytest.raises(compute.InputError, match="there are 4 samples, but a target of shape"):
        program.forward_backward(x, np.zeros(3, dtype=np.int64), 1.0)
    with pytest.raises(compute.InputError, match="NLLLoss needs log-probabilities"):
        program.forward_backward(x, np.zeros(4, dtype=np.float32), 1.0)
