"""L-BFGS against torch.optim.LBFGS: the same points are evaluated, as far as float32 lets them be told apart."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import agreement
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from compute import ParameterInfo, optim
from compute.optim import ParameterUpdate
from compute.optim.line_search import MAX_EVALUATIONS, Verdict, WolfeSearch

Vector = NDArray[np.float64]
Function = Callable[[Vector], tuple[float, Vector]]

RNG = np.random.default_rng(0)
ROOT = RNG.standard_normal((20, 20))
MATRIX, OFFSET = ROOT @ ROOT.T + np.eye(20), RNG.standard_normal(20)


def quadratic(x: Vector) -> tuple[float, Vector]:
    return float(0.5 * x @ MATRIX @ x - OFFSET @ x), MATRIX @ x - OFFSET


def rosenbrock(x: Vector) -> tuple[float, Vector]:
    gap, g = x[1:] - x[:-1] ** 2, np.zeros_like(x)
    g[1:] += 200 * gap
    g[:-1] -= 400 * x[:-1] * gap + 2 * (1 - x[:-1])
    return float(np.sum(100 * gap**2 + (1 - x[:-1]) ** 2)), g


def ours(function: Function, start: Vector, steps: int, **options: object) -> Vector:
    """The points at which the function is evaluated, (steps, n)."""
    update = ParameterUpdate([ParameterInfo("w", start.shape, 0)], optim.LBFGS(**options))  # type: ignore[arg-type]
    p, points = start.astype(np.float32), []
    for step in range(1, steps + 1):
        points.append(p.astype(np.float64))
        loss, g = function(points[-1])
        update.step(p, g.astype(np.float32), step, 1, loss)
        update.memory = json.loads(json.dumps(update.memory))
    return np.array(points)


def theirs(function: Function, start: Vector, steps: int, line_search_fn: str | None, **options: float) -> Vector:
    x = torch.tensor(start, requires_grad=True)
    iterations = steps if line_search_fn else 1
    optimizer = torch.optim.LBFGS(
        [x], max_iter=iterations, max_eval=steps, line_search_fn=line_search_fn, **options  # type: ignore[arg-type]
    )
    points = []

    def closure() -> torch.Tensor:
        points.append(x.detach().numpy().copy())
        loss, g = function(points[-1])
        x.grad = torch.tensor(g)
        return torch.tensor(loss, dtype=torch.float64)

    for _ in range(1 if line_search_fn else steps):
        optimizer.step(closure)  # type: ignore[arg-type]
    return np.array(points)


STARTS = [  # and for how many evaluations, and how closely, PyTorch itself comes to the same points in float32
    (quadratic, np.zeros(20), 40, 1e-4), (rosenbrock, np.array([-1.2, 1.0]), 17, 3e-3),
    (rosenbrock, np.zeros(10), 15, 1e-4), (rosenbrock, np.array([-3.0, 4.0, 2.0]), 17, 3e-3),
]  # fmt: skip


@pytest.mark.parametrize(("function", "start", "same", "error"), STARTS)
@pytest.mark.parametrize("history_size", [1, 3, 10])
def test_evaluates_where_torch_does(
    function: Function, start: Vector, same: int, error: float, history_size: int
) -> None:
    mine = ours(function, start, same, history_size=history_size)
    reference = theirs(function, start, same, "strong_wolfe", history_size=history_size)
    count = min(len(mine), len(reference))
    assert count >= 15
    np.testing.assert_allclose(mine[:count], reference[:count], atol=error)
    worst = agreement.relative_error(mine[:count], reference[:count])
    agreement.record(agreement.Comparison("optimizer", "LBFGS", "all", "fp32", "PyTorch", "iterates", worst))


@pytest.mark.parametrize(("function", "start", "same", "error"), STARTS[:3])
def test_without_a_line_search(function: Function, start: Vector, same: int, error: float) -> None:
    mine = ours(function, start, 20, learning_rate=0.1, line_search_fn=None)
    reference = theirs(function, start, 20, None, lr=0.1, history_size=10)
    np.testing.assert_allclose(mine, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("function", "start", "same", "error"), STARTS)
def test_reaches_the_minimum_and_stays(function: Function, start: Vector, same: int, error: float) -> None:
    points = ours(function, start, 300, tolerance_grad=1e-4)
    least = np.linalg.solve(MATRIX, OFFSET) if function is quadratic else np.ones_like(start)
    np.testing.assert_allclose(points[-1], least, atol=2e-3)
    np.testing.assert_allclose(points[-1], points[-30], atol=1e-3)


def test_regularizers_are_part_of_the_function() -> None:
    """With l1 and l2 the minimum of 0.5 * |x - c|^2 + l1 |x| + l2 / 2 x^2 is known."""
    centre = np.array([2.0, -1.0, 0.7], dtype=np.float32)
    update = ParameterUpdate([ParameterInfo("w", (3,), 0, l1=0.1, l2=0.5)], optim.LBFGS())
    p = np.array([3.0, -3.0, 3.0], dtype=np.float32)
    for step in range(1, 30):
        update.step(p, p - centre, step, 1, float(0.5 * np.sum((p - centre) ** 2)))
    np.testing.assert_allclose(p, np.sign(centre) * (np.abs(centre) - 0.1) / 1.5, atol=1e-4)


def test_a_loss_that_is_not_finite_breaks_nothing() -> None:
    for loss in (math.nan, math.inf):
        update = ParameterUpdate([ParameterInfo("w", (2,), 0)], optim.LBFGS())
        p = np.ones(2, dtype=np.float32)
        for step in range(1, 40):
            update.step(p, np.full(2, loss if step % 3 == 0 else 1.0, dtype=np.float32), step, 1, loss)


@pytest.mark.parametrize("seed", range(30))
def test_a_search_ends_in_a_point_that_fulfils_the_conditions(seed: int) -> None:
    """Along a random smooth line that goes down at first and up in the end."""
    rng = np.random.default_rng(seed)
    a, b, c = rng.uniform(0.1, 3), rng.uniform(-2, 2), rng.uniform(0.5, 4)

    def line(t: float) -> tuple[float, float]:
        f = 0.5 * a * (t - 1.5) ** 2 + 0.3 * math.sin(c * t + b)
        return f, a * (t - 1.5) + 0.3 * c * math.cos(c * t + b)

    f0, slope0 = line(0.0)
    if slope0 >= 0:
        f0, slope0 = f0 + 0.3, -a * 1.5 - 0.1  # any line with a negative slope will do
    search = WolfeSearch.begin(f0, slope0, float(rng.choice([0.01, 1.0, 30.0])), 1.0, 1e-9)
    verdict, count, best = Verdict.TRY, 0, math.inf
    while verdict is Verdict.TRY:
        t = search.t
        f, slope = line(t)
        best = min(best, f)
        verdict = search.evaluated(f, slope)
        count += 1
    assert count <= MAX_EVALUATIONS + 1
    if verdict is Verdict.ACCEPT and count < MAX_EVALUATIONS:
        assert f <= f0 + 1e-4 * t * slope0
        assert abs(slope) <= 0.9 * abs(slope0)
