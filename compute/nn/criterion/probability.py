"""Losses of probabilities and distributions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from compute.nn.criterion.base import Array, ElementwiseCriterion, SimpleCriterion, reduced, share
from compute.nn.criterion.checks import broadcastable, number, refuse, some_dimensions, weights
from compute.nn.criterion.regression import EPSILON
from compute.spec import Arrays, TensorSpec


class _Weighted(ElementwiseCriterion):
    """An elementwise loss with a weight for each element of a sample."""

    def __init__(self, weight: Any = None, size_average: bool = True) -> None:
        super().__init__(size_average)
        self.weight = weights(self.kind, "weight", weight)

    def check_pair(self, output: TensorSpec, target: TensorSpec) -> None:
        super().check_pair(output, target)
        broadcastable(self.kind, "weight", self.weight, output)

    def _times(self, values: Array) -> Array:
        return values if self.weight is None else values * self.weight


class BCELoss(_Weighted):
    """Binary cross-entropy of probabilities: -weight * (y log x + (1 - y) log(1 - x)) per element.

    Outputs in 0..1, targets 0..1 of the same shape. As in PyTorch logarithms end at -100 and the gradient's divisor
    x (1 - x) at 1e-12, so that a certain and wrong output costs much, but not infinitely much.

    Args:
        weight: factors that broadcast to a sample's shape.

    Raises:
        InputError: an output is not in 0..1.

    Source: torch.nn.BCELoss; BigDL BCECriterion.
    """

    def check_batch(self, outputs: Arrays, targets: Arrays) -> None:
        x = outputs[0]
        refuse(x, (x < 0) | (x > 1), "is no probability; put nn.Sigmoid() last, or use nn.BCEWithLogitsLoss")

    def element_loss(self, x: Array, y: Array) -> Array:
        return self._times(y * -np.maximum(np.log(x), -100.0) + (1.0 - y) * -np.maximum(np.log(1.0 - x), -100.0))

    def element_slope(self, x: Array, y: Array) -> Array:
        return self._times((x - y) / np.maximum(x * (1.0 - x), 1e-12))


class BCEWithLogitsLoss(_Weighted):
    """Binary cross-entropy of sigmoid(x): weight * (pos_weight y log(1 + e^-x) + (1 - y) log(1 + e^x)) per element.

    Outputs any scores, targets 0..1 of the same shape; no score is too large.

    Args:
        weight, pos_weight: factors, the latter of the positives, that broadcast to a sample's shape.

    Source: torch.nn.BCEWithLogitsLoss.
    """

    def __init__(self, weight: Any = None, pos_weight: Any = None, size_average: bool = True) -> None:
        super().__init__(weight, size_average)
        self.pos_weight = weights(self.kind, "pos_weight", pos_weight)

    def check_pair(self, output: TensorSpec, target: TensorSpec) -> None:
        super().check_pair(output, target)
        broadcastable(self.kind, "pos_weight", self.pos_weight, output)

    def element_loss(self, x: Array, y: Array) -> Array:
        tail = np.log1p(np.exp(-np.abs(x)))
        positive = y if self.pos_weight is None else y * self.pos_weight
        return self._times(positive * (tail + np.maximum(-x, 0.0)) + (1.0 - y) * (tail + np.maximum(x, 0.0)))

    def element_slope(self, x: Array, y: Array) -> Array:
        sigmoid = 1.0 / (1.0 + np.exp(-x))
        if self.pos_weight is None:
            return self._times(sigmoid - y)
        positive = y * self.pos_weight
        return self._times(sigmoid * (1.0 - y + positive) - positive)


class KLDivLoss(ElementwiseCriterion):
    """Kullback-Leibler divergence of log-probabilities x from probabilities y: y * (log y - x) per element, 0 for
    y = 0.

    PyTorch's reduction="mean" is the default; size_average=False gives its "batchmean", the divergence proper.

    Args:
        log_target: the targets are log-probabilities as well.

    Source: torch.nn.KLDivLoss; BigDL DistKLDivCriterion.
    """

    def __init__(self, log_target: bool = False, size_average: bool = True) -> None:
        super().__init__(size_average)
        self.log_target = bool(log_target)

    def element_loss(self, x: Array, y: Array) -> Array:
        probability, log = (np.exp(y), y) if self.log_target else (y, np.log(y))
        nothing = np.where(np.isnan(x), x, 0.0)  # an impossible class costs nothing, not even at log 0
        return np.where(probability == 0, nothing, probability * (log - x))

    def element_slope(self, x: Array, y: Array) -> Array:
        return -np.exp(y) if self.log_target else -y


class KullbackLeiblerDivergenceLoss(SimpleCriterion):
    """Divergence of probabilities x from probabilities y, both cut to 1e-7..1: sum of y log(y / x) over the last
    dimension, mean over the others. Outside of 1e-7..1 an output has no gradient.

    Source: Keras kullback_leibler_divergence; BigDL KullbackLeiblerDivergenceCriterion.
    """

    def check_pair(self, output: TensorSpec, target: TensorSpec) -> None:
        some_dimensions(self.kind, output)
        super().check_pair(output, target)

    def sample_losses(self, output: Array, target: Array) -> Array:
        x, y = np.clip(output, EPSILON, 1.0), np.clip(target, EPSILON, 1.0)
        terms = y * np.log(y / x)
        return reduced(terms, average=False) / _rows(output)

    def sample_gradients(self, output: Array, target: Array) -> Array:
        x, y = np.clip(output, EPSILON, 1.0), np.clip(target, EPSILON, 1.0)
        return np.where((output < EPSILON) | (output > 1.0), 0.0, -y / x) / _rows(output)


class PoissonNLLLoss(ElementwiseCriterion):
    """Negative log likelihood of counts y under a Poisson distribution with mean e^x, or x without log_input:
    e^x - y x, or x - y log(x + eps), per element; with `full` plus Stirling's y log y - y + log(2 pi y) / 2 for y > 1.

    Source: torch.nn.PoissonNLLLoss.
    """

    def __init__(
        self, log_input: bool = True, full: bool = False, eps: float = 1e-8, size_average: bool = True
    ) -> None:
        super().__init__(size_average)
        self.log_input, self.full = bool(log_input), bool(full)
        self.eps = number(self.kind, "eps", eps, least=0.0)

    def element_loss(self, x: Array, y: Array) -> Array:
        loss = np.exp(x) - y * x if self.log_input else x - y * np.log(x + self.eps)
        if self.full:
            large = np.maximum(y, 1.0)
            stirling = large * np.log(large) - large + 0.5 * np.log(2.0 * math.pi * large)
            loss = loss + np.where(y > 1.0, stirling, 0.0)
        return loss

    def element_slope(self, x: Array, y: Array) -> Array:
        return np.exp(x) - y if self.log_input else 1.0 - y / (x + self.eps)


class PoissonLoss(PoissonNLLLoss):
    """x - y log(x + 1e-7) per element.

    Source: Keras poisson; BigDL PoissonCriterion.
    """

    def __init__(self, size_average: bool = True) -> None:
        super().__init__(log_input=False, eps=EPSILON, size_average=size_average)


class PolicyGradientLoss(SimpleCriterion):
    """-sum_a R_a log P_a: outputs are probabilities P (n, actions); targets (n, actions) hold the reward or advantage
    at the action that was taken and 0 elsewhere. An action without reward has no part in it, whatever its probability.

    Args:
        size_average: True for the mean over a sample's elements instead of the sum.

    Source: Williams, REINFORCE, 1992; BigDL PGCriterion.
    """

    def __init__(self, size_average: bool = False) -> None:
        self.size_average = bool(size_average)

    def sample_losses(self, output: Array, target: Array) -> Array:
        # An action without reward counts nothing, not even at probability 0, but its NaN is not hidden.
        probability = np.where((target != 0) | np.isnan(output), output, 1.0)
        return reduced(target * -np.log(probability), self.size_average)

    def sample_gradients(self, output: Array, target: Array) -> Array:
        return np.where(target != 0, -target / output, 0.0) * share(output, self.size_average)


def _rows(output: Array) -> int:
    """How many vectors along the last dimension a sample's output has."""
    return int(math.prod(output.shape[1:-1]))
