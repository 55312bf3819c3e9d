"""Losses of regression: how far outputs are from values."""

from __future__ import annotations

import numpy as np

from compute.nn.criterion.base import Array, ElementwiseCriterion, SampleCriterion, SimpleCriterion, reduced, share
from compute.nn.criterion.checks import counted, float_outputs, number, same_shape
from compute.spec import Arrays, Specs, TensorSpec


class MSELoss(ElementwiseCriterion):
    """Squared error: (x - y)^2 per element, x the output (n, ...), y the target of the same shape.

    Source: torch.nn.MSELoss; BigDL MSECriterion.
    """

    work_type = np.float32

    def element_loss(self, x: Array, y: Array) -> Array:
        difference = x - y
        return np.multiply(difference, difference, out=difference)

    def element_slope(self, x: Array, y: Array) -> Array:
        difference = x - y
        return np.add(difference, difference, out=difference)


class L1Loss(ElementwiseCriterion):
    """Absolute error: |x - y| per element, x the output (n, ...), y the target of the same shape.

    Source: torch.nn.L1Loss; BigDL AbsCriterion.
    """

    work_type = np.float32

    def element_loss(self, x: Array, y: Array) -> Array:
        difference = x - y
        return np.abs(difference, out=difference)

    def element_slope(self, x: Array, y: Array) -> Array:
        return sign(x - y)


class SmoothL1Loss(ElementwiseCriterion):
    """With d = x - y per element: d^2 / (2 beta) where |d| < beta, otherwise |d| - beta / 2.

    Args:
        beta: where the square ends; 0 gives L1Loss.

    Source: Girshick, Fast R-CNN, 2015; torch.nn.SmoothL1Loss; BigDL SmoothL1Criterion (beta 1).
    """

    work_type = np.float32

    def __init__(self, beta: float = 1.0, size_average: bool = True) -> None:
        super().__init__(size_average)
        self.beta = number(self.kind, "beta", beta, least=0.0)

    def element_loss(self, x: Array, y: Array) -> Array:
        return smooth_l1(x - y, self.beta)

    def element_slope(self, x: Array, y: Array) -> Array:
        return smooth_l1_slope(x - y, self.beta)


class HuberLoss(ElementwiseCriterion):
    """With d = x - y per element: d^2 / 2 where |d| < delta, otherwise delta * (|d| - delta / 2).

    Args:
        delta: where the square ends.

    Source: Huber, 1964; torch.nn.HuberLoss.
    """

    work_type = np.float32

    def __init__(self, delta: float = 1.0, size_average: bool = True) -> None:
        super().__init__(size_average)
        self.delta = number(self.kind, "delta", delta, above=0.0)

    def element_loss(self, x: Array, y: Array) -> Array:
        return smooth_l1(x - y, self.delta) * self.delta

    def element_slope(self, x: Array, y: Array) -> Array:
        return np.clip(x - y, -self.delta, self.delta)


class WeightedSmoothL1Loss(SampleCriterion):
    """Smooth L1 loss of box regression: with d = w_in * (x - y) per element the sum over a sample of
    w_out * (sigma^2 d^2 / 2 where |d| < 1 / sigma^2, otherwise |d| - 1 / (2 sigma^2)), divided by `num`.

    Output x (n, ...); targets y, w_in, w_out, or y alone, each of the same shape.

    Args:
        sigma: larger is steeper at 0.
        num: divisor of a sample's sum. (BigDL divides the batch's sum by it, and by the batch size by default, which
            here is the mean over samples that every training takes.)

    Source: Girshick, Fast R-CNN, 2015; BigDL SmoothL1CriterionWithWeights.
    """

    def __init__(self, sigma: float = 1.0, num: float = 1.0) -> None:
        self.sigma = number(self.kind, "sigma", sigma, above=0.0)
        self.num = number(self.kind, "num", num, above=0.0)

    def check(self, outputs: Specs, targets: Specs) -> None:
        counted(self.kind, outputs, targets, 1, 1 if len(targets) == 1 else 3)
        float_outputs(self.kind, outputs)
        for target in targets:
            same_shape(self.kind, outputs[0], target)

    def values(self, outputs: Arrays, targets: Arrays) -> Array:
        difference, _, outer = self._weighted(outputs, targets)
        return reduced(outer * smooth_l1(difference, self.sigma**-2), average=False) / self.num

    def derivatives(self, outputs: Arrays, targets: Arrays) -> Arrays:
        difference, inner, outer = self._weighted(outputs, targets)
        return (outer * inner * smooth_l1_slope(difference, self.sigma**-2) / self.num,)

    def _weighted(self, outputs: Arrays, targets: Arrays) -> tuple[Array, Array | float, Array | float]:
        x = outputs[0]
        y, inner, outer = (t.reshape(x.shape) for t in targets) if len(targets) == 3 else (targets[0], 1.0, 1.0)
        return inner * (x - y.reshape(x.shape)), inner, outer


