"""Base of all learning-rate schedules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from compute.errors import InputError
from compute.training_state import TrainingState

Memory = Mapping[str, float]
"""What a schedule has learnt from the training so far. Never changed in place: it is in checkpoints."""


class Schedule(ABC):
    """Base of all schedules; subclass it for one of your own. Steps and epochs count from 1.

    `rate` is a pure function, so that a resumed run continues it. A schedule that reacts to how the training goes
    (`feeds_back`) keeps what it knows in a memory that the lease book holds and every checkpoint has; all servers are
    told the rate of each step.
    """

    feeds_back = False
    """Whether the rate depends on losses or metrics."""

    @abstractmethod
    def rate(self, learning_rate: float, step: int, epoch: int) -> float:
        """The learning rate of `step`, which belongs to `epoch`; `learning_rate` is the optimizer's."""

    def settings(self, step: int, epoch: int) -> Mapping[str, float]:
        """Other hyper-parameters of the optimizer that have a value of their own at this step, by name."""
        return {}

    def possible_settings(self) -> Sequence[Mapping[str, float]]:
        """All that `settings` may ever give."""
        return ()

    # --- of schedules that feed back only ---------------------------------------------------------------------------

    def initial(self) -> Memory:
        """The memory before step 1."""
        return {}

    def after_step(self, memory: Memory, state: TrainingState) -> Memory:
        """The memory after a step, before the validation that may follow it."""
        return memory

    def after_validation(self, memory: Memory, state: TrainingState) -> Memory:
        """The memory after a validation. A resumed run validates the same step again, which must change nothing."""
        return memory

    def rate_with(self, memory: Memory, learning_rate: float, step: int, epoch: int) -> float:
        """The learning rate of a step, given what was learnt before it."""
        return self.rate(learning_rate, step, epoch)

    def check(self, metrics: Sequence[str]) -> None:  # noqa: B027 - most have nothing to check
        """Raises InputError if the schedule needs a metric that the validation (of these metrics) does not give."""


def whole(name: str, value: int, least: int) -> int:
    """`value`; raises InputError unless it is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"schedule.{name} must be a whole number of at least {least}, got {value!r}")
    return value


def number(name: str, value: float, low: float, high: float = float("inf"), strictly: bool = False) -> float:
    """`value` as a float; raises InputError unless low <= value <= high, or with `strictly` low < value < high."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and (low < value < high if strictly else low <= value <= high and abs(value) != float("inf"))):
        limits = f"above {low:g}" if strictly else f"at least {low:g}"
        if high != float("inf"):
            limits += f" and {'below' if strictly else 'at most'} {high:g}"
        raise InputError(f"schedule.{name} must be a number {limits}, got {value!r}")
    return float(value)
