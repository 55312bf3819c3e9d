"""Metrics that are means of real numbers."""

from __future__ import annotations

import numpy as np

from compute.errors import InputError
from compute.metrics.metric import Metric, Sums, like_output, ratio
from compute.nn.criterion import Criterion, CrossEntropyLoss, NLLLoss
from compute.spec import Arrays, Specs


class Loss(Metric):
    """Mean loss per sample. Sums: the losses, samples.

    Args:
        criterion: NLLLoss by default.
    """

    name = "Loss"

    def __init__(self, criterion: Criterion | None = None) -> None:
        self.criterion = NLLLoss() if criterion is None else criterion
        if not isinstance(self.criterion, Criterion):
            raise InputError(f"Loss: criterion must be an nn.Criterion such as nn.NLLLoss(), got {criterion!r}")

    def check(self, outputs: Specs, targets: Specs) -> None:
        self.criterion.check(outputs, targets)

    def sums(self, outputs: Arrays, targets: Arrays) -> Sums:
        return np.array([self.criterion.loss(outputs, targets), len(outputs[0])], dtype=np.float64)

    def result(self, sums: Sums) -> float:
        return ratio(sums[0], sums[1])


class Perplexity(Metric):
    """exp of the mean negative log likelihood per position, ignored ones left out: of language models.

    Outputs (n, ..., classes) scores or log-probabilities; targets int64 (n, ...). Sums: the losses, positions.

    Args:
        criterion: CrossEntropyLoss (right for log-probabilities, too) or NLLLoss; says which label is ignored.
    """

    name = "Perplexity"

    def __init__(self, criterion: CrossEntropyLoss | NLLLoss | None = None) -> None:
        self.criterion = CrossEntropyLoss() if criterion is None else criterion
        if not isinstance(self.criterion, CrossEntropyLoss | NLLLoss):
            raise InputError(f"Perplexity: criterion must be nn.CrossEntropyLoss or nn.NLLLoss, got {criterion!r}")

    def check(self, outputs: Specs, targets: Specs) -> None:
        self.criterion.check(outputs, targets)

    def sums(self, outputs: Arrays, targets: Arrays) -> Sums:
        losses, counts = self.criterion.position_losses(outputs, targets)
        return np.array([losses.sum(), np.count_nonzero(counts)], dtype=np.float64)

    def result(self, sums: Sums) -> float:
        with np.errstate(over="ignore"):  # it is infinite then
            return float(np.exp(ratio(sums[0], sums[1])))


class _ElementError(Metric):
    """The mean over all elements of some function of output minus target, both of one shape."""

    def check(self, outputs: Specs, targets: Specs) -> None:
        like_output(self.name, outputs, targets)

    def sums(self, outputs: Arrays, targets: Arrays) -> Sums:
        x = outputs[0].reshape(-1).astype(np.float64)
        return np.array([self.of(x - targets[0].reshape(-1)).sum(), x.size], dtype=np.float64)

    def result(self, sums: Sums) -> float:
        return ratio(sums[0], sums[1])

    def of(self, difference: Sums) -> Sums:
        """Each element's error."""
        raise NotImplementedError


class MAE(_ElementError):
    """Mean of |output - target| over all elements. Sums: the errors, elements."""

    name = "MAE"

    def of(self, difference: Sums) -> Sums:
        return np.abs(difference)


class MSE(_ElementError):
    """Mean of (output - target)^2 over all elements. Sums: the errors, elements."""

    name = "MSE"

    def of(self, difference: Sums) -> Sums:
        return difference * difference
