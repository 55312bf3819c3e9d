"""Triggers: when to end, to validate, to write a checkpoint. Asked after every step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from compute.errors import InputError
from compute.training_state import TrainingState


class Trigger(ABC):
    """Base of all triggers; subclass it for one of your own. A pure function of the state."""

    @abstractmethod
    def __call__(self, state: TrainingState) -> bool:
        """Whether the trigger fires after the step that `state` describes."""

    def __and__(self, other: Trigger) -> Trigger:
        """`a & b` fires when both do."""
        return and_(self, other)

    def __or__(self, other: Trigger) -> Trigger:
        """`a | b` fires when one of them does."""
        return or_(self, other)

    def check(self, metrics: Sequence[str]) -> None:  # noqa: B027 - most have nothing to check
        """Raises InputError if the trigger needs a metric that the validation (of these metrics) does not give."""


class max_epoch(Trigger):
    """Fires when `epochs` epochs are finished."""

    def __init__(self, epochs: int) -> None:
        self.epochs = _count("max_epoch", epochs)

    def __call__(self, state: TrainingState) -> bool:
        return state.epoch > self.epochs or (state.epoch == self.epochs and state.epoch_finished)


class max_iteration(Trigger):
    """Fires when `steps` steps are finished."""

    def __init__(self, steps: int) -> None:
        self.steps = _count("max_iteration", steps)

    def __call__(self, state: TrainingState) -> bool:
        return state.step >= self.steps


class every_epoch(Trigger):
    """Fires at the end of each epoch."""

    def __call__(self, state: TrainingState) -> bool:
        return state.epoch_finished


class several_iteration(Trigger):
    """Fires every `interval` steps."""

    def __init__(self, interval: int) -> None:
        self.interval = _count("several_iteration", interval)

    def __call__(self, state: TrainingState) -> bool:
        return state.step > 0 and state.step % self.interval == 0


class min_loss(Trigger):
    """Fires when the mean loss of the last step's samples is below `loss`."""

    def __init__(self, loss: float) -> None:
        self.loss = _finite("min_loss", loss)

    def __call__(self, state: TrainingState) -> bool:
        return state.loss < self.loss


class max_score(Trigger):
    """Fires when a metric's value in the last validation is above `score`.

    Args:
        metric: the metric's name; may be left out where the validation has only one.
    """

    def __init__(self, score: float, metric: str | None = None) -> None:
        self.score = _finite("max_score", score)
        if metric is not None and not isinstance(metric, str):
            raise InputError(f"trigger.max_score: metric must be a metric's name, got {metric!r}")
        self.metric = metric

    def __call__(self, state: TrainingState) -> bool:
        if not state.metrics:
            return False
        name = next(iter(state.metrics)) if self.metric is None else self.metric
        return state.metrics[name] > self.score

    def check(self, metrics: Sequence[str]) -> None:
        known = ", ".join(metrics) or "none"
        if self.metric is None and len(metrics) != 1:
            raise InputError(
                f"trigger.max_score needs a validation with one metric, or the name of one (metrics: {known})"
            )
        if self.metric is not None and self.metric not in metrics:
            raise InputError(f"trigger.max_score: the validation has no metric {self.metric!r} (metrics: {known})")


class and_(Trigger):
    """Fires when all of the triggers do."""

    def __init__(self, *triggers: Trigger) -> None:
        self.triggers = _several("and_", triggers)

    def check(self, metrics: Sequence[str]) -> None:
        for trigger in self.triggers:
            trigger.check(metrics)

    def __call__(self, state: TrainingState) -> bool:
        return all(trigger(state) for trigger in self.triggers)


class or_(Trigger):
    """Fires when any of the triggers does."""

    def __init__(self, *triggers: Trigger) -> None:
        self.triggers = _several("or_", triggers)

    def check(self, metrics: Sequence[str]) -> None:
        for trigger in self.triggers:
            trigger.check(metrics)

    def __call__(self, state: TrainingState) -> bool:
        return any(trigger(state) for trigger in self.triggers)


def _count(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"trigger.{name} needs a whole number of at least 1, got {value!r}")
    return value


def _finite(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"trigger.{name} needs a number, got {value!r}")
    return float(value)


def _several(name: str, triggers: tuple[Trigger, ...]) -> tuple[Trigger, ...]:
    if not triggers or not all(isinstance(trigger, Trigger) for trigger in triggers):
        raise InputError(f"trigger.{name} needs triggers, got {triggers!r}")
    return triggers
