"""A line search for the strong Wolfe conditions, one evaluation at a time.

Nocedal, Wright: Numerical Optimization (2006), algorithms 3.5 and 3.6: first the step grows until an interval is known
to hold a good point, then that interval shrinks, both by cubic interpolation (equation 3.59). The constants and the
safeguards of torch.optim.LBFGS, so that both evaluate at the same points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

C1 = 1e-4
C2 = 0.9
MAX_EVALUATIONS = 25
GROWTH = (1.01, 10.0)
"""While it grows, the next step lies between last + 0.01 * (last - the one before) and 10 * last."""
EDGE = 0.1
"""A trial nearer to an end of the interval than this share of its width is a sign of too little progress."""


class Point(NamedTuple):
    """A step along the direction, the function there, and its slope along the direction."""

    t: float
    f: float
    slope: float


class Verdict(Enum):
    """What to do next."""

    TRY = "try"  # evaluate at `t`
    ACCEPT = "accept"  # the point just evaluated is good
    ACCEPT_LOW = "accept low"  # the best that was kept is good enough (t = 0: no progress could be made)


@dataclass
class WolfeSearch:
    """State of a search; all of it is in checkpoints.

    Attributes:
        f0, slope0: at t = 0; slope0 < 0.
        t: where to evaluate.
        width: norm of the direction; an interval is given up when its width in space is below `tolerance`.
        low: the best point so far, whose gradient is worth keeping; while the step grows, the last one.
        high: other end of the interval; None while the step grows.
        keep: after `evaluated`, whether the point just evaluated has become `low`.
    """

    f0: float
    slope0: float
    t: float
    width: float
    tolerance: float
    low: Point = field(default=Point(0.0, 0.0, 0.0))
    high: Point | None = None
    evaluations: int = 0
    stuck: bool = False
    keep: bool = False

    @classmethod
    def begin(cls, f0: float, slope0: float, t: float, width: float, tolerance: float) -> WolfeSearch:
        """A search whose first evaluation is at `t`."""
        return cls(f0, slope0, t, width, tolerance, low=Point(0.0, f0, slope0))

    def evaluated(self, f: float, slope: float) -> Verdict:
        """Takes the function and its slope at `t`."""
        point = Point(self.t, f, slope)
        self.keep = False
        return self._grow(point) if self.high is None else self._shrink(point)

    def _too_high(self, point: Point) -> bool:
        return point.f > self.f0 + C1 * point.t * self.slope0

    def _flat(self, point: Point) -> bool:
        return abs(point.slope) <= -C2 * self.slope0

    def _grow(self, point: Point) -> Verdict:
        last = self.low
        if self.evaluations == MAX_EVALUATIONS:
            return self._enclose(Point(0.0, self.f0, self.slope0), point)
        if self._too_high(point) or (self.evaluations > 1 and point.f >= last.f):
            return self._enclose(last, point)
        if self._flat(point):
            return Verdict.ACCEPT
        if point.slope >= 0:
            return self._enclose(last, point)
        least = point.t + (GROWTH[0] - 1.0) * (point.t - last.t)
        self.t = cubic_minimum(last, point, least, GROWTH[1] * point.t)
        self.low, self.keep = point, True
        self.evaluations += 1
        return Verdict.TRY

    def _enclose(self, last: Point, point: Point) -> Verdict:
        """The interval between the last two points holds a minimum."""
        self.keep = not last.f <= point.f
        self.low, self.high = (point, last) if self.keep else (last, point)
        return self._propose(point)

    def _shrink(self, point: Point) -> Verdict:
        if self.high is None:
            raise RuntimeError("there is no interval to shrink")
        if self._too_high(point) or point.f >= self.low.f:
            self.high = point
            if self.high.f < self.low.f:
                self.low, self.high, self.keep = self.high, self.low, True
        else:
            if self._flat(point):
                return Verdict.ACCEPT
            if point.slope * (self.high.t - self.low.t) >= 0:
                self.high = self.low
            self.low, self.keep = point, True
        return self._propose(point)

    def _propose(self, point: Point) -> Verdict:
        if self.high is None:
            raise RuntimeError("there is no interval to shrink")
        left, right = sorted((self.low.t, self.high.t))
        if self.evaluations >= MAX_EVALUATIONS or (right - left) * self.width < self.tolerance:
            return Verdict.ACCEPT if self.low.t == point.t else Verdict.ACCEPT_LOW
        t = cubic_minimum(self.low, self.high, left, right)
        margin = EDGE * (right - left)
        near = min(right - t, t - left) < margin
        if near and (self.stuck or t >= right or t <= left):
            t = right - margin if abs(t - right) < abs(t - left) else left + margin
            near = False
        self.stuck = near
        self.t = t
        self.evaluations += 1
        return Verdict.TRY


def cubic_minimum(a: Point, b: Point, low: float, high: float) -> float:
    """Where the cubic through two points with their slopes is least, forced into [low, high]; else the middle."""
    if a.t > b.t:
        a, b = b, a
    middle = (low + high) / 2.0
    width = b.t - a.t
    if width == 0:
        return middle
    d1 = a.slope + b.slope - 3.0 * (a.f - b.f) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return middle
    d2 = math.sqrt(square)
    divisor = b.slope - a.slope + 2.0 * d2
    t = b.t - width * ((b.slope + d2 - d1) / divisor) if divisor else math.nan
    return min(max(t, low), high) if math.isfinite(t) else middle
