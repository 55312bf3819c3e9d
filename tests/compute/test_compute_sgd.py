"""SGD against torch.optim.SGD, and its independence from slicing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compute import InputError, optim, schedule

OPTIONS = [
    {},
    {"weight_decay": 0.01},
    {"momentum": 0.9},
    {"momentum": 0.9, "weight_decay": 0.01},
    {"momentum": 0.8, "dampening": 0.3, "weight_decay": 0.02},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_follows_torch(options: dict[str, float]) -> None:
    rng = np.random.default_rng(0)
    size = 70_000  # more than two blocks
    ours = rng.standard_normal(size, dtype=np.float32)
    theirs = torch.tensor(ours.copy(), requires_grad=True)
    optimizer = optim.SGD(0.1, **options)  # type: ignore[arg-type]
    reference = torch.optim.SGD([theirs], lr=0.1, **options)  # type: ignore[arg-type]
    state = optimizer.init(size)
    for step in range(1, 8):
        gradients = rng.standard_normal(size, dtype=np.float32)
        before = gradients.copy()
        optimizer.update(ours, gradients, state, step, 1)
        np.testing.assert_array_equal(gradients, before)
        theirs.grad = torch.tensor(gradients)
        reference.step()
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=2e-5, atol=2e-6)


@settings(max_examples=40, deadline=None)
@given(
    options=st.sampled_from(OPTIONS),
    size=st.integers(1, 70_000),
    cuts=st.lists(st.floats(0, 1), max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_slicing_gives_the_same_bits(options: dict[str, float], size: int, cuts: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    start = rng.standard_normal(size, dtype=np.float32)
    optimizer = optim.SGD(0.05, schedule=schedule.Default(0.1), **options)  # type: ignore[arg-type]
    bounds = sorted({0, size, *(int(cut * size) for cut in cuts)})
    slices = [slice(a, b) for a, b in itertools.pairwise(bounds)]
    whole, parts = start.copy(), start.copy()
    whole_state = optimizer.init(size)
    part_states = [optimizer.init(s.stop - s.start) for s in slices]
    for step in range(1, 4):
        gradients = rng.standard_normal(size, dtype=np.float32)
        optimizer.update(whole, gradients, whole_state, step, 1)
        for s, state in zip(slices, part_states, strict=True):
            # A copy: a server's slice is aligned like nothing in particular.
            own = np.empty(s.stop - s.start + 1, dtype=np.float32)[1:]
            own[:] = parts[s]
            optimizer.update(own, gradients[s].copy(), state, step, 1)
            parts[s] = own
    assert whole.tobytes() == parts.tobytes()
    for name, values in whole_state.items():
        assert values.tobytes() == b"".join(state[name].tobytes() for state in part_states)


def test_the_schedule_sets_the_rate() -> None:
    optimizer = optim.SGD(0.5, schedule=schedule.EpochStep(2, 0.1))
    assert optimizer.learning_rate_at(1, 1) == 0.5
    assert optimizer.learning_rate_at(900, 2) == pytest.approx(0.05)
    p = np.ones(3, dtype=np.float32)
    optimizer.update(p, np.ones(3, dtype=np.float32), optimizer.init(3), 900, 2)
    np.testing.assert_allclose(p, 0.95)
    assert optim.SGD(0.1).init(5) == {}
    assert {name: value.shape for name, value in optim.SGD(0.1, momentum=0.9).init(5).items()} == {"momentum": (5,)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": -1}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": 1, "momentum": -0.1}, "momentum"),
        ({"learning_rate": 1, "weight_decay": float("inf")}, "weight_decay"),
        ({"learning_rate": 1, "dampening": float("nan")}, "dampening"),
        ({"learning_rate": 1, "nesterov": True}, "nesterov"),
        ({"learning_rate": 1, "nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov"),
    ],
)
def test_wrong_settings_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        optim.SGD(**arguments)  # type: ignore[arg-type]
