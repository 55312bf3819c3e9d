"""Smooth activations, element by element.

All are written so that nothing overflows: exponentials are taken of -|x| only, or of bounded numbers.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.elementwise import Elementwise, number
from compute.nn.layer import Array


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), accurate at both ends."""
    small = np.exp(-np.abs(x))
    result: Array = np.where(x >= 0, np.float32(1), small)
    small += np.float32(1)
    result /= small
    return result


class Sigmoid(Elementwise):
    """1 / (1 + exp(-x)). Any shape. torch.nn.Sigmoid."""

    def function(self, x: Array) -> Array:
        return sigmoid(x)

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return y * (np.float32(1) - y)


class LogSigmoid(Elementwise):
    """log(1 / (1 + exp(-x))). Any shape. torch.nn.LogSigmoid."""

    def function(self, x: Array) -> Array:
        return np.minimum(x, np.float32(0)) - np.log1p(np.exp(-np.abs(x)))

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return sigmoid(-x)


class Tanh(Elementwise):
    """Hyperbolic tangent. Any shape. torch.nn.Tanh."""

    def function(self, x: Array) -> Array:
        return np.tanh(x)

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return np.float32(1) - y * y


class Tanhshrink(Elementwise):
    """x - tanh(x). Any shape. torch.nn.Tanhshrink."""

    def function(self, x: Array) -> Array:
        return x - np.tanh(x)

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return np.square(np.tanh(x))


class Softplus(Elementwise):
    """log(1 + exp(beta * x)) / beta; x itself where beta * x > threshold. Any shape. torch.nn.Softplus."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0, name: str | None = None) -> None:
        super().__init__(name)
        self.beta, self.threshold = number(self.kind, beta=beta, threshold=threshold)
        if self.beta <= 0:
            raise InputError(f"Softplus: beta must be positive, got {beta!r}")

    def function(self, x: Array) -> Array:
        z = x * np.float32(self.beta)
        soft = (np.maximum(z, np.float32(0)) + np.log1p(np.exp(-np.abs(z)))) / np.float32(self.beta)
        return np.where(z > np.float32(self.threshold), x, soft)

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        z = x * np.float32(self.beta)
        return np.where(z > np.float32(self.threshold), np.float32(1), sigmoid(z))


class Softsign(Elementwise):
    """x / (1 + |x|). Any shape. torch.nn.Softsign."""

    def function(self, x: Array) -> Array:
        return np.asarray(x / (np.float32(1) + np.abs(x)))

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return np.asarray(np.square(np.float32(1) / (np.float32(1) + np.abs(x))))


class ELU(Elementwise):
    """x where x > 0, else alpha * (exp(x) - 1). Any shape. Clevert et al. (2015); torch.nn.ELU."""

    def __init__(self, alpha: float = 1.0, name: str | None = None) -> None:
        super().__init__(name)
        (self.alpha,) = number(self.kind, alpha=alpha)

    def function(self, x: Array) -> Array:
        return np.where(x > 0, x, np.float32(self.alpha) * np.expm1(np.minimum(x, np.float32(0))))

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return np.where(x > 0, np.float32(1), np.float32(self.alpha) * np.exp(np.minimum(x, np.float32(0))))


class SELU(Elementwise):
    """scale * (x where x > 0, else alpha * (exp(x) - 1)). Any shape. Klambauer et al. (2017); torch.nn.SELU."""

    alpha = 1.6732632423543772848170429916717
    scale = 1.0507009873554804934193349852946

    def function(self, x: Array) -> Array:
        negative = np.float32(self.scale * self.alpha) * np.expm1(np.minimum(x, np.float32(0)))
        return np.where(x > 0, np.float32(self.scale) * x, negative)

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        negative = np.float32(self.scale * self.alpha) * np.exp(np.minimum(x, np.float32(0)))
        return np.where(x > 0, np.float32(self.scale), negative)


class GELU(Elementwise):
    """x * Phi(x), Phi being the normal distribution function. Any shape. Hendrycks & Gimpel (2016); torch.nn.GELU.

    Args:
        approximate: "none", or "tanh" for x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))).
    """

    def __init__(self, approximate: Literal["none", "tanh"] = "none", name: str | None = None) -> None:
        super().__init__(name)
        if approximate not in ("none", "tanh"):
            raise InputError(f'GELU: approximate must be "none" or "tanh", got {approximate!r}')
        self.approximate = approximate

    def function(self, x: Array) -> Array:
        if self.approximate == "tanh":
            return x * (np.float32(0.5) + np.float32(0.5) * np.tanh(self._inner(_bounded(x))))
        return x * _normal_distribution(x)

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        z = _bounded(x)
        if self.approximate == "tanh":
            t = np.tanh(self._inner(z))
            slope = np.float32(_ROOT_2_PI) * (np.float32(1) + np.float32(3 * 0.044715) * z * z)
            return np.asarray(np.float32(0.5) * (np.float32(1) + t + z * (np.float32(1) - t * t) * slope))
        density = np.float32(1 / math.sqrt(2 * math.pi)) * np.exp(np.float32(-0.5) * z * z)
        return np.asarray(_normal_distribution(x) + z * density)

    @staticmethod
    def _inner(z: Array) -> Array:
        return np.float32(_ROOT_2_PI) * (z + np.float32(0.044715) * z * z * z)


_ROOT_2_PI = math.sqrt(2 / math.pi)


def _bounded(x: Array) -> Array:
    """x within +-20, beyond which GELU is straight to the last bit: powers of it do not overflow."""
    return np.clip(x, np.float32(-20), np.float32(20))


def _normal_distribution(x: Array) -> Array:
    from scipy.special import ndtr  # loaded when first needed: a tenth of a second

    result: Array = ndtr(x)
    return result


class SiLU(Elementwise):
    """x * sigmoid(x), also known as Swish. Any shape. torch.nn.SiLU."""

    def function(self, x: Array) -> Array:
        return x * sigmoid(x)

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        s = sigmoid(x)
        return s + y * (np.float32(1) - s)


class Mish(Elementwise):
    """x * tanh(log(1 + exp(x))). Any shape. Misra (2019); torch.nn.Mish."""

    def function(self, x: Array) -> Array:
        return x * self._tanh_of_softplus(x)

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        t = self._tanh_of_softplus(x)
        return t + x * (np.float32(1) - t * t) * sigmoid(x)

    @staticmethod
    def _tanh_of_softplus(x: Array) -> Array:
        # tanh(log(1 + e^x)) = n / (n + 2), n = e^x (e^x + 2); for x > 0 both are multiplied by e^-2x.
        e = np.exp(-np.abs(x))
        one_and_two = np.float32(1) + np.float32(2) * e
        n = e * (e + np.float32(2))
        return np.where(x > 0, one_and_two / (one_and_two + np.float32(2) * e * e), n / (n + np.float32(2)))
