"""Adds up the servers' shares of sums over the whole vector: the first server's part in steps that need them."""

from collections.abc import Sequence
from typing import NamedTuple

from compute.optim import ExactSum


class StepTotals(NamedTuple):
    """The totals of a step, and the mean loss of its samples."""

    step: int
    totals: list[float]
    loss: float


class SumBook:
    """A pure state machine. Shares may come twice, and late; each server's first one of a step counts.

    Attributes:
        last: the newest step whose shares are all here.
    """

    def __init__(self, servers: int) -> None:
        self._servers = servers
        self._step = 0
        self._shares: dict[int, Sequence[ExactSum]] = {}
        self._loss: float | None = None
        self.last: StepTotals | None = None

    def share(self, server: int, step: int, values: Sequence[ExactSum], loss: float | None = None) -> StepTotals | None:
        """Takes a server's share of a step, the first server's with the mean loss; the totals when it was the last.

        Raises:
            ValueError: the shares of two servers are not of the same sums.
        """
        if step < self._step or (self.last is not None and step <= self.last.step):
            return None
        if step > self._step:  # nobody begins a step before all have ended the one before
            self._step, self._shares, self._loss = step, {}, None
        if any(len(other) != len(values) for other in self._shares.values()):
            raise ValueError(f"server {server} sent {len(values)} sums at step {step}, the others another number")
        self._shares.setdefault(server, values)
        self._loss = loss if loss is not None else self._loss
        if len(self._shares) < self._servers or self._loss is None:
            return None
        totals = [float(sum(column, ExactSum())) for column in zip(*self._shares.values(), strict=True)]
        self.last = StepTotals(step, totals, self._loss)
        self._shares = {}
        return self.last
