"""`compute.profile`: what it counts, and that a watched program computes what it does unwatched."""

from __future__ import annotations

import numpy as np
import pytest

from compute import InputError, Program, TensorSpec, compile, initial_parameters, nn
from compute.profile import Profile, profile, table

IMAGES = TensorSpec((16, 16, 16))
RNG = np.random.default_rng(5)
X, TARGET = RNG.standard_normal((32, *IMAGES.shape), dtype=np.float32), RNG.integers(0, 10, 32)


def compiled(engine: str, precision: str = "fp32") -> Program:
    model = nn.Sequential(
        nn.Conv2d(16, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Flatten(), nn.Linear(64 * 64, 10),
        nn.LogSoftmax(),
    )  # fmt: skip
    program = compile(model, nn.NLLLoss(), IMAGES, engine, precision=precision)
    program.parameters[:] = initial_parameters(model, IMAGES, 1)
    program.parameters_changed()
    return program


def phases(found: Profile) -> set[str]:
    return {row.phase for row in found.rows}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_and_loss_are_rows_so_only_python_is_outside(precision: str) -> None:
    found = profile(compiled("onednn", precision), X, TARGET, steps=5)
    assert phases(found) == {"forward", "weights", "backward"}
    assert any(row.layers == "loss" for row in found.rows)
    copied = [row for row in found.rows if row.phase == "weights"]
    assert all(kernel.startswith("reorder ") for row in copied for kernel in row.kernels)
    assert sum(row.size_bytes for row in copied) >= 4 * 64 * 16 * 9
    forward, backward = (
        sum(row.flops for row in found.rows if row.phase == phase) for phase in ("forward", "backward")
    )
    convolution, linear = 2 * 32 * 256 * 64 * 16 * 9, 2 * 32 * 4096 * 10
    assert forward == convolution + linear
    assert backward == convolution + 2 * linear  # the gradient of the images is not wanted
    assert 0 < found.outside_s < found.step_s
    assert "outside of these calls, in Python" in table(found)


@pytest.mark.parametrize("engine", ["onednn", "mkl"])
def test_a_watched_program_computes_the_same_and_is_watched_no_more_afterwards(engine: str) -> None:
    program = compiled(engine)
    loss = program.forward_backward(X, TARGET, 1 / 32)
    gradients = program.gradients.copy()
    rows = profile(program, X, TARGET, steps=2).rows
    before = [row.seconds for row in rows]
    assert program.forward_backward(X, TARGET, 1 / 32) == loss
    np.testing.assert_array_equal(program.gradients, gradients)
    assert [row.seconds for row in rows] == before


def test_new_parameters_are_seen_while_watched() -> None:
    program, other = compiled("onednn"), compiled("onednn")
    profile(program, X, TARGET, steps=1)
    for each in (program, other):
        each.parameters *= 2
        each.parameters_changed()
    assert program.forward_backward(X, TARGET, 1 / 32) == other.forward_backward(X, TARGET, 1 / 32)


def test_an_engine_without_prepared_calls_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="profile engine onednn or mkl"):
        profile(compiled("numpy"), X, TARGET)
