"""Triggers: when to end, to validate, to write a checkpoint. Asked after every step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from compute.errors import InputError

if TYPE_CHECKING:
    from compute.training import TrainingState


class Trigger(ABC):
    """Base of all triggers; subclass it for one of your own. A pure function of the state."""

    @abstractmethod
    def __call__(self, state: TrainingState) -> bool:
        """Whether the trigger fires after the step that `state` describes."""


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


class and_(Trigger):
    """Fires when all of the triggers do."""

    def __init__(self, *triggers: Trigger) -> None:
        self.triggers = _several("and_", triggers)

    def __call__(self, state: TrainingState) -> bool:
        return all(trigger(state) for trigger in self.triggers)


class or_(Trigger):
    """Fires when any of the triggers does."""

    def __init__(self, *triggers: Trigger) -> None:
        self.triggers = _several("or_", triggers)

    def __call__(self, state: TrainingState) -> bool:
        return any(trigger(state) for trigger in self.triggers)


def _count(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"trigger.{name} needs a whole number of at least 1, got {value!r}")
    return value


def _several(name: str, triggers: tuple[Trigger, ...]) -> tuple[Trigger, ...]:
    if not triggers or not all(isinstance(trigger, Trigger) for trigger in triggers):
        raise InputError(f"trigger.{name} needs triggers, got {triggers!r}")
    return triggers
