"""Optimizers against PyTorch or their papers, and ParameterUpdate against itself in slices cut anywhere."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import agreement
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import compute
from compute import InputError, ParameterInfo, TrainingState, nn, optim, schedule
from compute.optim import ExactSum, ParameterUpdate, sum_block
from compute.optim.optimizer import Array, ElementwiseOptimizer, Optimizer

WITH_TORCH: list[tuple[ElementwiseOptimizer, Callable[[list[torch.Tensor]], torch.optim.Optimizer]]] = [
    (optim.SGD(0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    (optim.SGD(0.1, 0.9, 0.2, weight_decay=0.1), lambda p: torch.optim.SGD(p, 0.1, 0.9, 0.2, weight_decay=0.1)),
    (optim.SGD(0.1, 0.9, nesterov=True), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True)),
    (optim.Adam(), lambda p: torch.optim.Adam(p)),
    (optim.Adam(0.01, (0.8, 0.95), 1e-6, 0.1), lambda p: torch.optim.Adam(p, 0.01, (0.8, 0.95), 1e-6, 0.1)),
    (optim.AdamW(), lambda p: torch.optim.AdamW(p)),
    (optim.AdamW(0.02, weight_decay=0.3), lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.3)),
    (optim.Adamax(), lambda p: torch.optim.Adamax(p)),
    (optim.Adamax(0.01, (0.7, 0.9), weight_decay=0.1),
     lambda p: torch.optim.Adamax(p, lr=0.01, betas=(0.7, 0.9), weight_decay=0.1)),
    (optim.Adagrad(), lambda p: torch.optim.Adagrad(p)),
    (optim.Adagrad(0.1, 0.2, 0.1, 0.5), lambda p: torch.optim.Adagrad(p, 0.1, 0.2, 0.1, 0.5)),
    (optim.Adadelta(), lambda p: torch.optim.Adadelta(p)),
    (optim.Adadelta(0.5, 0.8, 1e-5, 0.1), lambda p: torch.optim.Adadelta(p, 0.5, 0.8, 1e-5, 0.1)),
    (optim.RMSprop(), lambda p: torch.optim.RMSprop(p)),
    (optim.RMSprop(0.01, 0.9, 1e-6, 0.1, 0.8), lambda p: torch.optim.RMSprop(p, 0.01, 0.9, 1e-6, 0.1, 0.8)),
    (optim.RMSprop(0.01, 0.9, 1e-3, momentum=0.5, centered=True),
     lambda p: torch.optim.RMSprop(p, 0.01, 0.9, 1e-3, momentum=0.5, centered=True)),
]  # fmt: skip


def note(name: str, got: Any, wanted: Any, oracle: str) -> None:
    """For docs/agreement.md: parameters after some steps."""
    error = agreement.relative_error(got, wanted)
    agreement.record(agreement.Comparison("optimizer", name, "all", "fp32", oracle, "parameters", error))


@pytest.mark.parametrize("size", [1, 7, 70_000])
@pytest.mark.parametrize(("ours", "theirs"), WITH_TORCH, ids=lambda value: getattr(value, "kind", ""))
def test_follows_torch(
    ours: ElementwiseOptimizer, theirs: Callable[[list[torch.Tensor]], torch.optim.Optimizer], size: int
) -> None:
    rng = np.random.default_rng(size)
    p = rng.standard_normal(size, dtype=np.float32)
    tensor = torch.tensor(p.astype(np.float64), requires_grad=True)  # torch in float32 is farther from it than we are
    reference, state = theirs([tensor]), ours.init(size)
    for step in range(1, 9):
        g = rng.standard_normal(size, dtype=np.float32)
        kept = g.copy()
        ours.update(p, g, state, step, 1)
        np.testing.assert_array_equal(g, kept)
        tensor.grad = torch.tensor(g.astype(np.float64))
        reference.step()
        # RMSprop's first steps are g / |g| long, also where the decayed g is a float32 difference near zero.
        atol = 1e-5 if isinstance(ours, optim.RMSprop) else 2e-6
        np.testing.assert_allclose(p, tensor.detach().numpy(), rtol=2e-6, atol=atol)
    note(type(ours).__name__, p, tensor.detach().numpy(), "PyTorch")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"l1": 0.05, "l2": 0.1},
        {"l1": 0.01, "beta": 1.0, "initial_accumulator_value": 0.0, "learning_rate": 0.3},
        {"learning_rate_power": -0.7, "l2_shrinkage": 0.02},
        {"learning_rate_power": 0.0, "l2": 0.3},
    ],
    ids=str,
)
def test_ftrl_follows_the_paper(options: dict[str, float]) -> None:
    """Algorithm 1 of McMahan et al. (2013) with TensorFlow's options, in float64, element by element."""
    rng = np.random.default_rng(3)
    ours = optim.Ftrl(**options)  # type: ignore[arg-type]
    p = rng.standard_normal(50).astype(np.float32)
    w = p.astype(np.float64)
    n, z = np.full(50, ours.initial_accumulator_value), np.zeros(50)
    state, q = ours.init(50), -ours.learning_rate_power
    zeros = 0
    for step in range(1, 10):
        g = rng.standard_normal(50).astype(np.float32)
        ours.update(p, g, state, step, 1)
        for i, value in enumerate(g.astype(np.float64)):
            grown = n[i] + value**2
            sigma = (grown**q - n[i] ** q) / ours.learning_rate
            z[i] += value + 2 * ours.l2_shrinkage * w[i] - sigma * w[i]
            n[i] = grown
            curve = (ours.beta + grown**q) / ours.learning_rate + 2 * ours.l2
            w[i] = 0.0 if abs(z[i]) <= ours.l1 else (math.copysign(ours.l1, z[i]) - z[i]) / curve
        np.testing.assert_allclose(p, w, rtol=2e-4, atol=1e-5)
        note("Ftrl", p, w, "formula")
        zeros += np.count_nonzero(p == 0)
    assert (zeros > 0) == (ours.l1 > 0)


