"""Losses of normal distributions given by the network."""

from __future__ import annotations

import math

import numpy as np

from compute.errors import InputError
from compute.nn.criterion.base import Array, SampleCriterion, reduced, share
from compute.nn.criterion.checks import counted, float_outputs, number, refuse, same_shape
from compute.spec import Arrays, Specs


class _Gaussian(SampleCriterion):
    """Two outputs, mean and spread, of one shape, and targets of that shape."""

    def __init__(self, size_average: bool) -> None:
        self.size_average = bool(size_average)

    def check(self, outputs: Specs, targets: Specs) -> None:
        counted(self.kind, outputs, targets, 2, 1)
        float_outputs(self.kind, outputs)
        if outputs[0].shape != outputs[1].shape:
            raise InputError(
                f"{self.kind} needs two outputs of the same shape, got {outputs[0].shape} and {outputs[1].shape}"
            )
        same_shape(self.kind, outputs[0], targets[0])


class GaussianNLLLoss(_Gaussian):
    """Negative log likelihood of y under normal distributions: (log v + (m - y)^2 / v) / 2 per element, v at least eps.

    Outputs: means m and variances v, of one shape; targets y of that shape. As in PyTorch a variance below eps gets
    the gradient that it would have at eps.

    Args:
        full: adds log(2 pi) / 2.

    Raises:
        InputError: a variance is negative.

    Source: Nix and Weigend, 1994; torch.nn.GaussianNLLLoss (where the variance comes third).
    """

    def __init__(self, full: bool = False, eps: float = 1e-6, size_average: bool = True) -> None:
        super().__init__(size_average)
        self.full = bool(full)
        self.eps = number(self.kind, "eps", eps, above=0.0)

    def check_batch(self, outputs: Arrays, targets: Arrays) -> None:
        remedy = "is no variance; put nn.Softplus() before the second output, or use nn.GaussianLogVarNLLLoss"
        refuse(outputs[1], outputs[1] < 0, remedy)

    def values(self, outputs: Arrays, targets: Arrays) -> Array:
        mean, variance = outputs
        variance = np.maximum(variance, self.eps)
        loss = 0.5 * (np.log(variance) + (mean - targets[0].reshape(mean.shape)) ** 2 / variance)
        return reduced(loss + 0.5 * math.log(2.0 * math.pi) * self.full, self.size_average)

    def derivatives(self, outputs: Arrays, targets: Arrays) -> Arrays:
        mean, part = outputs[0], share(outputs[0], self.size_average)
        variance = np.maximum(outputs[1], self.eps)
        difference = mean - targets[0].reshape(mean.shape)
        ratio = difference / variance
        return ratio * part, (0.5 * part) * (1.0 - difference * ratio) / variance


class GaussianLogVarNLLLoss(_Gaussian):
    """Negative log likelihood of y under normal distributions: (log(2 pi) + s + (m - y)^2 e^-s) / 2, summed.

    Outputs: means m and log-variances s, of one shape; targets y of that shape.

    Args:
        size_average: True for the mean over a sample's elements instead of the sum.

    Source: BigDL GaussianCriterion.
    """

    def __init__(self, size_average: bool = False) -> None:
        super().__init__(size_average)

    def values(self, outputs: Arrays, targets: Arrays) -> Array:
        mean, spread = outputs
        square = (mean - targets[0].reshape(mean.shape)) ** 2
        return reduced(0.5 * (math.log(2.0 * math.pi) + spread + square * np.exp(-spread)), self.size_average)

    def derivatives(self, outputs: Arrays, targets: Arrays) -> Arrays:
        mean, spread = outputs
        difference, part = mean - targets[0].reshape(mean.shape), share(mean, self.size_average)
        ratio = difference * np.exp(-spread)
        return ratio * part, (0.5 * part) * (1.0 - difference * ratio)


class KLDNormalLoss(SampleCriterion):
    """Divergence of normal distributions from the standard one, the regularizer of variational autoencoders:
    (m^2 + e^s - 1 - s) / 2, summed over a sample. The target does not matter.

    Outputs: means m and log-variances s, of one shape.

    Args:
        size_average: True for the mean over a sample's elements instead of the sum.

    Source: Kingma and Welling, 2014, appendix B; BigDL KLDCriterion.
    """

    def __init__(self, size_average: bool = False) -> None:
        self.size_average = bool(size_average)

    def check(self, outputs: Specs, targets: Specs) -> None:
        counted(self.kind, outputs, targets, 2, None)
        float_outputs(self.kind, outputs)
        if outputs[0].shape != outputs[1].shape:
            raise InputError(
                f"{self.kind} needs two outputs of the same shape, got {outputs[0].shape} and {outputs[1].shape}"
            )

    def values(self, outputs: Arrays, targets: Arrays) -> Array:
        mean, spread = outputs
        return reduced(0.5 * (mean**2 + (np.expm1(spread) - spread)), self.size_average)

    def derivatives(self, outputs: Arrays, targets: Arrays) -> Arrays:
        mean, spread = outputs
        part = share(mean, self.size_average)
        return mean * part, np.expm1(spread) * (0.5 * part)
