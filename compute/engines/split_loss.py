"""The loss of a batch and its gradient, computed by several threads at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, wait

from compute.errors import InputError
from compute.nn.criterion import Criterion
from compute.spec import Arrays

LARGE = 1 << 20
"""Elements of the outputs from which threads pay: below, what they wait for each other's turns in Python costs more."""


class SplitLoss:
    """`Criterion.loss_and_gradient` of a part of the samples in each thread; the parts' losses are added in order."""

    def __init__(
        self, criterion: Criterion, outputs: Arrays, grads: Arrays, threads: int, pool: Executor | None
    ) -> None:
        """
        Args:
            outputs, grads: of the whole batch, at the same place in every pass; the same arrays if the criterion works
                in place.
            threads: into how many parts a large batch is cut.
            pool: that many threads; None for the calling one alone.
        """
        self._criterion, self._outputs, self._pool = criterion, outputs, pool
        samples = len(outputs[0])
        parts = min(threads, samples) if pool and sum(output.size for output in outputs) >= LARGE else 1
        cuts = [slice(samples * part // parts, samples * (part + 1) // parts) for part in range(parts)]
        self._parts = [(cut, _part(outputs, cut), _part(grads, cut)) for cut in cuts]

    def __call__(self, targets: Arrays, scale: float) -> float:
        """Overwrites the gradients with those of scale * sum of losses; returns the plain sum.

        Raises:
            InputError: as the criterion does, with the sample's place in the whole batch.
        """
        total = 0.0
        try:
            for loss in self._losses(targets, scale):
                total += loss  # not by sum(), which rounds in another way from Python 3.12 on
        except InputError:
            self._criterion.loss(self._outputs, targets)  # raises with that place
            raise
        return total

    def _losses(self, targets: Arrays, scale: float) -> Iterator[float]:
        compute = self._criterion.loss_and_gradient
        if self._pool is None or len(self._parts) == 1:
            for cut, outputs, grads in self._parts:
                yield compute(outputs, _part(targets, cut), scale, grads)
            return
        tasks = [
            self._pool.submit(compute, outputs, _part(targets, cut), scale, grads)
            for cut, outputs, grads in self._parts
        ]
        wait(tasks)  # all of them, whatever one raises: none may be at work on the buffers when the pass is over
        for task in tasks:
            yield task.result()


def _part(arrays: Arrays, cut: slice) -> Arrays:
    return tuple(array[cut] for array in arrays)
