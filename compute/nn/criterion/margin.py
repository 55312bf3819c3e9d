"""Losses that ask for a margin: of classes, of signs, of order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.criterion.base import Array, ElementwiseCriterion, SampleCriterion, reduced, share
from compute.nn.criterion.checks import counted, float_outputs, number, refuse, same_shape, weights
from compute.nn.criterion.labels import ClassCriterion, Labels, check_labels, class_weights
from compute.nn.criterion.probability import BCEWithLogitsLoss
from compute.spec import Arrays, Specs, TensorSpec


class HingeEmbeddingLoss(ElementwiseCriterion):
    """x where y is 1, max(0, margin - x) where y is -1, per element: x is a distance, y says what is alike.

    Outputs (n, ...), targets 1 or -1 of the same shape.

    Source: torch.nn.HingeEmbeddingLoss; BigDL HingeEmbeddingCriterion.
    """

    def __init__(self, margin: float = 1.0, size_average: bool = True) -> None:
        super().__init__(size_average)
        self.margin = number(self.kind, "margin", margin)

    def check_batch(self, outputs: Arrays, targets: Arrays) -> None:
        check_signs(self.kind, targets[0])

    def element_loss(self, x: Array, y: Array) -> Array:
        return np.where(y > 0, x, np.maximum(0.0, self.margin - x))

    def element_slope(self, x: Array, y: Array) -> Array:
        return np.where(y > 0, 1.0, np.where(self.margin - x > 0, -1.0, 0.0))


class MarginLoss(ElementwiseCriterion):
    """Hinge loss of two classes: max(0, margin - x y) per element, or its square.

    Outputs (n, ...), targets 1 or -1 of the same shape.

    Source: Cortes and Vapnik, 1995; BigDL MarginCriterion.
    """

    def __init__(self, margin: float = 1.0, squared: bool = False, size_average: bool = True) -> None:
        super().__init__(size_average)
        self.margin = number(self.kind, "margin", margin)
        self.squared = bool(squared)

    def check_batch(self, outputs: Arrays, targets: Arrays) -> None:
        check_signs(self.kind, targets[0])

    def element_loss(self, x: Array, y: Array) -> Array:
        short = np.maximum(0.0, self.margin - x * y)
        return short * short if self.squared else short

    def element_slope(self, x: Array, y: Array) -> Array:
        short = np.maximum(0.0, self.margin - x * y)
        return -y * (2.0 * short if self.squared else short > 0)


class SoftMarginLoss(ElementwiseCriterion):
    """Logistic loss of two classes: log(1 + e^(-x y)) per element.

    Outputs (n, ...), targets 1 or -1 of the same shape.

    Source: torch.nn.SoftMarginLoss; BigDL SoftMarginCriterion.
    """

    def check_batch(self, outputs: Arrays, targets: Arrays) -> None:
        check_signs(self.kind, targets[0])

    def element_loss(self, x: Array, y: Array) -> Array:
        z = -x * y
        return np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(z)))

    def element_slope(self, x: Array, y: Array) -> Array:
        return -y / (1.0 + np.exp(x * y))


class MultiMarginLoss(SampleCriterion, ClassCriterion):
    """Hinge loss of classes: sum over the classes i other than the label of weight[label] *
    max(0, margin - x[label] + x[i])^p, divided by the number of classes.

    Outputs (n, ..., classes) scores; targets int64 (n, ...), labels from 0. With positions a sample's loss is
    their mean.

    Args:
        p: 1 or 2.
        weight: a factor for each class, (classes,).
        size_average: False for the sum over positions.

    Source: torch.nn.MultiMarginLoss; BigDL MultiMarginCriterion.
    """

    def __init__(self, p: int = 1, margin: float = 1.0, weight: Any = None, size_average: bool = True) -> None:
        if p not in (1, 2):
            raise InputError(f"{self.kind}: p must be 1 or 2, got {p!r}")
        self.p = int(p)
        self.margin = number(self.kind, "margin", margin)
        self.weight = weights(self.kind, "weight", weight)
        self.size_average = bool(size_average)

    def check(self, outputs: Specs, targets: Specs) -> None:
        ClassCriterion.check(self, outputs, targets)
        class_weights(self.kind, self.weight, outputs[0].shape[-1])

    def check_batch(self, outputs: Arrays, targets: Arrays) -> None:
        check_labels(targets[0], outputs[0].shape[-1])

    def values(self, outputs: Arrays, targets: Arrays) -> Array:
        short, _, factor = self._short(outputs[0], targets[0])
        return reduced(short**self.p * factor, average=False)

    def derivatives(self, outputs: Arrays, targets: Arrays) -> Arrays:
        short, own, factor = self._short(outputs[0], targets[0])
        slopes = (short > 0) * factor if self.p == 1 else 2.0 * short * factor
        np.put_along_axis(slopes, own, -slopes.sum(axis=-1, keepdims=True), axis=-1)
        return (slopes,)

    def _short(self, x: Array, label: Labels) -> tuple[Array, Labels, Array]:
        """By how much each class falls short of the margin (0 at the label), the labels' places, factors of losses."""
        own = label[..., None]
        short = np.maximum(0.0, self.margin - np.take_along_axis(x, own, axis=-1) + x)
        np.put_along_axis(short, own, 0.0, axis=-1)
        if np.isnan(x).any():
            short += x * 0.0  # the label's own NaN, too
        factor = np.ones(own.shape) if self.weight is None else self.weight[own]
        return short, own, factor / (x.shape[-1] * (label[0].size if self.size_average else 1))