class MeanAbsolutePercentageLoss(ElementwiseCriterion):
    """100 * |x - y| / max(|y|, 1e-7) per element.

    Source: Keras mean_absolute_percentage_error; BigDL MeanAbsolutePercentageCriterion.
    """

    def element_loss(self, x: Array, y: Array) -> Array:
        return 100.0 * np.abs(x - y) / np.maximum(np.abs(y), EPSILON)

    def element_slope(self, x: Array, y: Array) -> Array:
        return 100.0 * sign(x - y) / np.maximum(np.abs(y), EPSILON)


class MeanSquaredLogarithmicLoss(ElementwiseCriterion):
    """(log(max(y, 1e-7) + 1) - log(max(x, 1e-7) + 1))^2 per element; below 1e-7 an output has no gradient.

    Source: Keras mean_squared_logarithmic_error; BigDL MeanSquaredLogarithmicCriterion.
    """

    def element_loss(self, x: Array, y: Array) -> Array:
        return self._difference(x, y) ** 2

    def element_slope(self, x: Array, y: Array) -> Array:
        return np.where(x < EPSILON, 0.0, 2.0 * self._difference(x, y) / (np.maximum(x, EPSILON) + 1.0))

    @staticmethod
    def _difference(x: Array, y: Array) -> Array:
        return np.log1p(np.maximum(x, EPSILON)) - np.log1p(np.maximum(y, EPSILON))


class L1Cost(SimpleCriterion):
    """The sum of |x| over a sample's output: a penalty; the target does not matter.

    Args:
        size_average: True for the mean instead.

    Source: Torch and BigDL L1Cost.
    """

    def __init__(self, size_average: bool = False) -> None:
        self.size_average = bool(size_average)

    def check_pair(self, output: TensorSpec, target: TensorSpec) -> None:
        """Any target will do."""

    def sample_losses(self, output: Array, target: Array) -> Array:
        return reduced(np.abs(output), self.size_average)

    def sample_gradients(self, output: Array, target: Array) -> Array:
        return sign(output) * share(output, self.size_average)


EPSILON = 1e-7
"""Keras' fuzz factor."""


def sign(x: Array) -> Array:
    """1, 0 or -1 as each element's sign, in the same type; some ten times as fast as numpy's, which takes branches."""
    signs: Array = ((x > 0).view(np.int8) - (x < 0).view(np.int8)).astype(x.dtype)
    return signs


def smooth_l1(d: Array, beta: float) -> Array:
    """d^2 / (2 beta) where |d| < beta, otherwise |d| - beta / 2."""
    size = np.abs(d)
    if not beta:
        return size
    inner = np.minimum(size, beta)
    return np.asarray(inner * (inner * (0.5 / beta)) + (size - inner))


def smooth_l1_slope(d: Array, beta: float) -> Array:
    """The derivative of smooth_l1 by d."""
    return np.clip(d / beta, -1.0, 1.0) if beta else sign(d)
