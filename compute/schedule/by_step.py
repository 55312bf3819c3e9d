"""Schedules that count steps. Everywhere n = step - 1 is the number of steps before this one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from compute.errors import InputError
from compute.schedule.schedule import Schedule, number, whole


class Default(Schedule):
    """learning_rate / (1 + n * decay)."""

    def __init__(self, decay: float = 0.0) -> None:
        self.decay = number("Default: decay", decay, 0)

    def rate(self, learning_rate: float, step: int, epoch: int) -> float:
        return learning_rate / (1.0 + (step - 1) * self.decay)


class Step(Schedule):
    """learning_rate * gamma ** floor(n / step_size). PyTorch's StepLR, stepped at every step."""

    def __init__(self, step_size: int, gamma: float) -> None:
        self.step_size = whole("Step: step_size", step_size, 1)
        self.gamma = number("Step: gamma", gamma, 0, strictly=True)

    def rate(self, learning_rate: float, step: int, epoch: int) -> float:
        return learning_rate * float(self.gamma ** ((step - 1) // self.step_size))


class MultiStep(Schedule):
    """learning_rate * gamma ** (how many milestones are <= n). PyTorch's MultiStepLR, stepped at every step."""

    def __init__(self, milestones: Sequence[int], gamma: float) -> None:
        self.milestones = [whole("MultiStep: a milestone", milestone, 1) for milestone in milestones]
        if not self.milestones or self.milestones != sorted(set(self.milestones)):
            raise InputError(f"schedule.MultiStep: milestones must be given and ascend, got {list(milestones)}")
        self.gamma = number("MultiStep: gamma", gamma, 0, strictly=True)

    def rate(self, learning_rate: float, step: int, epoch: int) -> float:
        return learning_rate * float(self.gamma ** sum(milestone <= step - 1 for milestone in self.milestones))


class Poly(Schedule):
    """learning_rate * (1 - n / total_steps) ** power; 0 from n = total_steps on. PyTorch's PolynomialLR."""

    def __init__(self, power: float, total_steps: int) -> None:
        self.power = number("Poly: power", power, 0, strictly=True)
        self.total_steps = whole("Poly: total_steps", total_steps, 1)

    def rate(self, learning_rate: float, step: int, epoch: int) -> float:
        return learning_rate * float(max(0.0, 1.0 - (step - 1) / self.total_steps) ** self.power)


class Exponential(Schedule):
    """learning_rate * gamma ** (n / decay_steps), the exponent rounded down with `staircase`."""

    def __init__(self, decay_steps: int, gamma: float, staircase: bool = False) -> None:
        self.decay_steps = whole("Exponential: decay_steps", decay_steps, 1)
        self.gamma = number("Exponential: gamma", gamma, 0, strictly=True)
        self.staircase = bool(staircase)

    def rate(self, learning_rate: float, step: int, epoch: int) -> float:
        n = step - 1
        return learning_rate * float(self.gamma ** (n // self.decay_steps if self.staircase else n / self.decay_steps))


class NaturalExp(Schedule):
    """learning_rate * exp(-gamma * floor(n / decay_steps))."""

    def __init__(self, decay_steps: int, gamma: float) -> None:
        self.decay_steps = whole("NaturalExp: decay_steps", decay_steps, 1)
        self.gamma = number("NaturalExp: gamma", gamma, 0)

    def rate(self, learning_rate: float, step: int, epoch: int) -> float:
        return learning_rate * math.exp(-self.gamma * ((step - 1) // self.decay_steps))


class Warmup(Schedule):
    """learning_rate + delta * n, without end: the first part of a SequentialSchedule."""

    def __init__(self, delta: float) -> None:
        self.delta = number("Warmup: delta", delta, float("-inf"))

    def rate(self, learning_rate: float, step: int, epoch: int) -> float:
        return learning_rate + self.delta * (step - 1)


class CosineWithWarmup(Schedule):
    """A line up to learning_rate, then half a cosine down to `minimum` (Loshchilov, Hutter: SGDR, 2017).

    n < warmup_steps:  learning_rate * (n + 1) / warmup_steps
    n < total_steps:   minimum + (learning_rate - minimum) * (1 + cos(pi * (n - warmup_steps) / (total_steps -
    warmup_steps))) / 2
    afterwards:        minimum
    """

    def __init__(self, warmup_steps: int, total_steps: int, minimum: float = 0.0) -> None:
        self.warmup_steps = whole("CosineWithWarmup: warmup_steps", warmup_steps, 0)
        self.total_steps = whole("CosineWithWarmup: total_steps", total_steps, warmup_steps + 1)
        self.minimum = number("CosineWithWarmup: minimum", minimum, 0)

    def rate(self, learning_rate: float, step: int, epoch: int) -> float:
        n = step - 1
        if n < self.warmup_steps:
            return learning_rate * (n + 1) / self.warmup_steps
        if n >= self.total_steps:
            return self.minimum
        done = (n - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return self.minimum + (learning_rate - self.minimum) * (1.0 + math.cos(math.pi * done)) / 2.0


class OneCycle(Schedule):
    """PyTorch's OneCycleLR with two phases (Smith, Topin: Super-Convergence, 2019); learning_rate is the highest rate.

    From learning_rate / div_factor up to learning_rate at n = pct_start * total_steps - 1, and from there down to
    learning_rate / div_factor / final_div_factor at n = total_steps - 1, where it stays; along half a cosine or a line
    (anneal_strategy "cos" or "linear"). The momentum is left as it is.
    """

    def __init__(
        self,
        total_steps: int,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        self.total_steps = whole("OneCycle: total_steps", total_steps, 2)
        self.pct_start = number("OneCycle: pct_start", pct_start, 0, 1)
        if anneal_strategy not in ("cos", "linear"):
            raise InputError(f'schedule.OneCycle: anneal_strategy must be "cos" or "linear", got {anneal_strategy!r}')
        self.anneal_strategy = anneal_strategy
        self.div_factor = number("OneCycle: div_factor", div_factor, 0, strictly=True)
        self.final_div_factor = number("OneCycle: final_div_factor", final_div_factor, 0, strictly=True)

    def rate(self, learning_rate: float, step: int, epoch: int) -> float:
        n, peak, last = min(step, self.total_steps) - 1, self.pct_start * self.total_steps - 1, self.total_steps - 1
        first = learning_rate / self.div_factor
        if n <= peak:
            return self._between(first, learning_rate, n / peak if peak > 0 else 1.0)
        done = (n - peak) / (last - peak) if last > peak else 1.0
        return self._between(learning_rate, first / self.final_div_factor, done)

    def _between(self, start: float, end: float, share: float) -> float:
        if self.anneal_strategy == "cos":
            return end + (start - end) / 2.0 * (1.0 + math.cos(math.pi * share))
        return start + (end - start) * share