def layer(name: str, size: int, offset: int, **options: Any) -> ParameterInfo:
    return ParameterInfo(name, (size,), offset, **options)


def lay_out(*parts: tuple[str, int, dict[str, Any]]) -> list[ParameterInfo]:
    """A layout without gaps."""
    offsets = itertools.accumulate((size for _, size, _ in parts), initial=0)
    return [layer(name, size, offset, **options) for (name, size, options), offset in zip(parts, offsets, strict=False)]


def test_lars_follows_the_paper() -> None:
    layout = lay_out(("a.weight", 3000, {}), ("a.bias", 5, {"learning_rate_scale": 2.0}), ("b.weight", 40, {}))
    update = ParameterUpdate(layout, optim.LARS(0.3, 0.9, 0.01, 0.02), optim.ClipNorm(1.0))
    rng = np.random.default_rng(0)
    p = rng.standard_normal(3045).astype(np.float32)
    p[3005:] = 0  # |w| = 0: no scaling
    w, v = p.astype(np.float64), np.zeros(3045)
    for step in range(1, 6):
        g = rng.standard_normal(3045).astype(np.float32)
        update.step(p, g, step, 1)
        clipped = g.astype(np.float64) * min(1.0, 1.0 / (np.linalg.norm(g.astype(np.float64)) + 1e-6))
        for info in layout:
            part = slice(info.offset, info.offset + info.shape[0])
            norm, gradient = np.linalg.norm(w[part]), np.linalg.norm(clipped[part])
            trust = 0.02 * norm / (gradient + 0.01 * norm) if norm else 1.0
            v[part] = 0.9 * v[part] + 0.3 * info.learning_rate_scale * trust * (clipped[part] + 0.01 * w[part])
        w -= v
        np.testing.assert_allclose(p, w, rtol=2e-5, atol=1e-6)
    note("LARS", p, w, "formula")


