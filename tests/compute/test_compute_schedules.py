"""Schedules against closed formulas and torch.optim.lr_scheduler, and the triggers that look at scores."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import agreement
import cloudpickle
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compute import InputError, TrainingState, optim, schedule, trigger
from compute.schedule import Schedule

LR = 0.3
LRS = torch.optim.lr_scheduler

WITH_TORCH: list[tuple[Schedule, Callable[[torch.optim.Optimizer], Any]]] = [
    (schedule.Default(), lambda o: LRS.ConstantLR(o, 1.0)),
    (schedule.Step(7, 0.4), lambda o: LRS.StepLR(o, 7, 0.4)),
    (schedule.MultiStep([3, 10, 11], 0.2), lambda o: LRS.MultiStepLR(o, [3, 10, 11], 0.2)),
    (schedule.Poly(0.5, 30), lambda o: LRS.PolynomialLR(o, 30, 0.5)),
    (schedule.Poly(2.0, 13), lambda o: LRS.PolynomialLR(o, 13, 2.0)),
    (schedule.Exponential(1, 0.9), lambda o: LRS.ExponentialLR(o, 0.9)),
    (schedule.CosineWithWarmup(0, 40, 0.01), lambda o: LRS.CosineAnnealingLR(o, 40, 0.01)),
    (
        schedule.CosineWithWarmup(5, 40),
        lambda o: LRS.SequentialLR(o, [LRS.LinearLR(o, 0.2, 1.0, 4), LRS.CosineAnnealingLR(o, 35)], [5]),
    ),
    (schedule.OneCycle(40), lambda o: LRS.OneCycleLR(o, LR, 40, cycle_momentum=False)),
    (
        schedule.OneCycle(40, 0.1, "linear", 5.0, 100.0),
        lambda o: LRS.OneCycleLR(o, LR, 40, None, None, 0.1, "linear", False, div_factor=5.0, final_div_factor=100.0),
    ),
]


def note(ours: Schedule, got: float, wanted: float, oracle: str) -> None:
    """For docs/agreement.md."""
    error = agreement.relative_error([got], [wanted])
    agreement.record(agreement.Comparison("schedule", type(ours).__name__, "all", "fp64", oracle, "rate", error))


@pytest.mark.filterwarnings("ignore:.*epoch parameter:UserWarning")
@pytest.mark.parametrize(("ours", "theirs"), WITH_TORCH, ids=lambda value: type(value).__name__)
def test_follows_torch(ours: Schedule, theirs: Callable[[torch.optim.Optimizer], Any]) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    reference = theirs(optimizer)
    for step in range(1, 41):
        note(ours, ours.rate(LR, step, 1), optimizer.param_groups[0]["lr"], "PyTorch")
        assert ours.rate(LR, step, 1) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6, abs=1e-9)
        optimizer.step()
        if step < 40:
            reference.step()


def decay(epoch: int) -> float:
    return math.sqrt(epoch)


@given(step=st.integers(1, 5000), epoch=st.integers(1, 300))
def test_closed_formulas(step: int, epoch: int) -> None:
    """The table of docs/optim.md, n counted from 0."""
    n = step - 1
    cases: list[tuple[Schedule, float]] = [
        (schedule.Default(0.01), LR / (1 + n * 0.01)),
        (schedule.Step(30, 0.9), LR * 0.9 ** (n // 30)),
        (schedule.MultiStep([5, 100], 0.1), LR * 0.1 ** ((n >= 5) + (n >= 100))),
        (schedule.EpochStep(25, 0.5), LR * 0.5 ** (epoch // 25)),
        (schedule.EpochDecay(decay), LR * 0.1 ** decay(epoch)),
        (schedule.Poly(0.5, 2000), LR * (1 - n / 2000) ** 0.5 if n < 2000 else 0.0),
        (schedule.Exponential(100, 0.8), LR * 0.8 ** (n / 100)),
        (schedule.Exponential(100, 0.8, staircase=True), LR * 0.8 ** (n // 100)),
        (schedule.NaturalExp(100, 0.2), LR * math.exp(-0.2 * (n // 100))),
        (schedule.Warmup(0.001), LR + 0.001 * n),
        (
            schedule.EpochDecayWithWarmUp(50, 0.01, decay),
            LR + 0.01 * n if n < 50 else (LR + 0.5) * 0.1 ** decay(epoch),
        ),
    ]
    for made, expected in cases:
        note(made, made.rate(LR, step, epoch), expected, "formula")
        assert made.rate(LR, step, epoch) == pytest.approx(expected, rel=1e-9), made
        assert cloudpickle.loads(cloudpickle.dumps(made)).rate(LR, step, epoch) == made.rate(LR, step, epoch)


def test_after_the_end_the_last_rate_stays() -> None:
    assert schedule.CosineWithWarmup(3, 10, 0.1).rate(LR, 500, 1) == 0.1
    assert schedule.OneCycle(10).rate(LR, 500, 1) == pytest.approx(schedule.OneCycle(10).rate(LR, 10, 1))


def test_a_chain_goes_on_from_the_rate_that_was_reached() -> None:
    """BigDL's Inception recipe: up to the highest rate, then down."""
    chain = schedule.SequentialSchedule(20).add(schedule.Warmup(0.01), 30).add(schedule.Step(10, 0.5), 20)
    chain.add(schedule.EpochStep(1, 0.1), 20)
    for n in range(100):
        step, epoch = n + 1, n // 20 + 1
        if n < 30:
            expected = LR + 0.01 * n
        elif n < 50:
            expected = (LR + 0.3) * 0.5 ** ((n - 30) // 10)
        else:
            expected = (LR + 0.3) * 0.25 * 0.1 ** (epoch - 2)
        assert chain.rate(LR, step, epoch) == pytest.approx(expected), n
    assert not chain.feeds_back


def test_regimes_stay_until_another_sets_them() -> None:
    made = schedule.EpochSchedule(
        [
            schedule.Regime(1, 3, {"learning_rate": 0.1, "weight_decay": 0.5}),
            schedule.Regime(4, 7, {"learning_rate": 0.05}),
            schedule.Regime(9, 9, {"learning_rate": 0.01, "momentum": 0.9}),
        ]
    )
    rates = [made.rate(LR, 1, epoch) for epoch in range(1, 12)]
    assert rates == [0.1] * 3 + [0.05] * 5 + [0.01] * 3
    assert made.settings(1, 8) == {"weight_decay": 0.5}
    assert made.settings(1, 9) == {"weight_decay": 0.5, "momentum": 0.9}
    later = schedule.EpochSchedule([schedule.Regime(3, 9, {"learning_rate": 0.1})])
    assert [later.rate(LR, 1, epoch) for epoch in (2, 3)] == [LR, 0.1]


@pytest.mark.parametrize("options", [
    {}, {"patience": 0, "factor": 0.5}, {"patience": 1, "cooldown": 2, "threshold": 0.3},
    {"patience": 1, "mode": "max", "min_lr": 0.05}, {"patience": 0, "threshold_mode": "rel", "threshold": 0.1},
    {"patience": 0, "threshold_mode": "rel", "threshold": 0.1, "mode": "max"},
])  # fmt: skip
@pytest.mark.parametrize("monitor", ["loss", "Top1Accuracy"])
def test_plateau_follows_torch(options: dict[str, Any], monitor: str) -> None:
    ours = schedule.Plateau(monitor, **options)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    reference = LRS.ReduceLROnPlateau(optimizer, **{"threshold_mode": "abs", **options}, eps=0.0)
    memory, rng = ours.initial(), np.random.default_rng(7)
    reductions = set()
    for epoch in range(1, 60):
        losses = (1.0 + 3.0 / epoch + rng.uniform(-0.1, 0.1, 4)).tolist()
        value = float(rng.uniform(0, 1))
        for k, loss in enumerate(losses):
            state = TrainingState(4 * epoch - 3 + k, epoch, k == 3, loss, {"Top1Accuracy": value})
            assert ours.rate_with(memory, LR, state.step, epoch) == pytest.approx(optimizer.param_groups[0]["lr"])
            memory = json.loads(json.dumps(dict(ours.after_step(memory, state))))
        memory = ours.after_validation(memory, state)
        assert ours.after_validation(memory, state) == memory
        total = 0.0
        for loss in losses:
            total += loss
        reference.step(total / 4 if monitor == "loss" else value)
        reductions.add(memory["reductions"])
    assert len(reductions) > 1


def test_a_chain_with_a_plateau_in_the_middle() -> None:
    chain = schedule.SequentialSchedule(2).add(schedule.Warmup(0.1), 4)
    chain.add(schedule.Plateau(factor=0.5, patience=0), 8).add(schedule.Step(2, 0.1), 10)
    assert chain.feeds_back
    memory, rates = chain.initial(), []
    for step in range(1, 17):
        epoch = (step + 1) // 2
        rates.append(chain.rate_with(memory, 1.0, step, epoch))
        memory = json.loads(json.dumps(dict(chain.after_step(memory, TrainingState(step, epoch, step % 2 == 0, 2.0)))))
    # Epochs 3 to 6 are the plateau's: the first sets the best value, each of the others is no better.
    wanted = [1.0, 1.1, 1.2, 1.3, 1.4, 1.4, 1.4, 1.4, 0.7, 0.7, 0.35, 0.35, 0.175, 0.175, 0.0175, 0.0175]
    assert rates == pytest.approx(wanted)
    with pytest.raises(InputError, match="Accuracy"):
        schedule.SequentialSchedule(2).add(schedule.Plateau("Accuracy"), 4).check(["Loss"])


def test_plateau_asks_for_a_metric_that_exists() -> None:
    optim.SGD(0.1, schedule=schedule.Plateau("Top1Accuracy")).check(["Top1Accuracy"])
    with pytest.raises(InputError, match="monitors 'Top1', but there is only loss, Top1Accuracy"):
        optim.SGD(0.1, schedule=schedule.Plateau("Top1")).check(["Top1Accuracy"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: schedule.Step(0, 0.5),
        lambda: schedule.Step(5, 0),
        lambda: schedule.MultiStep([], 0.5),
        lambda: schedule.MultiStep([3, 2], 0.5),
        lambda: schedule.Poly(0, 10),
        lambda: schedule.Exponential(2.5, 0.5),  # type: ignore[arg-type]
        lambda: schedule.NaturalExp(2, -1),
        lambda: schedule.Warmup(float("nan")),
        lambda: schedule.Warmup("x"),  # type: ignore[arg-type]
        lambda: schedule.CosineWithWarmup(10, 10),
        lambda: schedule.OneCycle(10, 2.0),
        lambda: schedule.OneCycle(10, anneal_strategy="sin"),
        lambda: schedule.EpochDecay(3),  # type: ignore[arg-type]
        lambda: schedule.Regime(0, 1, {"learning_rate": 1}),
        lambda: schedule.Regime(3, 2, {"learning_rate": 1}),
        lambda: schedule.Regime(1, 2, {}),
        lambda: schedule.EpochSchedule([]),
        lambda: schedule.Plateau(factor=1.0),
        lambda: schedule.Plateau(mode="least"),
        lambda: schedule.Plateau(monitor=""),
        lambda: schedule.Plateau(threshold_mode="none"),
        lambda: schedule.SequentialSchedule(5).rate(1.0, 1, 1),
        lambda: schedule.SequentialSchedule(5).add(schedule.SequentialSchedule(5), 3),
        lambda: schedule.SequentialSchedule(5).add(schedule.Warmup(1), 0),
    ],
)
def test_wrong_schedules_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InputError, match="chedule"):
        make()


