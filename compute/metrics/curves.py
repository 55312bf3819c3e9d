"""Areas under curves, from histograms of scores.

Exact areas need all scores sorted, which cannot be added up over blocks of samples. Histograms can, so scores are
counted in bins, and what is lost is the order within a bin: `bounds` gives the least and the largest value over all
such orders, and the result is that of an average one. The bins are equal steps of the logit log(p / (1 - p)), which
are as fine near 0 and 1, where trained networks put their scores, as in between.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import numpy as np

from compute.errors import InputError
from compute.metrics.metric import Array, Metric, Sums, labelled, like_output, single, whole
from compute.nn.criterion.checks import number
from compute.nn.criterion.labels import check_labels
from compute.spec import Arrays, Specs

Scores = Literal["probability", "log_probability", "logit"]

Order = Literal["first", "average", "last"]
"""How the positives of a bin lie among its negatives."""

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
        return self._mean(sums, "last"), self._mean(sums, "first")

    def result(self, sums: Sums) -> float:
        return self._mean(sums, "average")

    def _mean(self, sums: Sums, order: Order) -> float:
        """The mean area of the curves that have samples."""
        areas = [
            self.area(positives[::-1], negatives[::-1], order)
            for positives, negatives in sums[:-1].reshape(self.curves, 2, self.bins)
            if positives.any() and (negatives.any() or not self.needs_negatives)
        ]
        return float(np.mean(areas)) if areas and not sums[-1] else float("nan")

    needs_negatives = False

    @abstractmethod
    def area(self, positives: Sums, negatives: Sums, order: Order) -> float:
        """The area of a curve, from counts by bin, the highest scores first, and how positives lie in their bin."""

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

    def area(self, positives: Sums, negatives: Sums, order: Order) -> float:
        below = negatives.sum() - np.cumsum(negatives) + negatives * {"last": 0.0, "average": 0.5, "first": 1.0}[order]
        return float((positives * below).sum() / (positives.sum() * negatives.sum()))


class PrecisionRecallAUC(_TwoClasses):
    """Area under precision over recall, sample by sample from the highest score, with trapezoids from precision 1.

    Args:
        scores, positive_class, bins, limit: as of ROCAUC.

    Source: Davis and Goadrich, 2006; BigDL PrecisionRecallAUC.
    """

    def area(self, positives: Sums, negatives: Sums, order: Order) -> float:
        return _precision(positives, negatives, True, order)


class MeanAveragePrecision(_Binned):
    """Mean over the classes of average precision: of each sample of a class the precision at its score, averaged.

    Outputs (n, ..., classes); targets int64 (n, ...). Classes without samples do not count.

    Args:
        classes: number of classes.
        scores: what the outputs are; logits of a softmax cannot be compared between samples, those of a sigmoid can.
        bins: for each class; by default as many as make the sums 64 kB, but from 64 to 2048. The sums of each block of
            the validation take 16 * classes * bins bytes, so with more than 256 classes say yourself.

    Source: BigDL MeanAveragePrecision, over all samples.
    """

    def __init__(
        self, classes: int, scores: Scores = "log_probability", bins: int | None = None, limit: float = _LIMIT
    ) -> None:
        self.classes = whole("MeanAveragePrecision", "classes", classes, 1)
        if bins is None and classes > 256:
            raise InputError(
                f"MeanAveragePrecision: {classes} classes need much memory, 16 * {classes} * bins bytes for each block "
                "of the validation; if you have it, say bins=64 or more"
            )
        super().__init__(classes, scores, min(2048, max(64, 4096 // classes)) if bins is None else bins, limit)

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

    def area(self, positives: Sums, negatives: Sums, order: Order) -> float:
        return _precision(positives, negatives, False, order)


def _logits(values: Sums, scores: Scores) -> Sums:
    if scores == "probability":
        return np.log(values) - np.log1p(-values)
    if scores == "log_probability":
        return values - np.log(-np.expm1(np.minimum(values, 0.0)))
    return values


def _precision(positives: Sums, negatives: Sums, trapezoid: bool, order: Order) -> float:
    """Mean over the positives of the precision at each, or with `trapezoid` of the mean of those before and at it.

    Counts by bin, the highest scores first. Within a bin with t true and f false positives before it, p positives and
    n negatives, the j-th positive has f + n false ones before it if positives come last, f if they come first, and
    f + n j / (p + 1) on average of all orders, which makes the precision (t + j) / (t + f + b j), b = 1 + n / (p + 1).
    """
    has = positives > 0
    p, n = positives[has], negatives[has]
    true = (np.cumsum(positives) - positives)[has]
    false = (np.cumsum(negatives) - negatives)[has]
    if order == "last":
        false = false + n
    slope = 1.0 + n / (p + 1.0) if order == "average" else np.ones_like(p)
    sums = _ratios(true, (true + false) / slope, p) / slope
    if trapezoid:
        nothing = (true + false == 0) & (slope == 1)  # before the first sample precision is 1
        before = _ratios(true - 1.0, np.where(nothing, 0.0, true + false - 1.0) / slope, p) / slope
        sums = (sums + np.where(nothing, p, before)) / 2.0
    return float(sums.sum() / p.sum())


def _ratios(a: Sums, c: Sums, count: Sums) -> Sums:
    """The sum of (a + j) / (c + j) for j = 1..count: count - (c - a) (psi(c + count + 1) - psi(c + 1)), psi being the
    digamma function."""
    from scipy.special import digamma  # here, since it takes longer to load than all of compute

    return np.asarray(count - (c - a) * (digamma(c + count + 1.0) - digamma(c + 1.0)))
