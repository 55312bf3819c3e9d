"""Base of functions of each element: subclasses give the formula and its derivative."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.layer import Array, Arrayed, LayerContext, UnaryLayer


class Elementwise(UnaryLayer):
    """y = function(x), element by element, for samples of any shape.

    Subclasses define `function` and `derivative`. What comes of numbers out of their domain (log of -1, overflow)
    is IEEE 754's inf or nan, as in PyTorch, without numpy's warnings.
    """

    def function(self, x: Array) -> NDArray[Any]:
        """y for x; float32, or bool for 0 and 1. Must not write into x."""
        raise NotImplementedError(f"{self.kind} must define function")

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        """dy/dx; float32, or bool for 0 and 1."""
        raise NotImplementedError(f"{self.kind} must define derivative")

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(self.function(x), dtype=np.float32)

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(np.multiply(self.derivative(x, y), grad_y), dtype=np.float32)


def number(kind: str, **values: float) -> tuple[float, ...]:
    """The values as floats; InputError unless each is a finite number."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise InputError(f"{kind}: {name} must be a finite number, got {value!r}")
    return tuple(float(value) for value in values.values())