def test_triggers_on_loss_and_scores() -> None:
    state = TrainingState(5, 1, False, 0.5, {"Top1Accuracy": 0.8, "Loss": 0.6})
    assert trigger.min_loss(0.51)(state)
    assert not trigger.min_loss(0.5)(state)
    assert not trigger.min_loss(0.5)(replace(state, loss=math.nan))
    assert trigger.max_score(0.79, "Top1Accuracy")(state)
    assert not trigger.max_score(0.8, "Top1Accuracy")(state)
    assert not trigger.max_score(0.1)(replace(state, metrics={}))
    assert trigger.max_score(0.1)(replace(state, metrics={"Loss": 0.6}))


@given(st.booleans(), st.booleans())
def test_triggers_combine(first: bool, second: bool) -> None:
    state = TrainingState(5, 1, False, 0.5)
    a, b = (trigger.max_iteration(5 if fires else 6) for fires in (first, second))
    assert (a & b)(state) == trigger.and_(a, b)(state) == (first and second)
    assert (a | b)(state) == trigger.or_(a, b)(state) == (first or second)
    assert (a & b | a)(state) == first


def test_triggers_ask_for_a_metric_that_exists() -> None:
    made = trigger.max_epoch(3) | (trigger.every_epoch() & trigger.max_score(0.9, "Top5"))
    made.check(["Top1", "Top5"])
    with pytest.raises(InputError, match=r"no metric 'Top5' \(metrics: Top1\)"):
        made.check(["Top1"])
    trigger.max_score(0.9).check(["Top1"])
    for metrics in ([], ["a", "b"]):
        with pytest.raises(InputError, match="one metric, or the name of one"):
            trigger.max_score(0.9).check(metrics)
    for make in (lambda: trigger.max_score(math.inf), lambda: trigger.min_loss("x"), lambda: trigger.max_score(1, 2)):
        with pytest.raises(InputError):
            make()