class MultiLabelMarginLoss(SampleCriterion):
    """Hinge loss of several labels per sample: sum over labels j and classes i that are no label of
    max(0, 1 - x[j] + x[i]), divided by the number of classes.

    Outputs (n, classes) scores; targets int64 (n, classes): the sample's labels, from 0, ended by -1 if there are
    fewer.

    Source: torch.nn.MultiLabelMarginLoss; BigDL MultiLabelMarginCriterion.
    """

    def check(self, outputs: Specs, targets: Specs) -> None:
        counted(self.kind, outputs, targets, 1, 1)
        float_outputs(self.kind, outputs)
        if len(outputs[0].shape) != 1 or outputs[0].shape != targets[0].shape or targets[0].dtype != "int64":
            raise InputError(
                f"{self.kind} needs scores (classes,) and int64 labels (classes,), ended by -1; the network gives "
                f"{outputs[0]}, the data set {targets[0]}"
            )

    def check_batch(self, outputs: Arrays, targets: Arrays) -> None:
        check_labels(np.where(_before_end(targets[0]), targets[0], 0), outputs[0].shape[-1])

    def values(self, outputs: Arrays, targets: Arrays) -> Array:
        return np.array([self._sample(*pair)[0] for pair in zip(outputs[0], targets[0], strict=True)])

    def derivatives(self, outputs: Arrays, targets: Arrays) -> Arrays:
        return (np.stack([self._sample(*pair)[1] for pair in zip(outputs[0], targets[0], strict=True)]),)

    @staticmethod
    def _sample(x: Array, target: Labels) -> tuple[float, Array]:
        """Loss and its derivatives (classes,) of one sample."""
        labels = target[_before_end(target)]
        other = np.ones(len(x), dtype=np.bool_)
        other[labels] = False
        short = np.maximum(0.0, 1.0 - x[labels][:, None] + x[other][None, :])
        slopes = np.zeros_like(x)
        slopes[other] = (short > 0).sum(axis=0) / len(x)
        np.subtract.at(slopes, labels, (short > 0).sum(axis=1) / len(x))
        return float(short.sum() / len(x) + (x * 0.0).sum()), slopes  # the second term is NaN where a score is


class MultiLabelSoftMarginLoss(BCEWithLogitsLoss):
    """Binary cross-entropy of each class: -weight * (y log sigmoid(x) + (1 - y) log sigmoid(-x)), mean over classes.

    Outputs (n, classes) scores; targets (n, classes), 1 for each of the sample's labels, otherwise 0.

    Source: torch.nn.MultiLabelSoftMarginLoss; BigDL MultiLabelSoftMarginCriterion.
    """

    def __init__(self, weight: Any = None, size_average: bool = True) -> None:
        super().__init__(weight=weight, size_average=size_average)


class MarginRankingLoss(SampleCriterion):
    """max(0, margin - y (x1 - x2)) per element: y = 1 wants the first output larger, -1 the second.

    Outputs x1 and x2, targets 1 or -1, all of one shape (n, ...). A sample's loss is the mean over its elements.

    Args:
        size_average: False for the sum over a sample's elements.

    Source: torch.nn.MarginRankingLoss; BigDL MarginRankingCriterion.
    """

    def __init__(self, margin: float = 0.0, size_average: bool = True) -> None:
        self.margin = number(self.kind, "margin", margin)
        self.size_average = bool(size_average)

    def check(self, outputs: Specs, targets: Specs) -> None:
        counted(self.kind, outputs, targets, 2, 1)
        float_outputs(self.kind, outputs)
        for spec in (TensorSpec(outputs[1].shape), targets[0]):
            same_shape(self.kind, outputs[0], spec)

    def check_batch(self, outputs: Arrays, targets: Arrays) -> None:
        check_signs(self.kind, targets[0])

    def values(self, outputs: Arrays, targets: Arrays) -> Array:
        short, _ = self._short(outputs, targets)
        return reduced(short, self.size_average)

    def derivatives(self, outputs: Arrays, targets: Arrays) -> Arrays:
        short, y = self._short(outputs, targets)
        slope = -y * (short > 0) * share(short, self.size_average)
        return slope, -slope.reshape(outputs[1].shape)

    def _short(self, outputs: Arrays, targets: Arrays) -> tuple[Array, Array]:
        first, second, y = outputs[0], outputs[1].reshape(outputs[0].shape), targets[0].reshape(outputs[0].shape)
        return np.maximum(0.0, self.margin - y * (first - second)), y


def check_signs(kind: str, target: NDArray[Any]) -> None:
    """Raises InputError unless every target is 1 or -1."""
    refuse(target, np.abs(target) != 1, f"is no target of {kind}; they must be 1 or -1")


def _before_end(target: Labels) -> NDArray[np.bool_]:
    """Which places of lists of labels, along the last dimension, come before the first -1."""
    ended: NDArray[np.bool_] = np.logical_or.accumulate(target == -1, axis=-1)
    return ~ended
