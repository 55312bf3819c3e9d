"""Base of all optimizers."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.schedule import Default, Schedule

Array = NDArray[np.float32]


class Optimizer(ABC):
    """Updates a slice of the parameters, element by element: however the vector is sliced, the bits are the same.

    Subclass it for one of your own. `self` holds the settings only; what changes is in the state.
    """

    def __init__(self, learning_rate: float, schedule: Schedule | None = None) -> None:
        if not (np.isfinite(learning_rate) and learning_rate >= 0):
            raise InputError(f"learning_rate must be a number that is not negative, got {learning_rate}")
        self.learning_rate = float(learning_rate)
        self.schedule = schedule or Default()

    @abstractmethod
    def init(self, size: int) -> dict[str, Array]:
        """The state of a slice of `size` elements before step 1: float32 (size,) each, by checkpoint name."""

    @abstractmethod
    def update(self, parameters: Array, gradients: Array, state: dict[str, Array], step: int, epoch: int) -> None:
        """Updates parameters and state in place, float32 (size,) each; gradients are left as they are."""

    def learning_rate_at(self, step: int, epoch: int) -> float:
        """The learning rate of a step, which belongs to an epoch; both count from 1."""
        return float(self.schedule.rate(self.learning_rate, step, epoch))
