"""Limited-memory BFGS on vectors that are spread over servers.

The two-loop recursion needs no vectors, only their dot products (Chen, Wang, Zhou: Large-scale L-BFGS using MapReduce,
2014): the servers add up the products of each new gradient with the history, every server takes the same decision from
the totals, and the decision is a few linear combinations of vectors, computed element by element.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from compute.errors import InputError
from compute.optim.line_search import Point, Verdict, WolfeSearch
from compute.optim.optimizer import NOT_NEGATIVE, POSITIVE, Array, Optimizer
from compute.schedule import Schedule

Memory = Mapping[str, Any]
"""Numbers, lists and dicts of them; as JSON in checkpoints. The same on all servers; never changed in place."""

CURVATURE = 1e-10
"""A pair with s.y below this is left out of the history, which keeps the matrix positive definite."""

PARAMETERS, GRADIENT, SIGN = "parameters", "gradient", "sign of gradient"
DIRECTION, ORIGIN, ORIGIN_GRADIENT, LOW_GRADIENT = "direction", "origin", "origin_gradient", "low_gradient"


class Combination(NamedTuple):
    """target = the sum of factor * source; names of vectors."""

    target: str
    terms: tuple[tuple[float, str], ...]


class Move(NamedTuple):
    """What a step does to the vectors: the combinations, one after the other."""

    combinations: tuple[Combination, ...]

    def apply(self, vectors: Mapping[str, Array]) -> None:
        """Carries it out on blocks, float32 (n,) each; sums are float64, rounded once."""
        for target, terms in self.combinations:
            if len(terms) == 1 and terms[0][0] == 1.0:
                np.copyto(vectors[target], vectors[terms[0][1]])
                continue
            total = np.zeros(vectors[target].size, dtype=np.float64)
            for factor, source in terms:
                total += factor * vectors[source].astype(np.float64)
            vectors[target][:] = total


@dataclass(frozen=True)
class _Dots:
    """A gradient's products with itself, the gradient at the origin, the direction and the history (old to new)."""

    gg: float
    g1: float  # L1 norm
    go: float
    gd: float
    gs: list[float]
    gy: list[float]