def test_clipping_by_norm_follows_torch() -> None:
    layout = lay_out(
        ("a.weight", 5000, {}), ("f.weight", 30, {"frozen": True}), ("b.weight", 3, {}),
        ("n.running_mean", 4, {"kind": "statistic"}), ("f.running_mean", 3, {"kind": "statistic", "frozen": True}),
    )  # fmt: skip
    rng = np.random.default_rng(1)
    for size in (0.001, 100.0):
        p, g = (rng.standard_normal(5040).astype(np.float32) for _ in range(2))
        g *= np.float32(size)
        tensor = torch.tensor(p[np.r_[:5000, 5030:5033]], requires_grad=True)
        tensor.grad = torch.tensor(g[np.r_[:5000, 5030:5033]])
        torch.nn.utils.clip_grad_norm_([tensor], 2.0)
        torch.optim.SGD([tensor], lr=0.5).step()
        before, kept = p.copy(), g.copy()
        ParameterUpdate(layout, optim.SGD(0.5), optim.ClipNorm(2.0)).step(p, g, 1, 1)
        np.testing.assert_allclose(p[np.r_[:5000, 5030:5033]], tensor.detach().numpy(), rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(p[5000:5030], before[5000:5030])
        np.testing.assert_allclose(p[5033:5037], 0.9 * before[5033:5037] + 0.1 * g[5033:5037], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(p[5037:], before[5037:])
        np.testing.assert_array_equal(g, kept)


def test_regularizers_scales_and_clipping_by_value_closed_form() -> None:
    layout = lay_out(
        ("a.weight", 6, {"l1": 0.1, "l2": 0.5}), ("a.bias", 2, {"learning_rate_scale": 0.5}),
        ("b.weight", 3, {"l2": 0.2, "learning_rate_scale": 3.0}),
    )  # fmt: skip
    rng = np.random.default_rng(2)
    p, g = rng.standard_normal(11).astype(np.float32), rng.standard_normal(11).astype(np.float32)
    l1, l2 = np.repeat([0.1, 0, 0], [6, 2, 3]), np.repeat([0.5, 0, 0.2], [6, 2, 3])
    wanted = np.clip(g + l1 * np.sign(p) + l2 * p, -0.3, 0.6)
    wanted = p - 0.1 * np.repeat([1.0, 0.5, 3.0], [6, 2, 3]) * wanted
    ParameterUpdate(layout, optim.SGD(0.1), optim.ClipValue(-0.3, 0.6)).step(p, g, 1, 1)
    np.testing.assert_allclose(p, wanted, rtol=1e-5, atol=1e-6)


def test_the_longest_prefix_chooses_the_optimizer() -> None:
    layout = lay_out(
        ("features.conv_0.weight", 4, {}), ("features.conv_0.bias", 2, {}), ("features.conv_01.weight", 3, {}),
        ("head.weight", 5, {}),
    )  # fmt: skip
    optimizers = {"features": 2.0, "": 1.0, "features.conv_0": 3.0, "features.conv_0.bias": 4.0}
    update = ParameterUpdate(layout, {name: optim.SGD(rate) for name, rate in optimizers.items()})
    p = np.zeros(14, dtype=np.float32)
    update.step(p, np.ones(14, dtype=np.float32), 1, 1)
    np.testing.assert_array_equal(-p, np.repeat([3, 4, 2, 1], [4, 2, 3, 5]))
    p = np.zeros(14, dtype=np.float32)
    update.step(p, np.ones(14, dtype=np.float32), 1, 1, rates=[10, 20, 30, 40])  # in the order of the prefixes
    np.testing.assert_array_equal(-p, np.repeat([30, 40, 20, 10], [4, 2, 3, 5]))


LAYOUT = lay_out(
    ("stem.weight", 5000, {"l2": 0.01}),
    *((f"bn_{i}.{name}", 64, {} if name == "weight" else {"learning_rate_scale": 2.0})
      for i in range(12) for name in ("weight", "bias")),
    ("mid.weight", 70_000, {"l1": 0.001}),
    ("frozen.weight", 700, {"frozen": True}),
    *((f"tiny_{i}.weight", 3, {"learning_rate_scale": 0.5 + i, "l2": 0.01 * (i % 3)}) for i in range(40)),
    ("head.weight", 1, {}),
    *((f"bn_{i}.running_mean", 64, {"kind": "statistic", "momentum": 0.1 + 0.2 * (i % 2)}) for i in range(12)),
)  # fmt: skip
UNSCALED = [ParameterInfo(i.name, i.shape, i.offset, i.kind, i.momentum, i.frozen, l1=i.l1, l2=i.l2) for i in LAYOUT]
SIZE = sum(math.prod(info.shape) for info in LAYOUT)
UPDATES: dict[str, Callable[..., ParameterUpdate]] = {
    **{
        f"{ours.kind}{index}": lambda *a, o=ours, **k: ParameterUpdate(LAYOUT, o, None, *a, **k)
        for index, (ours, _) in enumerate(WITH_TORCH)
        if index in (1, 4, 6, 8, 10, 12, 15)
    },
    "Ftrl": lambda *a: ParameterUpdate(LAYOUT, optim.Ftrl(0.1, -0.6, l1=0.01), optim.ClipValue(-1, 0.5), *a),
    "clip": lambda *a: ParameterUpdate(LAYOUT, optim.SGD(0.1, 0.9), optim.ClipNorm(3.0), *a),
    "LARS": lambda *a: ParameterUpdate(LAYOUT, optim.LARS(1.0), optim.ClipNorm(3.0), *a),
    "LBFGS": lambda *a: ParameterUpdate(UNSCALED, optim.LBFGS(history_size=2), None, *a),
    "mapping": lambda *a: ParameterUpdate(
        UNSCALED,
        {"": optim.AdamW(), "bn_3": optim.LARS(0.3), "mid": optim.LBFGS(history_size=2), "stem": optim.Adagrad()},
        None,
        *a,
    ),
}


def quadratic(p: Array, curvature: Array) -> tuple[float, Array]:
    """Loss and gradient."""
    g = (curvature * p).astype(np.float32)
    return float(0.5 * np.sum(curvature.astype(np.float64) * p.astype(np.float64) ** 2)), g


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(UPDATES)),
    cuts=st.lists(st.integers(0, SIZE // sum_block(SIZE)), max_size=5),
    seed=st.integers(0, 2**32 - 1),
)
def test_slices_cut_anywhere_give_the_same_bits(name: str, cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    curvature = rng.uniform(0.1, 2.0, SIZE).astype(np.float32)
    whole = rng.standard_normal(SIZE, dtype=np.float32)
    parts = whole.copy()
    update = UPDATES[name]()
    bounds = sorted({0, SIZE, *(cut * sum_block(SIZE) for cut in cuts)})
    slices = [(a, b) for a, b in itertools.pairwise(bounds)] + [(SIZE, SIZE)]  # one of nothing
    updates = [UPDATES[name](a, b) for a, b in slices]
    for step in range(1, 6):
        loss, g = quadratic(whole, curvature)
        update.step(whole, g, step, 1, loss)
        shares = [u.sums(parts[a:b], g[a:b]) for (a, b), u in zip(slices, updates, strict=True)]
        rng.shuffle(shares)  # type: ignore[arg-type]
        totals = [float(sum(column, ExactSum())) for column in zip(*shares, strict=True)]
        for index, ((a, b), u) in enumerate(zip(slices, updates, strict=True)):
            own = np.empty(b - a + 1, dtype=np.float32)[1:]  # a server's slice is aligned like nothing in particular
            own[:] = parts[a:b]
            u.apply(own, g[a:b].copy(), step, 1, None, totals, loss)
            parts[a:b] = own
            if step == 3:  # as a restarted server: all that it has comes from a checkpoint
                updates[index] = UPDATES[name](a, b)
                updates[index].state = {key: array.copy() for key, array in u.state.items()}
                updates[index].memory = json.loads(json.dumps(u.memory))
        assert whole.tobytes() == parts.tobytes(), step
    for key, values in update.state.items():
        assert values.tobytes() == b"".join(u.state[key].tobytes() for u in updates)
    frozen = next(info for info in LAYOUT if info.frozen)
    assert not any(np.any(a[frozen.offset : frozen.offset + 700]) for k, a in update.state.items() if "acc" not in k)


def test_a_cut_inside_a_block_is_refused_where_sums_are_needed() -> None:
    ParameterUpdate(LAYOUT, optim.SGD(0.1), None, 3, 77)
    with pytest.raises(ValueError, match="multiples of"):
        ParameterUpdate(LAYOUT, optim.SGD(0.1), optim.ClipNorm(1.0), 3, 77)
    with pytest.raises(ValueError, match="needs totals"):
        ParameterUpdate(LAYOUT, optim.SGD(0.1), optim.ClipNorm(1.0)).apply(*np.zeros((2, SIZE), np.float32), 1, 1)


def test_many_small_layers_cost_no_loop_over_them() -> None:
    update = UPDATES["SGD1"]()
    assert len(update._units) < 12
    assert len(LAYOUT) > 70


def test_regimes_swap_settings() -> None:
    regimes = [schedule.Regime(1, 2, {"learning_rate": 0.5, "weight_decay": 0.1}),
               schedule.Regime(4, 5, {"momentum": 0.9, "weight_decay": 0.0})]  # fmt: skip
    ours = optim.SGD(0.1, schedule=schedule.EpochSchedule(regimes))
    assert set(ours.init(1)) == {"momentum"}
    p, state, w, v = np.ones(3, dtype=np.float32), ours.init(3), 1.0, 0.0
    for epoch, (decay, momentum) in enumerate([(0.1, 0), (0.1, 0), (0.1, 0), (0, 0.9), (0, 0.9), (0, 0.9)], 1):
        ours.update(p, np.full(3, 0.3, np.float32), state, epoch, epoch)
        g = 0.3 + decay * w
        v = momentum * v + g if momentum else v
        w -= 0.5 * (v if momentum else g)
        np.testing.assert_allclose(p, w, rtol=1e-5)
    for wrong in ({"colour": 1.0}, {"momentum": -1.0}):
        with pytest.raises(InputError, match="SGD"):
            optim.SGD(0.1, schedule=schedule.EpochSchedule([schedule.Regime(1, 2, wrong)])).check()


def test_learning_rates_follow_the_schedules_that_feed_back() -> None:
    plateau = schedule.Plateau("Loss", factor=0.5, patience=0)
    optimizers = {"b": optim.SGD(2.0), "": optim.Adam(1.0, schedule=plateau)}
    rates = optim.LearningRates(optimizers)
    assert rates.feeds_back
    assert rates.at(1, 1) == {"": 1.0, "b": 2.0}
    for step, loss in enumerate([3.0, 2.0, 2.5, 2.5], 1):
        rates.after_validation(TrainingState(step, 1, False, 9.0, {"Loss": loss}))
        before = rates.memories
        rates.after_validation(TrainingState(step, 1, False, 9.0, {"Loss": loss}))  # a resumed run does it again
        assert rates.memories == before
    assert rates.main(5, 1) == 0.25
    again = optim.LearningRates(optimizers, json.loads(json.dumps(rates.memories)))
    assert again.at(5, 1) == rates.at(5, 1)
    assert not optim.LearningRates(optim.SGD(0.1)).feeds_back
    assert optim.LearningRates({"b": optim.SGD(2.0), "a": optim.SGD(1.0)}).main(1, 1) == 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.Adam(betas=(0.9, 1.0)), "Adam: betas"),
        (lambda: optim.AdamW(eps=0), r"AdamW: eps must be a number in \(0, inf\), got 0"),
        (lambda: optim.Adam(True), "learning_rate"),
        (lambda: optim.RMSprop(alpha=1.0), r"alpha must be a number in \[0, 1\)"),
        (lambda: optim.Adadelta(rho=-0.1), "rho"),
        (lambda: optim.Adagrad(lr_decay=-1), "lr_decay"),
        (lambda: optim.Ftrl(learning_rate_power=0.5), "learning_rate_power"),
        (lambda: optim.Ftrl(initial_accumulator_value=0), "initial_accumulator_value, beta or l2"),
        (lambda: optim.Ftrl(0.0), "learning_rate"),
        (lambda: optim.LARS(0.1, trust_coefficient=0), "trust_coefficient"),
        (lambda: optim.LBFGS(history_size=0), "history_size"),
        (lambda: optim.LBFGS(line_search_fn="armijo"), "line_search_fn"),
        (lambda: optim.SGD(0.1, schedule=0.1), "schedule must be one of compute.schedule"),
        (lambda: optim.ClipNorm(0), "max_norm must be a positive number"),
        (lambda: optim.ClipValue(1, -1), "low < high"),
        (lambda: ParameterUpdate(LAYOUT, optim.SGD(0.1), 3.0), r"optim.ClipValue\(low, high\)"),
        (lambda: ParameterUpdate(LAYOUT, {}), "mapping from layers' names"),
        (lambda: ParameterUpdate(LAYOUT, {"": 0.1}), "is not a layer's name and its optimizer"),
        (lambda: ParameterUpdate(LAYOUT, {"mid": optim.SGD(1)}), "no prefix fits the weight stem.weight.*stem, bn_0"),
        (lambda: ParameterUpdate(LAYOUT, {"": optim.SGD(1), "mi": optim.SGD(1)}), "no weight of its own.*'mi'.*stem"),
        (lambda: ParameterUpdate(LAYOUT, optim.LBFGS()), "bn_0.bias has a learning_rate_scale of 2, which LBFGS"),
        (lambda: ParameterUpdate(UNSCALED, optim.LBFGS(), optim.ClipNorm(1)), "LBFGS cannot work with a clipped"),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_an_optimizer_of_one_s_own() -> None:
    class SignDescent(ElementwiseOptimizer):
        work_arrays = 5

        def state_values(self) -> dict[str, float]:
            return {"count": 1.0}

        def update_block(self, p: Array, g: Array, state: Any, rate: Any, step: int, work: Any) -> None:
            np.sign(g, out=work[4])
            np.multiply(work[4], optim.optimizer.single(rate), out=work[4])
            np.subtract(p, work[4], out=p)
            state["count"] += np.float32(1)

    update = ParameterUpdate(LAYOUT, SignDescent(0.25))
    p = np.zeros(SIZE, dtype=np.float32)
    update.step(p, np.full(SIZE, 7.0, dtype=np.float32), 1, 1)
    assert p[0] == -0.25
    weights = sum(i.shape[0] for i in LAYOUT if i.kind == "weight" and not i.frozen)
    assert np.count_nonzero(update.state["count"] == 2) == weights
    assert issubclass(SignDescent, Optimizer)


def test_a_model_with_statistics_regularizers_and_frozen_layers() -> None:
    """A step of a compiled model changes what it should, by what the closed formulas say."""
    model = nn.Sequential(
        nn.Linear(5, 6, name="still").freeze(), nn.BatchNorm1d(6, name="rest").freeze(), nn.ReLU(),
        nn.Linear(6, 4, name="a").regularize(nn.L2(0.5)), nn.BatchNorm1d(4, momentum=0.3, name="norm"),
        nn.Linear(4, 3, name="b").scale_rate(2.0), nn.LogSoftmax(),
    )  # fmt: skip
    program = compute.compile(model, nn.NLLLoss(), (5,), engine="numpy")
    program.parameters[:] = compute.initial_parameters(model, (5,), 1)
    program.parameters_changed()
    rng = np.random.default_rng(0)
    program.forward_backward(rng.standard_normal((16, 5), dtype=np.float32), rng.integers(0, 3, 16), 1 / 16)
    before, g = program.parameters.copy(), program.gradients.copy()
    layout = compute.parameter_layout(model, (5,))
    ParameterUpdate(layout, optim.SGD(0.1)).step(program.parameters, g, 1, 1)
    seen = set()
    for info in layout:
        part = slice(info.offset, info.offset + info.size)
        old, new, gradient = before[part], program.parameters[part], g[part]
        where = info.name.split(".")[0]
        if where in ("still", "rest"):
            np.testing.assert_array_equal(new, old)
        elif info.kind == "statistic":
            np.testing.assert_allclose(new, 0.7 * old + 0.3 * gradient, rtol=1e-5, atol=1e-6)
            assert np.any(new != old)
        else:
            decay = 0.5 * old if info.name == "a.weight" else 0.0
            wanted = old - (0.2 if where == "b" else 0.1) * (gradient + decay)
            np.testing.assert_allclose(new, wanted, rtol=1e-5, atol=1e-6)
        seen.add((where, info.kind))
    assert seen == {(w, "weight") for w in ("still", "rest", "a", "norm", "b")} | {
        ("rest", "statistic"), ("norm", "statistic")
    }  # fmt: skip
