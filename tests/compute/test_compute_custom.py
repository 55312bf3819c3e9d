"""Layers that users write, in every engine and across processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import compute
from compute import InputError, nn

ENGINES = ("numpy", "mkl", "onednn")
ROOT = Path(__file__).parents[2]


class Scale(nn.CustomLayer):
    """Multiplies by one trained factor per channel."""

    def parameters(self, input_shape: nn.Shape) -> list[nn.Parameter]:
        return [nn.Parameter("factor", (input_shape[0],), nn.init.RandomUniform(0.5, 1.5))]

    def forward(self, x, parameters, context):  # type: ignore[no-untyped-def]
        return x * parameters["factor"][:, None, None]

    def backward(self, x, y, grad_y, parameters, gradients, context):  # type: ignore[no-untyped-def]
        gradients["factor"][:] = (grad_y * x).sum(axis=(0, 2, 3))
        return grad_y * parameters["factor"][:, None, None]


class Noise(nn.CustomLayer):
    """Multiplicative noise in training; remembers it for the backward pass."""

    def forward(self, x, parameters, context):  # type: ignore[no-untyped-def]
        if not context.training:
            return x
        context.saved["factor"] = context.stream().uniform(x.shape)
        return x * context.saved["factor"]

    def backward(self, x, y, grad_y, parameters, gradients, context):  # type: ignore[no-untyped-def]
        return grad_y * context.saved["factor"]


class WrongShape(nn.CustomLayer):
    """Promises its input's shape and returns another."""

    def forward(self, x, parameters, context):  # type: ignore[no-untyped-def]
        return x[:, :1]


def network(*middle: nn.Module) -> nn.Sequential:
    """A convolution, the given layers, and a classifier."""
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.Tanh(), *middle, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 4), nn.LogSoftmax()
    )


def run(engine: str, model: nn.Module, key: tuple[int, int, int]) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, gradients and evaluation output on fixed data."""
    program = compute.compile(model, nn.NLLLoss(), (1, 6, 6), engine=engine)
    program.parameters[:] = compute.initial_parameters(model, (1, 6, 6), 7)
    program.parameters_changed()
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((5, 1, 6, 6), dtype=np.float32), rng.integers(0, 4, 5)
    loss = program.forward_backward(x, target, 0.2, key)
    return loss, program.gradients.copy(), program.forward(x).copy()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_layer_with_parameters_trains(engine: str) -> None:
    model = network(Scale(name="scale"))
    names = [info.name for info in compute.parameter_layout(model, (1, 6, 6))]
    assert names[2] == "scale.factor"
    start = compute.initial_parameters(model, (1, 6, 6), 7)
    assert start[30:33].min() >= 0.5
    assert start[30:33].max() < 1.5
    program = compute.compile(model, nn.NLLLoss(), (1, 6, 6), engine=engine)
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((5, 1, 6, 6), dtype=np.float32), rng.integers(0, 4, 5)
    losses = []
    step = 1e-3
    for shift in (step, -step, 0.0):
        program.parameters[:] = start
        program.parameters[30:33] += np.float32(shift)
        program.parameters_changed()
        losses.append(program.forward_backward(x, target, 1.0))
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(float(program.gradients[30:33].sum()), rel=0.02)


@pytest.mark.parametrize("engine", ENGINES)
def test_random_layers_follow_the_key(engine: str) -> None:
    model = network(Noise(), Noise())
    loss, gradients, output = run(engine, model, (1, 2, 3))
    again = run(engine, model, (1, 2, 3))
    assert loss == again[0]
    assert gradients.tobytes() == again[1].tobytes()
    other = run(engine, model, (1, 2, 4))
    assert other[0] != loss
    assert other[2].tobytes() == output.tobytes()


@pytest.mark.parametrize("engine", ["mkl", "onednn"])
def test_engines_agree_on_custom_layers(engine: str) -> None:
    for model in (network(Scale(), Noise()), nn.Sequential(Scale(), *network())):
        expected = run("numpy", model, (3, 1, 0))
        found = run(engine, model, (3, 1, 0))
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_wrong_shape_names_layer_and_shapes(engine: str) -> None:
    with pytest.raises(
        InputError,
        match=r"layer odd \(WrongShape\): forward must return shape \(5, 3, 4, 4\), returned \(5, 1, 4, 4\)",
    ):
        run(engine, network(WrongShape(name="odd")), (0, 0, 0))


def test_an_unknown_layer_says_what_to_derive_from() -> None:
    class Odd(nn.Module):
        def output_shape(self, input_shape: nn.Shape) -> nn.Shape:
            return input_shape

    for engine in ENGINES:
        with pytest.raises(InputError, match=r"derive your own .*nn\.CustomLayer"):
            run(engine, network(Odd()), (0, 0, 0))


PRODUCER = """
import sys
import cloudpickle, numpy as np
from compute import data, models, nn, optim, trigger, TrainingSpec

class Double(nn.CustomLayer):
    def forward(self, x, parameters, context):
        return 2 * x
    def backward(self, x, y, grad_y, parameters, gradients, context):
        return 2 * grad_y

class Invert(data.Transform):
    def apply(self, x, target, stream):
        return FACTOR - x, target

FACTOR = 1.0
model = nn.Sequential(nn.Flatten(), Double(), nn.Linear(4, 2), nn.LogSoftmax())
dataset = data.from_arrays(np.zeros((6, 1, 2, 2), np.uint8), np.arange(6) % 2, 2) >> data.to_float() >> Invert()
spec = TrainingSpec(model, nn.NLLLoss(), dataset, optim.SGD(0.1), 2, trigger.max_epoch(1))
spec.check()
sys.stdout.buffer.write(cloudpickle.dumps(spec))
"""

CONSUMER = """
import sys, pickle
import numpy as np
import compute
spec = pickle.loads(sys.stdin.buffer.read())
spec.check()
x, target = spec.dataset.batch(np.arange(2), (1, 1, 0))
assert (x == 1).all()
for engine in ("numpy", "mkl", "onednn"):
    program = compute.compile(spec.model, spec.criterion, spec.dataset.sample_shape, engine=engine)
    program.parameters[:] = compute.initial_parameters(spec.model, spec.dataset.sample_shape, 1)
    program.parameters_changed()
    program.forward_backward(x, target, 0.5, (1, 1, 0))
    print(np.abs(program.gradients).sum() > 0)
"""


def test_classes_of_a_script_work_where_the_script_is_not(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    script = tmp_path / "script.py"
    script.write_text(PRODUCER)
    made = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, timeout=60, check=False)
    assert made.returncode == 0, made.stderr.decode()
    script.unlink()
    used = subprocess.run(
        [sys.executable, "-c", CONSUMER],
        env=environment,
        input=made.stdout,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert used.returncode == 0, used.stderr.decode()
    assert used.stdout.split() == [b"True"] * 3
