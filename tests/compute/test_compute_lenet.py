"""LeNet-5 end to end: against PyTorch, over some training steps, and its first weights."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch_reference import named_views, torch_forward_backward

import compute
from compute import data, models, nn, optim

ENGINES = ("numpy", "mkl", "onednn")
SHAPE = (1, 28, 28)


def blobs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images with a bright square at the place that their label names, and noise."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 10, count)
    x = rng.standard_normal((count, *SHAPE), dtype=np.float32)
    for image, label in zip(x, target, strict=True):
        row, column = 2 + 13 * (label // 5), 1 + 5 * (label % 5)
        image[0, row : row + 8, column : column + 5] += 1.5
    return x, target


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("batch", [1, 7, 16, 32, 100])
def test_lenet_agrees_with_torch(engine: str, batch: int) -> None:
    model = models.lenet5()
    program = compute.compile(model, nn.NLLLoss(), SHAPE, engine=engine)
    program.parameters[:] = compute.initial_parameters(model, SHAPE, 1)
    program.parameters_changed()
    x, target = blobs(batch, 5)
    output, loss, gradients = torch_forward_backward(
        model.layers, named_views(program, program.parameters), x, target, 1 / batch
    )
    assert program.forward_backward(x, target, 1 / batch) == pytest.approx(loss, rel=1e-5)
    for name, found in named_views(program, program.gradients).items():
        np.testing.assert_allclose(found, gradients[name], atol=2e-5 * np.abs(gradients[name]).max(), err_msg=name)
    np.testing.assert_allclose(program.forward(x), output, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_training_learns_and_follows_torch(engine: str) -> None:
    """40 steps of SGD with momentum on our engine and in PyTorch give the same losses; the loss falls to a fifth."""
    model = models.lenet5()
    program = compute.compile(model, nn.NLLLoss(), SHAPE, engine=engine)
    program.parameters[:] = compute.initial_parameters(model, SHAPE, 1)
    program.parameters_changed()
    views = named_views(program, program.parameters)
    weights = {name: torch.tensor(value.copy(), requires_grad=True) for name, value in views.items()}
    theirs = torch.optim.SGD(weights.values(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    ours = optim.SGD(0.05, momentum=0.9, weight_decay=1e-4)
    state = ours.init(program.parameters.size)
    losses, expected = [], []
    for step in range(1, 41):
        x, target = blobs(16, 100 + step)
        losses.append(program.forward_backward(x, target, 1 / 16) / 16)
        ours.update(program.parameters, program.gradients, state, step, 1)
        program.parameters_changed()
        theirs.zero_grad()
        h = torch.tensor(x)
        functional = torch.nn.functional
        for conv in ("conv1_5x5", "conv2_5x5"):
            h = functional.conv2d(h, weights[f"{conv}.weight"], weights[f"{conv}.bias"])
            h = functional.max_pool2d(torch.tanh(h), 2)
        h = torch.tanh(functional.linear(h.flatten(1), weights["fc1.weight"], weights["fc1.bias"]))
        h = torch.log_softmax(functional.linear(h, weights["fc2.weight"], weights["fc2.bias"]), 1)
        loss = functional.nll_loss(h, torch.tensor(target))
        loss.backward()
        theirs.step()
        expected.append(float(loss.detach()))
    np.testing.assert_allclose(losses, expected, rtol=5e-3, atol=1e-3)
    assert losses[-1] < losses[0] / 5


def test_first_weights_never_change() -> None:
    """A checkpoint of seed s must mean the same on every machine, Python and numpy: the digest is fixed."""
    flat = compute.initial_parameters(models.lenet5(), SHAPE, 1)
    assert hashlib.sha256(flat.tobytes()).hexdigest() == FIRST_WEIGHTS
    assert hashlib.sha256(compute.initial_parameters(models.lenet5(), SHAPE, 2).tobytes()).hexdigest() != FIRST_WEIGHTS
    conv1, conv2 = flat[:156], flat[156 : 156 + 1812]
    for values, fan_in in ((conv1, 25), (conv2, 150)):
        assert np.abs(values).max() <= fan_in**-0.5
        assert np.abs(values).max() > 0.9 * fan_in**-0.5
    assert abs(float(flat.mean())) < 0.005


def test_layout_and_fingerprint() -> None:
    layout = compute.parameter_layout(models.lenet5(), SHAPE)
    assert [(info.name, info.shape, info.offset) for info in layout] == [
        ("conv1_5x5.weight", (6, 1, 5, 5), 0),
        ("conv1_5x5.bias", (6,), 150),
        ("conv2_5x5.weight", (12, 6, 5, 5), 156),
        ("conv2_5x5.bias", (12,), 1956),
        ("fc1.weight", (100, 192), 1968),
        ("fc1.bias", (100,), 21168),
        ("fc2.weight", (10, 100), 21268),
        ("fc2.bias", (10,), 22268),
    ]
    assert compute.fingerprint(models.lenet5(), SHAPE) == compute.fingerprint(models.lenet5(), SHAPE)
    assert compute.fingerprint(models.lenet5(10), SHAPE) != compute.fingerprint(models.lenet5(11), SHAPE)


def test_epoch_order_never_changes() -> None:
    order = data.epoch_order(1000, 1, 1)
    assert hashlib.sha256(order.tobytes()).hexdigest() == FIRST_ORDER


FIRST_WEIGHTS = "5e09fedd3fdc54479b371d37c3a6d3576c636340760ddb57fc677656011461a9"
FIRST_ORDER = "283dacf397322a29dae1d74e1df47ccb35e64f8f1f1d73a27b862e31aed24d56"