class LBFGS(Optimizer):
    """Limited-memory BFGS (Liu, Nocedal, 1989) as torch.optim.LBFGS. BigDL's LBFGS with lswolfe.

    Every training step is one evaluation of loss and gradient at the current parameters. What torch.optim.LBFGS does
    inside of one call of step(closure) happens here over several steps: a step that a line search tries and rejects is
    a training step, too. The search compares losses, so the steps must be of one function: give batch_size = the whole
    data set and no random layers. Regularizers are part of the function; gradient clipping is refused.

    As in PyTorch the first step along the negative gradient is min(1, 1 / |g|_1) * learning_rate long, later searches
    begin at learning_rate. The parameters stay where the L2 norm of the gradient (PyTorch: its largest element) is at
    most tolerance_grad; a search ends where its interval is shorter than tolerance_change.

    Args:
        history_size: pairs kept; the servers hold 2 * history_size + 4 vectors beside the parameters.
        line_search_fn: "strong_wolfe", or None for steps of length learning_rate.
    """

    ranges = {"tolerance_grad": NOT_NEGATIVE, "tolerance_change": POSITIVE}

    def __init__(
        self,
        learning_rate: float = 1.0,
        history_size: int = 10,
        line_search_fn: str | None = "strong_wolfe",
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(learning_rate, schedule, tolerance_grad=tolerance_grad, tolerance_change=tolerance_change)
        if isinstance(history_size, bool) or not isinstance(history_size, int) or history_size < 1:
            raise InputError(f"LBFGS: history_size must be a whole number of at least 1, got {history_size!r}")
        if line_search_fn not in ("strong_wolfe", None):
            raise InputError(f'LBFGS: line_search_fn must be "strong_wolfe" or None, got {line_search_fn!r}')
        self.history_size, self.line_search_fn = history_size, line_search_fn

    tolerance_grad: float
    tolerance_change: float

    def state_values(self) -> dict[str, float]:
        names = [DIRECTION, ORIGIN, ORIGIN_GRADIENT, LOW_GRADIENT]
        names += [_s(k) for k in range(self.history_size)] + [_y(k) for k in range(self.history_size)]
        return dict.fromkeys(names, 0.0)

    def initial_memory(self) -> Memory:
        """What is remembered before step 1."""
        return {"searching": False, "slots": [], "ss": [], "sy": [], "yy": []}

    def dots(self, memory: Memory) -> list[tuple[str, str]]:
        """Pairs of vectors whose dot products `decide` wants."""
        others = [GRADIENT, SIGN, ORIGIN_GRADIENT, DIRECTION]
        others += [_s(k) for k in memory["slots"]] + [_y(k) for k in memory["slots"]]
        return [(GRADIENT, other) for other in others]

    def decide(self, memory: Memory, totals: Sequence[float], loss: float, rate: float) -> tuple[Memory, Move]:
        """What becomes of an evaluation.

        Args:
            memory: of the step before.
            totals: the products of `dots(memory)`.
            loss: the function at the current parameters.
            rate: the learning rate.

        Returns:
            The memory for the next step, and what happens to the vectors.
        """
        pairs = len(memory["slots"])
        now = _Dots(totals[0], totals[1], totals[2], totals[3], list(totals[4 : 4 + pairs]), list(totals[4 + pairs :]))
        if not memory["searching"]:
            start = (Combination(ORIGIN, ((1.0, PARAMETERS),)), Combination(ORIGIN_GRADIENT, ((1.0, GRADIENT),)))
            return self._set_out(memory, now, loss, rate, start)
        if memory["search"] is None:
            return self._arrive(memory, now, loss, rate, memory["t"], GRADIENT)
        search = _thawed(memory["search"])
        verdict = search.evaluated(loss, now.gd)
        if verdict is Verdict.ACCEPT:
            return self._arrive(memory, now, loss, rate, search.t, GRADIENT)
        if verdict is Verdict.ACCEPT_LOW and search.low.t > 0:
            # A low point that was kept earlier: its products are in the memory, its gradient in LOW_GRADIENT.
            return self._arrive(memory, _Dots(**memory["low"]), search.low.f, rate, search.low.t, LOW_GRADIENT)
        if verdict is Verdict.ACCEPT_LOW:
            return self._give_up(memory, rate)
        moves = [Combination(LOW_GRADIENT, ((1.0, GRADIENT),))] if search.keep else []
        moves.append(Combination(PARAMETERS, ((1.0, ORIGIN), (search.t, DIRECTION))))
        low_dots = asdict(now) if search.keep else memory["low"]
        return {**memory, "search": asdict(search), "low": low_dots, "t": search.t}, Move(tuple(moves))

    def _arrive(
        self, memory: Memory, at: _Dots, loss: float, rate: float, t: float, source: str
    ) -> tuple[Memory, Move]:
        """The point origin + t * direction, whose gradient is the vector `source`, is the new origin."""
        old = _Dots(**memory["origin"])
        slots, ss, sy, yy = (list(memory[name]) for name in ("slots", "ss", "sy", "yy"))
        ss, sy, yy = ([list(row) for row in matrix] for matrix in (ss, sy, yy))
        gs, gy = list(at.gs), list(at.gy)
        combinations: list[Combination] = []
        new_sy = t * (at.gd - memory["slope"])
        if new_sy > CURVATURE:
            # s = t * direction and y = g - g of the origin, and with them their products with all that is kept.
            s_s, s_y = [t * v for v in memory["ds"]], [t * v for v in memory["dy"]]
            y_s = [a - b for a, b in zip(at.gs, old.gs, strict=True)]
            y_y = [a - b for a, b in zip(at.gy, old.gy, strict=True)]
            if len(slots) == self.history_size:
                slot = slots.pop(0)
                for matrix in (ss, sy, yy):
                    del matrix[0]
                    for row in matrix:
                        del row[0]
                for row in (s_s, s_y, y_s, y_y, gs, gy):
                    del row[0]
            else:
                slot = len(slots)
            for i in range(len(slots)):
                ss[i].append(s_s[i])
                sy[i].append(y_s[i])
                yy[i].append(y_y[i])
            ss.append([*s_s, t * t * memory["dd"]])
            sy.append([*s_y, new_sy])
            yy.append([*y_y, max(at.gg - 2.0 * at.go + old.gg, 0.0)])
            slots.append(slot)
            gs.append(t * at.gd)
            gy.append(at.gg - at.go)
            combinations.append(Combination(_s(slot), ((t, DIRECTION),)))
            combinations.append(Combination(_y(slot), ((1.0, source), (-1.0, ORIGIN_GRADIENT))))
        combinations.append(Combination(ORIGIN, ((1.0, ORIGIN), (t, DIRECTION))))
        combinations.append(Combination(ORIGIN_GRADIENT, ((1.0, source),)))
        history = {"slots": slots, "ss": ss, "sy": sy, "yy": yy}
        dots = _Dots(at.gg, at.g1, at.gg, 0.0, gs, gy)
        return self._set_out(history, dots, loss, rate, tuple(combinations))

    def _give_up(self, memory: Memory, rate: float) -> tuple[Memory, Move]:
        """No point of the line is better than the origin: forget the history, or stay."""
        forgotten = self.initial_memory()
        origin = _Dots(**memory["origin"])
        if not memory["slots"]:
            return forgotten, Move((Combination(PARAMETERS, ((1.0, ORIGIN),)),))
        dots = _Dots(origin.gg, origin.g1, origin.gg, 0.0, [], [])
        return self._set_out(forgotten, dots, memory["f0"], rate, ())

    def _set_out(
        self, history: Memory, at: _Dots, loss: float, rate: float, before: tuple[Combination, ...]
    ) -> tuple[Memory, Move]:
        """A direction from the origin, whose products are `at`, and the first step along it."""
        slots, ss, sy, yy = (history[name] for name in ("slots", "ss", "sy", "yy"))
        stay = Combination(PARAMETERS, ((1.0, ORIGIN),))
        kept = {"searching": False, "slots": slots, "ss": ss, "sy": sy, "yy": yy}
        if not math.sqrt(max(at.gg, 0.0)) > self.tolerance_grad:
            return kept, Move((*before, stay))
        on_s, on_y, on_g = _two_loops(ss, sy, yy, at.gs, at.gy)
        count = range(len(slots))
        ds = [sum(on_s[i] * ss[i][j] + on_y[i] * sy[j][i] for i in count) + on_g * at.gs[j] for j in count]
        dy = [sum(on_s[i] * sy[i][j] + on_y[i] * yy[i][j] for i in count) + on_g * at.gy[j] for j in count]
        slope = sum(on_s[i] * at.gs[i] + on_y[i] * at.gy[i] for i in count) + on_g * at.gg
        dd = max(sum(on_s[i] * ds[i] + on_y[i] * dy[i] for i in count) + on_g * slope, 0.0)
        if not slope < -self.tolerance_change:
            return kept, Move((*before, stay))
        t = rate if slots else min(1.0, 1.0 / at.g1) * rate
        terms = [(on_g, ORIGIN_GRADIENT)]
        for i, slot in enumerate(slots):
            terms += [(on_s[i], _s(slot)), (on_y[i], _y(slot))]
        search = None
        if self.line_search_fn:
            search = asdict(WolfeSearch.begin(loss, slope, t, math.sqrt(dd), self.tolerance_change))
        memory = {
            **kept, "searching": True, "search": search, "t": t, "f0": loss, "slope": slope, "ds": ds, "dy": dy,
            "dd": dd, "origin": asdict(at), "low": None,
        }  # fmt: skip
        moves = (Combination(DIRECTION, tuple(terms)), Combination(PARAMETERS, ((1.0, ORIGIN), (t, DIRECTION))))
        return memory, Move((*before, *moves))


def _two_loops(
    ss: Sequence[Sequence[float]], sy: Sequence[Sequence[float]], yy: Sequence[Sequence[float]],
    gs: Sequence[float], gy: Sequence[float],
) -> tuple[list[float], list[float], float]:  # fmt: skip
    """Factors of the s, the y and the gradient in -H * g (Nocedal, Wright, algorithm 7.4), from products alone.

    Plain Python numbers: the result must not depend on a host's linear algebra.
    """
    count = len(gs)
    on_s, on_y, on_g = [0.0] * count, [0.0] * count, -1.0
    alphas = [0.0] * count
    for i in reversed(range(count)):
        s_q = sum(on_s[j] * ss[i][j] + on_y[j] * sy[i][j] for j in range(count)) + on_g * gs[i]
        alphas[i] = s_q / sy[i][i]
        on_y[i] -= alphas[i]
    if count:
        scale = sy[-1][-1] / yy[-1][-1] if yy[-1][-1] > 0 else 1.0
        on_s, on_y, on_g = [scale * v for v in on_s], [scale * v for v in on_y], scale * on_g
    for i in range(count):
        y_r = sum(on_s[j] * sy[j][i] + on_y[j] * yy[i][j] for j in range(count)) + on_g * gy[i]
        on_s[i] += alphas[i] - y_r / sy[i][i]
    return on_s, on_y, on_g


def _thawed(fields: Mapping[str, Any]) -> WolfeSearch:
    low, high = Point(*fields["low"]), fields["high"]
    return WolfeSearch(**{**fields, "low": low, "high": None if high is None else Point(*high)})


def _s(slot: int) -> str:
    return f"s{slot}"


def _y(slot: int) -> str:
    return f"y{slot}"
