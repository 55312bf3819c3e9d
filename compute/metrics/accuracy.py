"""Metrics of classification: how often the label was found."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.metrics.metric import Array, Metric, Sums, labelled, like_output, ratio, single, whole
from compute.nn.criterion.labels import check_labels
from compute.spec import Arrays, Specs


class TopKAccuracy(Metric):
    """Share of labels that are among the k classes with the largest outputs, equal ones in order of the classes.

    Outputs (n, ..., classes); targets int64 (n, ...), labels from 0; every position counts the same. A label whose
    output is NaN, or not larger than a NaN, is not found. Sums: labels found, labels.

    Args:
        ignore_index: positions with this label do not count.
    """

    def __init__(self, k: int, ignore_index: int = -100) -> None:
        self.name = f"Top{k}Accuracy"
        self.k = whole("TopKAccuracy", "k", k, 1)
        self.ignore_index = ignore_index

    def check(self, outputs: Specs, targets: Specs) -> None:
        labelled(self.name, outputs, targets)

    def sums(self, outputs: Arrays, targets: Arrays) -> Sums:
        scores, label = outputs[0].reshape(-1, outputs[0].shape[-1]), targets[0].reshape(-1)
        check_labels(targets[0], scores.shape[1], self.ignore_index)
        counts = label != self.ignore_index
        if not counts.all():
            scores, label = scores[counts], label[counts]
        return np.array([np.count_nonzero(self._found(scores, label)), len(label)], dtype=np.float64)

    def result(self, sums: Sums) -> float:
        return ratio(sums[0], sums[1])

    def _found(self, scores: Array, label: NDArray[np.int64]) -> NDArray[np.bool_]:
        own = np.take_along_axis(scores, label[:, None], axis=1)
        if self.k == 1:
            return np.asarray((scores.argmax(axis=1) == label) & ~np.isnan(own[:, 0]))
        before = ~(scores <= own)  # true for NaN as well
        before |= (scores == own) & (np.arange(scores.shape[1]) < label[:, None])
        return np.asarray(before.sum(axis=1) < self.k)


class Top1Accuracy(TopKAccuracy):
    """Share of labels whose class has the largest output; see TopKAccuracy."""

    def __init__(self, ignore_index: int = -100) -> None:
        super().__init__(1, ignore_index)


class Top5Accuracy(TopKAccuracy):
    """Share of labels that are among the 5 classes with the largest outputs; see TopKAccuracy."""

    def __init__(self, ignore_index: int = -100) -> None:
        super().__init__(5, ignore_index)


class BinaryAccuracy(Metric):
    """Share of elements where output >= threshold just where target >= 1/2. Outputs and targets of one shape.

    Sums: elements that agree, elements. NaN agrees with nothing.

    Args:
        threshold: 0.5 for probabilities, 0 for scores (logits).
    """

    name = "BinaryAccuracy"

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = float(threshold)

    def check(self, outputs: Specs, targets: Specs) -> None:
        like_output(self.name, outputs, targets)

    def sums(self, outputs: Arrays, targets: Arrays) -> Sums:
        return _binary(outputs[0], targets[0], self.threshold)

    def result(self, sums: Sums) -> float:
        return ratio(sums[0], sums[1])


class TreeNNAccuracy(Metric):
    """Share of trees whose root, the first node, is classified rightly.

    Outputs (n, nodes, classes), or (n, nodes, 1) of probabilities with threshold 0.5; targets int64 (n, nodes).
    Sums: roots that are right, roots.

    Source: BigDL TreeNNAccuracy.
    """

    name = "TreeNNAccuracy"

    def check(self, outputs: Specs, targets: Specs) -> None:
        labelled(self.name, outputs, targets)
        if len(outputs[0].shape) != 2:
            raise InputError(f"{self.name} needs outputs (nodes, classes), got {outputs[0]}")

    def sums(self, outputs: Arrays, targets: Arrays) -> Sums:
        scores, label = outputs[0][:, 0], targets[0][:, 0]
        if scores.shape[1] == 1:
            check_labels(label, 2)
            return _binary(scores, label, 0.5)
        return Top1Accuracy().sums((scores,), (label,))

    def result(self, sums: Sums) -> float:
        return ratio(sums[0], sums[1])


class ConfusionMatrix(Metric):
    """How often which class was taken for which. Its result is the accuracy; `matrix` gives all.

    Outputs (n, ..., classes); targets int64 (n, ...). Sums: the matrix, row by row, then how many outputs had a NaN,
    which are taken for no class.

    Args:
        classes: at most 90, so that the sums stay small.
        ignore_index: positions with this label do not count.
    """

    MOST_CLASSES: ClassVar[int] = 90
    name = "ConfusionMatrix"

    def __init__(self, classes: int, ignore_index: int = -100) -> None:
        self.classes = whole(self.name, "classes", classes, 1)
        if classes > self.MOST_CLASSES:
            raise InputError(f"{self.name}: at most {self.MOST_CLASSES} classes, got {classes}")
        self.ignore_index = ignore_index

    def check(self, outputs: Specs, targets: Specs) -> None:
        labelled(self.name, outputs, targets)
        single(self.name, outputs, targets)
        if outputs[0].shape[-1] != self.classes:
            raise InputError(f"{self.name}({self.classes}) needs {self.classes} outputs per label, got {outputs[0]}")

    def sums(self, outputs: Arrays, targets: Arrays) -> Sums:
        scores, label = outputs[0].reshape(-1, self.classes), targets[0].reshape(-1)
        check_labels(targets[0], self.classes, self.ignore_index)
        broken = np.isnan(scores).any(axis=1)
        counts = label != self.ignore_index
        cells = (label * self.classes + scores.argmax(axis=1))[counts & ~broken]
        found = np.bincount(cells, minlength=self.classes**2).astype(np.float64)
        return np.append(found, np.count_nonzero(broken & counts))

    def matrix(self, sums: Sums) -> NDArray[np.int64]:
        """Counts, int64 (classes, classes): row label, column class with the largest output."""
        return sums[:-1].astype(np.int64).reshape(self.classes, self.classes)

    def result(self, sums: Sums) -> float:
        return ratio(np.trace(self.matrix(sums)), sums.sum())

    def recall(self, sums: Sums) -> Sums:
        """For each class the share of its samples that were taken for it; NaN where there are none."""
        matrix = self.matrix(sums)
        return _shares(np.diag(matrix), matrix.sum(axis=1))

    def precision(self, sums: Sums) -> Sums:
        """For each class the share of what was taken for it that belongs to it; NaN where nothing was."""
        matrix = self.matrix(sums)
        return _shares(np.diag(matrix), matrix.sum(axis=0))


def _binary(output: Array, target: Array, threshold: float) -> Sums:
    x, y = output.reshape(-1), target.reshape(-1)
    agree = ((x >= threshold) == (y >= 0.5)) & ~np.isnan(x)
    return np.array([np.count_nonzero(agree), x.size], dtype=np.float64)


def _shares(part: NDArray[np.int64], whole: NDArray[np.int64]) -> Sums:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
