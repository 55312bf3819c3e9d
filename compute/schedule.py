"""Learning-rate schedules. Steps and epochs count from 1, as everywhere."""

from __future__ import annotations

from abc import ABC, abstractmethod

from compute.errors import InputError


class Schedule(ABC):
    """Base of all schedules; subclass it for one of your own. A pure function, so that a resumed run continues it."""

    @abstractmethod
    def rate(self, learning_rate: float, step: int, epoch: int) -> float:
        """The learning rate of `step`, which belongs to `epoch`; `learning_rate` is the optimizer's."""


class Default(Schedule):
    """learning_rate / (1 + n * decay), n = step - 1 the number of steps before this one."""

    def __init__(self, decay: float = 0.0) -> None:
        if not decay >= 0:
            raise InputError(f"schedule.Default: decay must not be negative, got {decay}")
        self.decay = float(decay)

    def rate(self, learning_rate: float, step: int, epoch: int) -> float:
        return learning_rate / (1.0 + (step - 1) * self.decay)


class EpochStep(Schedule):
    """learning_rate * gamma ** floor(epoch / step_size): the first drop is at epoch `step_size`, as in BigDL."""

    def __init__(self, step_size: int, gamma: float) -> None:
        if isinstance(step_size, bool) or not isinstance(step_size, int) or step_size < 1:
            raise InputError(f"schedule.EpochStep: step_size must be a whole number of at least 1, got {step_size!r}")
        if not gamma > 0:
            raise InputError(f"schedule.EpochStep: gamma must be positive, got {gamma}")
        self.step_size, self.gamma = step_size, float(gamma)

    def rate(self, learning_rate: float, step: int, epoch: int) -> float:
        return learning_rate * float(self.gamma ** (epoch // self.step_size))
