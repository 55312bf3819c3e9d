"""Metrics of recommendation: where the one wanted item comes among others that are not."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.metrics.metric import Array, Metric, Sums, ratio, single, whole
from compute.nn.criterion.labels import check_labels
from compute.spec import Arrays, Specs


class _Ranking(Metric):
    """Groups of one positive item and `negatives` others, as HitRatio says; the mean of what its rank is worth."""

    def __init__(self, k: int, negatives: int) -> None:
        self.k = whole(type(self).__name__, "k", k, 1)
        self.negatives = whole(type(self).__name__, "negatives", negatives, 1)
        self.name = f"{type(self).__name__}@{k}"

    def check(self, outputs: Specs, targets: Specs) -> None:
        single(self.name, outputs, targets)
        output, target = outputs[0].shape, targets[0]
        group = (self.negatives + 1,)
        chosen = output == group and (target.shape == group or (target.shape == () and target.dtype == "int64"))
        if not chosen and not (output in ((), (1,)) and target.shape in ((), (1,))):
            raise InputError(
                f"{self.name} needs outputs {group} with targets {group} or int64 (), or one output and target per "
                f"item, got outputs {outputs[0]}, targets {target}"
            )

    def sums(self, outputs: Arrays, targets: Arrays) -> Sums:
        ranks = self._ranks(outputs[0], targets[0])
        return np.array([self.worth(ranks).sum(), len(ranks)], dtype=np.float64)

    def result(self, sums: Sums) -> float:
        return ratio(sums[0], sums[1])

    @abstractmethod
    def worth(self, ranks: NDArray[np.int64]) -> Sums:
        """What ranks, from 1, are worth, float64."""

    def _ranks(self, scores: Array, target: Array) -> NDArray[np.int64]:
        size = self.negatives + 1
        if scores.size % size:
            raise InputError(
                f"{self.name} got {scores.size} items, which is no multiple of negatives + 1 = {size}; give the "
                f"validation a batch_size that is one, such as {size * max(1, 256 // size)}"
            )
        scores = scores.reshape(-1, size)
        if target.size == scores.size:
            marks = target.reshape(-1, size) == 1
            wrong = np.flatnonzero(marks.sum(axis=1) != 1)
            if len(wrong):
                raise InputError(f"{self.name}: group {wrong[0]} of the batch must have one target 1 and others 0")
            place = marks.argmax(axis=1)
        else:
            place = target.reshape(-1)
            check_labels(place, size)
        own = np.take_along_axis(scores, place[:, None], axis=1)
        ahead = ~(scores <= own)  # true for NaN as well
        np.put_along_axis(ahead, place[:, None], False, axis=1)
        return np.asarray(1 + ahead.sum(axis=1), dtype=np.int64)


class HitRatio(_Ranking):
    """Share of groups of one positive item and `negatives` others in which the positive is among the first k.

    A group is a sample, with outputs (n, negatives + 1) and as targets int64 (n,), which item is the positive, or
    (n, negatives + 1), 1 at it and 0 elsewhere. Or a group is negatives + 1 samples in a row, with outputs (n,) or
    (n, 1), and targets 1 at the positive and 0 elsewhere; then the validation's batch size and number of samples must
    be multiples of negatives + 1. The rank is 1 plus the number of others with a larger output; NaN comes first.

    Sums: hits, groups. Source: He et al., Neural collaborative filtering, 2017; BigDL HitRatio.
    """

    def __init__(self, k: int = 10, negatives: int = 100) -> None:
        super().__init__(k, negatives)

    def worth(self, ranks: NDArray[np.int64]) -> Sums:
        return (ranks <= self.k).astype(np.float64)


class NDCG(_Ranking):
    """Normalized discounted cumulative gain: log 2 / log(rank + 1) if the positive item is among the first k, else 0.

    Groups are those of HitRatio. Sums: the gains, groups. Source: as HitRatio; BigDL NDCG.
    """

    def __init__(self, k: int = 10, negatives: int = 100) -> None:
        super().__init__(k, negatives)

    def worth(self, ranks: NDArray[np.int64]) -> Sums:
        return np.where(ranks <= self.k, np.log(2.0) / np.log(ranks + 1.0), 0.0)
