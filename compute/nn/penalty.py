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
    """Base of penalties on values that flow through the model: subclasses give the penalty's derivative.

    In the backward pass scale * derivative is added to the gradient, scale being 1 / samples of the step, as for the
    samples' losses: so a penalty is per sample, whatever the batch. The loss that is reported is the criterion's
    alone, without the penalty, as in BigDL, and as for regularizers of weights.
    """

    def derivative(self, x: Array, scale: float) -> NDArray[Any]:
        """The derivative of scale * penalty."""
        raise NotImplementedError

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        return x

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        return np.asarray(grad_y + self.derivative(x, context.share / len(x)))


class ActivityRegularization(Penalty):
    """y = x; penalizes each sample's activity by l1 * sum |x| + l2 * sum x^2. Any shape.

    Its gradient is averaged over the step's samples; the loss that is reported excludes it (as in BigDL).
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0, name: str | None = None) -> None:
        super().__init__(name)
        self.l1, self.l2 = _not_negative(self.kind, l1=l1, l2=l2)

    def derivative(self, x: Array, scale: float) -> NDArray[Any]:
        return np.float32(scale * self.l1) * np.sign(x) + np.float32(scale * 2 * self.l2) * x


class L1Penalty(Penalty):
    """y = x; penalizes each sample's activity by l1weight * sum |x|, or the mean with size_average. Any shape.

    Its gradient is averaged over the step's samples; the loss that is reported excludes it. BigDL's L1Penalty.
    """

    def __init__(self, l1weight: float, size_average: bool = False, name: str | None = None) -> None:
        super().__init__(name)
        (self.l1weight,) = _not_negative(self.kind, l1weight=l1weight)
        self.size_average = bool(size_average)

    def derivative(self, x: Array, scale: float) -> NDArray[Any]:
        count = math.prod(x.shape[1:]) if self.size_average else 1
        return np.asarray(np.float32(scale * self.l1weight / count) * np.sign(x))


class NegativeEntropyPenalty(Penalty):
    """y = x; penalizes each sample's certainty by beta * sum x log x, x being probabilities. Any shape.

    Probabilities count as at least 1e-30. Its gradient is averaged over the step's samples; the loss that is reported
    excludes it. Keeps policies from becoming certain too early: Mnih et al., Asynchronous Methods for Deep
    Reinforcement Learning (2016); BigDL's NegativeEntropyPenalty.
    """

    def __init__(self, beta: float = 0.01, name: str | None = None) -> None:
        super().__init__(name)
        (self.beta,) = _not_negative(self.kind, beta=beta)

    def derivative(self, x: Array, scale: float) -> NDArray[Any]:
        return np.float32(scale * self.beta) * (np.log(np.maximum(x, np.float32(1e-30))) + np.float32(1))


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


def _not_negative(kind: str, **factors: float) -> tuple[float, ...]:
    found = number(kind, **factors)
    for name, factor in zip(factors, found, strict=True):
        if factor < 0:
            raise InputError(f"{kind}: {name} must not be negative, got {factor}")
    return found
