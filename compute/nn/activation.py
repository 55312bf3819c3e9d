"""Activations made of straight pieces. Smooth ones are in smooth.py, learnt and random ones in learnt_activation.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.elementwise import Elementwise, number
from compute.nn.layer import Array


class ReLU(Elementwise):
    """max(x, 0), element by element; its gradient at 0 is 0. Any shape. torch.nn.ReLU."""

    def function(self, x: Array) -> Array:
        return np.maximum(x, np.float32(0))

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return x > 0


class LeakyReLU(Elementwise):
    """x where x > 0, else negative_slope * x. Any shape. torch.nn.LeakyReLU."""

    def __init__(self, negative_slope: float = 0.01, name: str | None = None) -> None:
        super().__init__(name)
        (self.negative_slope,) = number(self.kind, negative_slope=negative_slope)

    def function(self, x: Array) -> Array:
        return np.where(x > 0, x, x * np.float32(self.negative_slope))

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return np.where(x > 0, np.float32(1), np.float32(self.negative_slope))


class Hardtanh(Elementwise):
    """min(max(x, min_val), max_val); its gradient at and beyond the ends is 0. Any shape. torch.nn.Hardtanh."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, name: str | None = None) -> None:
        super().__init__(name)
        if not min_val < max_val:
            raise InputError(f"{self.kind}: the lower bound must be below the upper, got {min_val!r} and {max_val!r}")
        self.min_val, self.max_val = float(min_val), float(max_val)

    def function(self, x: Array) -> Array:
        return np.clip(x, np.float32(self.min_val), np.float32(self.max_val))

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return (x > np.float32(self.min_val)) & (x < np.float32(self.max_val))


class ReLU6(Hardtanh):
    """min(max(x, 0), 6). Any shape. torch.nn.ReLU6."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(0.0, 6.0, name)


class Clamp(Hardtanh):
    """min(max(x, min), max): Hardtanh under the name it has in arithmetic; BigDL's Clamp. Any shape.

    An end may be infinite. As in torch.clamp the gradient at the ends themselves is 1.
    """

    def __init__(self, min: float, max: float, name: str | None = None) -> None:
        super().__init__(min, max, name)

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return (x >= np.float32(self.min_val)) & (x <= np.float32(self.max_val))


class Hardsigmoid(Elementwise):
    """min(max(alpha * x + beta, 0), 1); its gradient at the bends is 0. Any shape.

    The defaults are torch.nn.Hardsigmoid's; BigDL's and Keras' HardSigmoid has alpha 0.2.
    """

    def __init__(self, alpha: float = 1 / 6, beta: float = 0.5, name: str | None = None) -> None:
        super().__init__(name)
        self.alpha, self.beta = number(self.kind, alpha=alpha, beta=beta)

    def function(self, x: Array) -> Array:
        return np.asarray(np.clip(x * np.float32(self.alpha) + np.float32(self.beta), np.float32(0), np.float32(1)))

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return ((y > 0) & (y < 1)) * np.float32(self.alpha)


class Hardswish(Elementwise):
    """x * min(max(alpha * x + beta, 0), 1). Any shape. Howard et al. (2019); torch.nn.Hardswish."""

    alpha, beta = 1 / 6, 0.5

    def function(self, x: Array) -> Array:
        return x * self._gate(x)

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        gate = self._gate(x)
        return np.where((gate > 0) & (gate < 1), x * np.float32(2 * self.alpha) + np.float32(self.beta), gate)

    def _gate(self, x: Array) -> Array:
        return np.asarray(np.clip(x * np.float32(self.alpha) + np.float32(self.beta), np.float32(0), np.float32(1)))


class Threshold(Elementwise):
    """x where x > threshold, else value. Any shape. torch.nn.Threshold."""

    def __init__(self, threshold: float, value: float, name: str | None = None) -> None:
        super().__init__(name)
        self.threshold, self.value = number(self.kind, threshold=threshold, value=value)

    def function(self, x: Array) -> Array:
        return np.where(x > np.float32(self.threshold), x, np.float32(self.value))

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return x > np.float32(self.threshold)


class BinaryThreshold(Elementwise):
    """1 where x > threshold, else 0; no gradient passes. Any shape. BigDL's BinaryThreshold."""

    def __init__(self, threshold: float = 1e-6, name: str | None = None) -> None:
        super().__init__(name)
        (self.threshold,) = number(self.kind, threshold=threshold)

    def function(self, x: Array) -> NDArray[Any]:
        return x > np.float32(self.threshold)

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return np.zeros(x.shape, dtype=np.float32)


class Hardshrink(Elementwise):
    """x where |x| > lambd, else 0. Any shape. torch.nn.Hardshrink."""

    def __init__(self, lambd: float = 0.5, name: str | None = None) -> None:
        super().__init__(name)
        self.lambd = _not_negative(self.kind, lambd)

    def function(self, x: Array) -> Array:
        return np.where(np.abs(x) > np.float32(self.lambd), x, np.float32(0))

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return np.abs(x) > np.float32(self.lambd)


class Softshrink(Elementwise):
    """x - lambd where x > lambd, x + lambd where x < -lambd, else 0. Any shape. torch.nn.Softshrink."""

    def __init__(self, lambd: float = 0.5, name: str | None = None) -> None:
        super().__init__(name)
        self.lambd = _not_negative(self.kind, lambd)

    def function(self, x: Array) -> Array:
        bound = np.float32(self.lambd)
        return x - np.clip(x, -bound, bound)

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return np.abs(x) > np.float32(self.lambd)


def _not_negative(kind: str, lambd: float) -> float:
    (value,) = number(kind, lambd=lambd)
    if value < 0:
        raise InputError(f"{kind}: lambd must not be negative, got {lambd!r}")
    return value
