"""Areas under curves, from histograms of scores.

Exact areas need all scores sorted, which cannot be added up over blocks of samples. Histograms can, so scores are
counted in bins, and what is lost is the order within a bin: `bounds` gives the least and the largest value over all
such orders, and the result is their mean. The bins are equal steps of the logit log(p / (1 - p)), which are as
fine near 0 and 1, where trained networks put their scores, as in between.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import numpy as np

from compute.errors import InputError
from compute.metrics.metric import Array, Metric, Sums, labelled, like_output, single, whole
from compute.nn.criterion import check_labels
from compute.nn.criterion.base import number
from compute.spec import Arrays, Specs

Scores = Literal["probability", "log_probability", "logit"]

_LIMIT = 17.0
"""The logit of the largest float32 below 1 is 16.6."""


class _Binned(Metric):
    """Histograms of positives' and negatives' scores for some curves. Sums: for each curve the positives by bin, then
    the negatives by bin; at last how many scores were NaN, which makes the result NaN."""

    def __init__(self, curves: int, scores: Scores, bins: int, limit: float) -> None:
        name = type(self).__name__
        if scores not in ("probability", "log_probability", "logit"):
            raise InputError(f"{name}: scores must be 'probability', 'log_probability' or 'logit', got {scores!r}")
        self.name = name
        self.curves = curves
        self.scores = scores
        self.bins = whole(name, "bins", bins, 2)
        self.limit = number(name, "limit", limit, above=0.0)

    def bounds(self, sums: Sums) -> tuple[float, float]:
        """The least and the largest value that any order within the bins would give; NaN where it is not defined."""
        if sums[-1]:
            return float("nan"), float("nan")
        found = [
            self.area(positives[::-1], negatives[::-1])
            for positives, negatives in sums[:-1].reshape(self.curves, 2, self.bins)
            if positives.any() and (negatives.any() or not self.needs_negatives)
        ]
        if not found:
            return float("nan"), float("nan")
        least, largest = np.mean(found, axis=0)
        return float(least), float(largest)

    def result(self, sums: Sums) -> float:
        return float(sum(self.bounds(sums)) / 2.0)

    needs_negatives = False

    @abstractmethod
    def area(self, positives: Sums, negatives: Sums) -> tuple[float, float]:
        """Least and largest area of a curve, from counts by bin, the highest scores first."""

    def histogram(self, scores: Array, positive: Array, curve: Array | int = 0) -> Sums:
        """The sums of some scores, each in one curve."""
        broken = np.isnan(scores)
        with np.errstate(all="ignore"):
            place = np.floor((_logits(scores.astype(np.float64), self.scores) / self.limit + 1.0) * (self.bins / 2.0))
        cell = np.where(broken, 0, np.clip(place, 0, self.bins - 1)).astype(np.int64)
        cell += (curve * 2 + ~positive) * self.bins
        counts = np.bincount(cell[~broken], minlength=self.curves * 2 * self.bins).astype(np.float64)
        return np.append(counts, np.count_nonzero(broken))


class _TwoClasses(_Binned):
    """One curve: of elements that are positive or not."""

    def __init__(
        self,
        scores: Scores = "probability",
        positive_class: int | None = None,
        bins: int = 2048,
        limit: float = _LIMIT,
    ) -> None:
        super().__init__(1, scores, bins, limit)
        self.positive_class = None if positive_class is None else whole(self.name, "positive_class", positive_class, 0)

    def check(self, outputs: Specs, targets: Specs) -> None:
        if self.positive_class is None:
            like_output(self.name, outputs, targets)
        else:
            labelled(self.name, outputs, targets)
            if self.positive_class >= outputs[0].shape[-1]:
                raise InputError(f"{self.name}: there is no class {self.positive_class} in outputs {outputs[0]}")

    def sums(self, outputs: Arrays, targets: Arrays) -> Sums:
        if self.positive_class is None:
            return self.histogram(outputs[0].reshape(-1), targets[0].reshape(-1) >= 0.5)
        check_labels(targets[0], outputs[0].shape[-1])
        chosen = outputs[0][..., self.positive_class]
        return self.histogram(chosen.reshape(-1), targets[0].reshape(-1) == self.positive_class)


class ROCAUC(_TwoClasses):
    """Area under the receiver operating characteristic: the chance that a positive scores higher than a negative,
    where equal ones (and those of one bin) count half.

    Off by at most sum over bins of positives * negatives / (2 * all positives * all negatives); `bounds` gives it.

    Args:
        scores: what the outputs are; logits may be any scores, but those beyond the limit are one bin.
        positive_class: None where outputs and targets (1 or 0) have one shape; otherwise outputs are (n, ..., classes),
            targets int64 labels (n, ...), and this class is the positive.
        bins: of the logit, between -limit and limit.

    Source: Fawcett, An introduction to ROC analysis, 2006.
    """

    needs_negatives = True

    def area(self, positives: Sums, negatives: Sums) -> tuple[float, float]:
        below = negatives.sum() - np.cumsum(negatives)
        pairs = positives.sum() * negatives.sum()
        least = float((positives * below).sum())
        return least / pairs, (least + float((positives * negatives).sum())) / pairs


class PrecisionRecallAUC(_TwoClasses):
    """Area under precision over recall, sample by sample from the highest score, with trapezoids from precision 1.

    Args:
        scores, positive_class, bins, limit: as of ROCAUC.

    Source: Davis and Goadrich, 2006; BigDL PrecisionRecallAUC.
    """

    def area(self, positives: Sums, negatives: Sums) -> tuple[float, float]:
        return _precision(positives, negatives, True, False), _precision(positives, negatives, True, True)


class MeanAveragePrecision(_Binned):
    """Mean over the classes of average precision: of each sample of a class the precision at its score, averaged.

    Outputs (n, ..., classes); targets int64 (n, ...). Classes without samples do not count.

    Args:
        classes: number of classes.
        scores: what the outputs are; logits of a softmax cannot be compared between samples, those of a sigmoid can.
        bins: for each class; by default as many as make the sums 64 kB, from 8 to 2048. See `bounds` for the error.

    Source: BigDL MeanAveragePrecision, over all samples.
    """

    def __init__(
        self, classes: int, scores: Scores = "log_probability", bins: int | None = None, limit: float = _LIMIT
    ) -> None:
        self.classes = whole("MeanAveragePrecision", "classes", classes, 1)
        super().__init__(classes, scores, min(2048, max(8, 4096 // classes)) if bins is None else bins, limit)

    def check(self, outputs: Specs, targets: Specs) -> None:
        single(self.name, outputs, targets)
        labelled(self.name, outputs, targets)
        if outputs[0].shape[-1] != self.classes:
            raise InputError(f"{self.name}({self.classes}) needs {self.classes} outputs per label, got {outputs[0]}")

    def sums(self, outputs: Arrays, targets: Arrays) -> Sums:
        check_labels(targets[0], self.classes)
        scores, label = outputs[0].reshape(-1, self.classes), targets[0].reshape(-1, 1)
        classes = np.arange(self.classes)
        curve = np.broadcast_to(classes, scores.shape)
        return self.histogram(scores.reshape(-1), (label == classes).reshape(-1), curve.reshape(-1))

    def area(self, positives: Sums, negatives: Sums) -> tuple[float, float]:
        return _precision(positives, negatives, False, False), _precision(positives, negatives, False, True)


def _logits(values: Sums, scores: Scores) -> Sums:
    if scores == "probability":
        return np.log(values) - np.log1p(-values)
    if scores == "log_probability":
        return values - np.log(-np.expm1(np.minimum(values, 0.0)))
    return values


def _precision(positives: Sums, negatives: Sums, trapezoid: bool, positives_first: bool) -> float:
    """Mean over the positives of the precision at each, or with `trapezoid` of the mean of those before and at it.

    Counts by bin, the highest scores first; within a bin positives come first or last. With t true and f false
    positives before a bin of p, the sum of (t + j) / (t + j + f) for j = 1..p is
    p - f (psi(t + f + p + 1) - psi(t + f + 1)), psi being the digamma function.
    """
    from scipy.special import digamma  # here, since it takes longer to load than all of compute

    has = positives > 0
    p = positives[has]
    true = (np.cumsum(positives) - positives)[has]
    false = (np.cumsum(negatives) - (negatives if positives_first else 0.0))[has]
    total = true + false
    sums = p - false * (digamma(total + p + 1.0) - digamma(total + 1.0))
    if trapezoid:
        begun = np.maximum(total, 1.0)  # before the first sample precision is 1, and false is 0
        before = p - false * (digamma(begun + p) - digamma(begun))
        sums = (sums + before) / 2.0
    return float(sums.sum() / p.sum())
