"""Layers that let values pass unchanged and change the gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.elementwise import number
from compute.nn.layer import Array, Arrayed, LayerContext, UnaryLayer


class Penalty(UnaryLayer):
    """Base of penalties on values that flow through the model.

    Attributes:
        l1, l2: factors of sum |x| and of sum x^2.
    """

    def __init__(self, l1: float, l2: float, name: str | None) -> None:
        super().__init__(name)
        if not (0 <= l1 < math.inf and 0 <= l2 < math.inf):
            raise InputError(f"{self.kind}: the factors must be numbers that are not negative, got {l1!r} and {l2!r}")
        self.l1, self.l2 = float(l1), float(l2)

    def factors(self, x: Array) -> tuple[float, float]:
        """l1 and l2 for one batch's array."""
        return self.l1, self.l2

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        return x

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        l1, l2 = self.factors(x)
        scale = context.share / len(x)
        grad_x: NDArray[Any] = grad_y
        if l1:
            grad_x = grad_x + np.float32(scale * l1) * np.sign(x)
        if l2:
            grad_x = grad_x + np.float32(scale * 2 * l2) * x
        return grad_x


class ActivityRegularization(Penalty):
    """y = x; penalizes each sample's activity by l1 * sum |x| + l2 * sum x^2. Any shape.

    In the backward pass scale * (l1 * sign(x) + 2 * l2 * x) is added to the gradient, scale being 1 / samples of the
    step, as for the samples' losses: so the penalty is per sample, whatever the batch. The loss that is reported
    is the criterion's alone, without the penalty, as in BigDL, and as for regularizers of weights.
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0, name: str | None = None) -> None:
        super().__init__(l1, l2, name)


class L1Penalty(Penalty):
    """y = x; penalizes each sample's activity by l1weight * sum |x|, or the mean with size_average. Any shape.

    See ActivityRegularization for its scale; the loss that is reported excludes it. BigDL's L1Penalty.
    """

    def __init__(self, l1weight: float, size_average: bool = False, name: str | None = None) -> None:
        super().__init__(l1weight, 0.0, name)
        self.size_average = bool(size_average)

    def factors(self, x: Array) -> tuple[float, float]:
        return self.l1 / math.prod(x.shape[1:]) if self.size_average else self.l1, 0.0


class GradientReversal(UnaryLayer):
    """y = x; the gradient is multiplied by -lambd. Any shape. Ganin & Lempitsky (2015); BigDL's GradientReversal."""

    def __init__(self, lambd: float = 1.0, name: str | None = None) -> None:
        super().__init__(name)
        (self.lambd,) = number(self.kind, lambd=lambd)

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        return x

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        return grad_y * np.float32(-self.lambd)
