"""Schedules that count epochs, from 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from compute.errors import InputError
from compute.schedule.schedule import Schedule, number, whole


class EpochStep(Schedule):
    """learning_rate * gamma ** floor(epoch / step_size): the first drop is at epoch `step_size`, as in BigDL."""

    def __init__(self, step_size: int, gamma: float) -> None:
        self.step_size = whole("EpochStep: step_size", step_size, 1)
        self.gamma = number("EpochStep: gamma", gamma, 0, strictly=True)

    def rate(self, learning_rate: float, step: int, epoch: int) -> float:
        return learning_rate * float(self.gamma ** (epoch // self.step_size))


class EpochDecay(Schedule):
    """learning_rate * 0.1 ** decay(epoch), `decay` a function of one's own."""

    def __init__(self, decay: Callable[[int], float]) -> None:
        self.decay = _function("EpochDecay", decay)

    def rate(self, learning_rate: float, step: int, epoch: int) -> float:
        return learning_rate * float(0.1 ** self.decay(epoch))


class EpochDecayWithWarmUp(Schedule):
    """n < warmup_steps: learning_rate + delta * n, n = step - 1; then (learning_rate + delta * warmup_steps) * 0.1 **
    decay(epoch), `decay` a function of one's own.
    """

    def __init__(self, warmup_steps: int, delta: float, decay: Callable[[int], float]) -> None:
        self.warmup_steps = whole("EpochDecayWithWarmUp: warmup_steps", warmup_steps, 0)
        self.delta = number("EpochDecayWithWarmUp: delta", delta, float("-inf"))
        self.decay = _function("EpochDecayWithWarmUp", decay)

    def rate(self, learning_rate: float, step: int, epoch: int) -> float:
        if step - 1 < self.warmup_steps:
            return learning_rate + self.delta * (step - 1)
        return (learning_rate + self.delta * self.warmup_steps) * float(0.1 ** self.decay(epoch))


@dataclass(frozen=True)
class Regime:
    """Hyper-parameters (learning_rate, momentum ...) of the epochs start_epoch to end_epoch, both included."""

    start_epoch: int
    end_epoch: int
    settings: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        whole("Regime: start_epoch", self.start_epoch, 1)
        whole("Regime: end_epoch", self.end_epoch, self.start_epoch)
        if not self.settings:
            raise InputError("schedule.Regime needs settings such as {'learning_rate': 0.01}")
        for name, value in self.settings.items():
            number(f"Regime: {name}", value, float("-inf"))


class EpochSchedule(Schedule):
    """Swaps hyper-parameters per range of epochs. What a regime has set stays until another sets it, as in BigDL."""

    def __init__(self, regimes: Sequence[Regime]) -> None:
        self.regimes = list(regimes)
        if not self.regimes or not all(isinstance(regime, Regime) for regime in self.regimes):
            raise InputError(f"schedule.EpochSchedule needs schedule.Regime objects, got {regimes!r}")

    def rate(self, learning_rate: float, step: int, epoch: int) -> float:
        return float(self._current(epoch).get("learning_rate", learning_rate))

    def settings(self, step: int, epoch: int) -> Mapping[str, float]:
        return {name: value for name, value in self._current(epoch).items() if name != "learning_rate"}

    def possible_settings(self) -> Sequence[Mapping[str, float]]:
        return [regime.settings for regime in self.regimes]

    def _current(self, epoch: int) -> dict[str, float]:
        begun = [regime for regime in self.regimes if regime.start_epoch <= epoch]
        current: dict[str, float] = {}
        for regime in sorted(begun, key=lambda regime: min(regime.end_epoch, epoch)):
            current.update(regime.settings)
        return current


def _function(name: str, decay: Callable[[int], float]) -> Callable[[int], float]:
    if not callable(decay):
        raise InputError(f"schedule.{name}: decay must be a function of the epoch, got {decay!r}")
    return decay
