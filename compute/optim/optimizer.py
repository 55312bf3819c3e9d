"""Bases of all optimizers."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.schedule import Default, Schedule

Array = NDArray[np.float32]
Rate = float | NDArray[np.float64]
"""A learning rate for all elements of a block, or one for each; both give the same bits."""

BLOCK = 32768
"""Elements updated at a time: the arrays of a block fit into a second-level cache of 1 MB, and are long enough for what
Python takes for each operation not to count."""


class Range(NamedTuple):
    """What a hyper-parameter may be."""

    low: float = 0.0
    high: float = math.inf
    open_low: bool = False
    open_high: bool = True

    def holds(self, value: object) -> bool:
        """Whether `value` is a number in the range."""
        if isinstance(value, bool) or not isinstance(value, int | float | np.floating) or not math.isfinite(value):
            return False
        above = value > self.low if self.open_low else value >= self.low
        return bool(above and (value < self.high if self.open_high else value <= self.high))

    def __str__(self) -> str:
        left = "(" if self.open_low or self.low == -math.inf else "["
        return f"{left}{self.low:g}, {self.high:g}{')' if self.open_high else ']'}"


NOT_NEGATIVE = Range()
POSITIVE = Range(open_low=True)
FRACTION = Range(0.0, 1.0)
ANY = Range(-math.inf)


class Optimizer(ABC):
    """Base of all optimizers. An object holds settings only; what changes in training is kept by ParameterUpdate.

    Attributes:
        ranges: hyper-parameters that are numbers, and what they may be; a schedule.EpochSchedule may swap them.
    """

    ranges: ClassVar[Mapping[str, Range]] = {}

    def __init__(self, learning_rate: float, schedule: Schedule | None = None, **settings: float) -> None:
        """
        Raises:
            InputError: a setting is out of its range.
        """
        if schedule is not None and not isinstance(schedule, Schedule):
            raise InputError(f"{self.kind}: schedule must be one of compute.schedule, got {schedule!r}")
        self.schedule = schedule or Default()
        self._set({"learning_rate": learning_rate, **settings})

    learning_rate: float

    @property
    def kind(self) -> str:
        """Name of the class, for messages and checkpoints."""
        return type(self).__name__

    @abstractmethod
    def state_values(self) -> dict[str, float]:
        """Names of the state's arrays, float32 with an element for each parameter, and their first value."""

    def learning_rate_at(self, step: int, epoch: int) -> float:
        """The learning rate of a step, which belongs to an epoch; both count from 1.

        Of a schedule that feeds back, before anything was observed; optim.LearningRates knows the rate in training.
        """
        return float(self.schedule.rate(self.learning_rate, step, epoch))

    def at(self, step: int, epoch: int) -> Self:
        """The optimizer with the settings of a step: itself, or a copy where the schedule swaps settings."""
        settings = self.schedule.settings(step, epoch)
        if not settings:
            return self
        other = copy.copy(self)
        other._set(settings)
        return other

    def check(self, metrics: Sequence[str] = ()) -> None:
        """Validates what the schedule asks for: settings that exist, metrics that the validation gives.

        Raises:
            InputError: it does not fit.
        """
        for settings in self.schedule.possible_settings():
            copy.copy(self)._set(settings)
        self.schedule.check(metrics)

    def ever(self, name: str) -> bool:
        """Whether a setting is ever other than zero, whatever the schedule does."""
        return bool(getattr(self, name)) or any(s.get(name) for s in self.schedule.possible_settings())

    def _set(self, settings: Mapping[str, float]) -> None:
        ranges = {"learning_rate": NOT_NEGATIVE, **self.ranges}
        for name, value in settings.items():
            if name not in ranges:
                raise InputError(f"{self.kind} has no setting {name!r} that a schedule could set: it has {[*ranges]}")
            if not ranges[name].holds(value):
                raise InputError(f"{self.kind}: {name} must be a number in {ranges[name]}, got {value!r}")
            setattr(self, name, float(value))


class ElementwiseOptimizer(Optimizer):
    """An optimizer that updates every element for itself: however the vector is cut, the bits are the same.

    Subclass it for one of your own: `state_values` and `update_block`, with one numpy operation per rounding.

    Attributes:
        work_arrays: how many scratch arrays `update_block` wants.
        layerwise: whether the rate of each parameter is multiplied by `trust` of its norms.
    """

    work_arrays: ClassVar[int] = 2
    layerwise: ClassVar[bool] = False

    @abstractmethod
    def update_block(
        self, p: Array, g: Array, state: Mapping[str, Array], rate: Rate, step: int, work: Sequence[Array]
    ) -> None:
        """Updates a block in place.

        Args:
            p, g: parameters and gradients, float32 (n,); g is left as it is.
            state: the state's arrays, float32 (n,) each.
            rate: the learning rate, a number or float64 (n,); see `single`.
            step: from 1.
            work: scratch, float32 (n,) each.
        """

    def trust(self, weight_norm: float, gradient_norm: float) -> float:
        """Factor of the rate of a parameter with these L2 norms; for `layerwise` optimizers."""
        return 1.0

    def init(self, size: int) -> dict[str, Array]:
        """The state of a slice of `size` elements before step 1: float32 (size,) each, by checkpoint name."""
        return {name: np.full(size, value, dtype=np.float32) for name, value in self.state_values().items()}

    def update(self, parameters: Array, gradients: Array, state: dict[str, Array], step: int, epoch: int) -> None:
        """Updates parameters and state in place, float32 (size,) each; gradients are left as they are."""
        rate, now = self.learning_rate_at(step, epoch), self.at(step, epoch)
        scratch = [np.empty(min(BLOCK, parameters.size), dtype=np.float32) for _ in range(self.work_arrays)]
        for start in range(0, parameters.size, BLOCK):
            block = slice(start, min(start + BLOCK, parameters.size))
            work = [array[: block.stop - start] for array in scratch]
            views = {name: array[block] for name, array in state.items()}
            now.update_block(parameters[block], gradients[block], views, rate, step, work)


def single(value: Rate) -> np.float32 | Array:
    """A rate, or what was computed from one in float64, rounded to float32."""
    return value.astype(np.float32) if isinstance(value, np.ndarray) else np.float32(value)
