"""Metrics of a validation. Each gives sums over samples, so that parts computed anywhere add up."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from compute.nn.criterion import Criterion, NLLLoss

Array = NDArray[np.float32]
Labels = NDArray[np.int64]
Sums = NDArray[np.float64]


class Metric(ABC):
    """Base of all metrics; subclass it for one of your own. `name` is its tag in logs and summaries."""

    name: str

    @abstractmethod
    def sums(self, output: Array, target: Labels) -> Sums:
        """float64 (k,) for a batch; the sums of two batches add to those of both."""

    @abstractmethod
    def result(self, sums: Sums) -> float:
        """The metric from the sums over all samples; NaN without samples."""


class Top1Accuracy(Metric):
    """Share of samples whose largest output is that of their label."""

    name = "Top1Accuracy"

    def sums(self, output: Array, target: Labels) -> Sums:
        return np.array([np.count_nonzero(output.argmax(axis=1) == target), len(target)], dtype=np.float64)

    def result(self, sums: Sums) -> float:
        return float(sums[0] / sums[1]) if sums[1] else float("nan")


class Loss(Metric):
    """Mean loss per sample."""

    name = "Loss"

    def __init__(self, criterion: Criterion | None = None) -> None:
        self.criterion = criterion or NLLLoss()

    def sums(self, output: Array, target: Labels) -> Sums:
        return np.array([self.criterion.loss((output,), (target,)), len(target)], dtype=np.float64)

    def result(self, sums: Sums) -> float:
        return float(sums[0] / sums[1]) if sums[1] else float("nan")
