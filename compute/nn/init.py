"""Initializers of parameters. Each draws from a `Stream`, so that it gives the same values on every machine."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from compute.described import Described
from compute.errors import InputError
from compute.philox import Stream


class Initializer(Described, ABC):
    """Base of all initializers; subclass it for one of your own."""

    @abstractmethod
    def __call__(self, shape: tuple[int, ...], stream: Stream) -> NDArray[np.float32]:
        """The initial values, float32 of `shape`; random ones come from `stream` only."""


class Constant(Initializer):
    """Every element is `value`."""

    def __init__(self, value: float) -> None:
        self.value = float(value)

    def __call__(self, shape: tuple[int, ...], stream: Stream) -> NDArray[np.float32]:
        return np.full(shape, self.value, dtype=np.float32)


class Zeros(Constant):
    """Every element is 0."""

    def __init__(self) -> None:
        super().__init__(0.0)


class Ones(Constant):
    """Every element is 1."""

    def __init__(self) -> None:
        super().__init__(1.0)


class RandomUniform(Initializer):
    """Uniform in [low, high)."""

    def __init__(self, low: float, high: float) -> None:
        if not low <= high:
            raise InputError(f"RandomUniform needs low <= high, got {low} and {high}")
        self.low, self.high = float(low), float(high)

    def __call__(self, shape: tuple[int, ...], stream: Stream) -> NDArray[np.float32]:
        # Multiply, add and round in float64: each is exactly defined by IEEE 754, so all machines agree.
        return (self.low + (self.high - self.low) * stream.uniform64(shape)).astype(np.float32)


class FanIn(RandomUniform):
    """Uniform in +-1/sqrt(fan_in): the default of Torch and BigDL for convolutions and linear layers."""

    def __init__(self, fan_in: int) -> None:
        bound = 1.0 / float(np.sqrt(np.float64(fan_in)))
        super().__init__(-bound, bound)
