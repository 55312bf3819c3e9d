"""One run over the validation set: its blocks, what workers found in each, and the metrics of the whole."""

from collections.abc import Sequence

import numpy as np

from compute import Validation

Sums = Sequence[Sequence[float]]
"""What the metrics added up over some samples, in the order of the job's metrics."""


class ValidationRound:
    """See the module.

    Attributes:
        blocks: ranges [first, last) of samples, each scored for itself.
    """

    def __init__(self, validation: Validation) -> None:
        self._validation = validation
        count, size = len(validation.dataset), validation.batch_size
        self.blocks = [(first, min(first + size, count)) for first in range(0, count, size)]
        self._scores: dict[int, tuple[Sums, int]] = {}

    def scored(self, block: int, sums: Sums, samples: int) -> None:
        """A worker has scored a block; the first answer counts."""
        self._scores.setdefault(block, (sums, samples))

    @property
    def complete(self) -> bool:
        """Whether every block has been scored."""
        return len(self._scores) == len(self.blocks)

    @property
    def samples(self) -> int:
        """How many have been scored."""
        return sum(samples for _, samples in self._scores.values())

    def metrics(self) -> dict[str, float]:
        """By name; the sums are added in the order of the blocks, for the same bits."""
        scores = [self._scores[block][0] for block in range(len(self.blocks))]
        return {
            metric.name: metric.result(np.sum([sums[position] for sums in scores], axis=0, dtype=np.float64))
            for position, metric in enumerate(self._validation.metrics)
        }
