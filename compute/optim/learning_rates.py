"""The learning rates of a training in progress, as the lease book keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from compute.optim.groups import Optimizers, by_prefix
from compute.training_state import TrainingState

if TYPE_CHECKING:
    from compute.schedule import Memory
    

class LearningRates:
    """Knows what the schedules have learnt, and so the rate of the next step of every optimizer.

    Attributes:
        feeds_back: whether a rate depends on how the training goes; then the servers must be told the rates.
        memories: what each schedule remembers, by its optimizer's prefix; never changed in place.
    """

    def __init__(self, optimizers: Optimizers, memories: Mapping[str, Memory] | None = None) -> None:
        """
        Args:
            memories: from a checkpoint; None at the start.
        """
        self._optimizers = by_prefix(optimizers)
        self.feeds_back = any(optimizer.schedule.feeds_back for optimizer in self._optimizers.values())
        self.memories: dict[str, Memory] = {
            prefix: (memories or {}).get(prefix) or dict(optimizer.schedule.initial())
            for prefix, optimizer in self._optimizers.items()
            if optimizer.schedule.feeds_back
        }

    def after_step(self, state: TrainingState) -> None:
        """A step is committed."""
        for prefix, memory in self.memories.items():
            self.memories = {**self.memories, prefix: self._optimizers[prefix].schedule.after_step(memory, state)}

    def after_validation(self, state: TrainingState) -> None:
        """A validation is done."""
        for prefix, memory in self.memories.items():
            new = self._optimizers[prefix].schedule.after_validation(memory, state)
            self.memories = {**self.memories, prefix: new}

    def at(self, step: int, epoch: int) -> dict[str, float]:
        """The learning rate of every optimizer at a step, by its prefix, in the order of the prefixes."""
        return {
            prefix: float(
                optimizer.schedule.rate_with(self.memories[prefix], optimizer.learning_rate, step, epoch)
                if prefix in self.memories
                else optimizer.learning_rate_at(step, epoch)
            )
            for prefix, optimizer in self._optimizers.items()
        }

    def main(self, step: int, epoch: int) -> float:
        """The rate that summaries and messages show: that of the optimizer of the rest, else of the first."""
        rates = self.at(step, epoch)
        return rates.get("", next(iter(rates.values())))
