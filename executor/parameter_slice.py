"""A server's slice of the parameters: collects the gradients of one step after another and applies them.

A pure state machine, like the lease book. Version v is what the parameters are after step v. The slice moves from
version s - 1 to s when

- the tree of step s is complete,
- the lease book has committed step s - 1, so that every server passes every version that a checkpoint may be asked of,
- the learning rates of step s are known, where they depend on how the training goes,
- the sums over all slices are, where the update needs them: `share` gives this slice's part, `total` takes the whole,
  and
- nobody holds the slice: a checkpoint is being copied.
"""

from collections.abc import Sequence
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from compute.optim import ExactSum, ParameterUpdate
from executor.reduction_tree import Node, Partial, ReductionTree
from executor.step_plan import StepPlan

Vector = NDArray[np.float32]


class Verdict(Enum):
    """What became of a push."""

    TAKEN = auto()
    DUPLICATE = auto()  # of one taken before, by whatever worker
    STALE = auto()  # the step is complete
    INVALID = auto()  # no such step, node or size


class ParameterSlice:
    """See the module.

    Attributes:
        begin, end: range of the flat vector that it holds, in elements.
        version: of the parameters.
        committed: last step known to be committed.
        parameters: float32 (end - begin,).
        update: what is done to them, with the optimizers' state.
        reduced: value of the last completed step's tree, for the lease book's reports.
    """

    def __init__(
        self, begin: int, end: int, version: int, parameters: Vector, update: ParameterUpdate, plan: StepPlan,
        told_rates: bool = False,
    ) -> None:
        """
        Args:
            told_rates: whether the learning rates come from the lease book, by `rates_known`.
        """
        self.begin = begin
        self.end = end
        self.version = version
        self.committed = version
        self.parameters = parameters
        self.update = update
        self.reduced: Partial | None = None
        self._plan = plan
        self._told_rates = told_rates
        self._rates: tuple[int, Sequence[float] | None] = (0, None)  # of a step
        self._totals: tuple[int, Sequence[float], float] = (0, (), 0.0)  # of a step, with its loss
        self._share: list[ExactSum] | None = None
        self._holds = 0
        self._tree = ReductionTree(plan.leaves(version + 1))

    def push(self, step: int, node: Node, value: Partial) -> Verdict:
        """Takes the gradient of a node of the step's tree."""
        if step <= self.version:
            return Verdict.STALE
        if step != self.version + 1 or not self._tree.exists(node) or value.gradient.size != self.end - self.begin:
            return Verdict.INVALID
        return Verdict.TAKEN if self._tree.add(node, value) else Verdict.DUPLICATE

    def commit(self, step: int) -> None:
        """The lease book says that the step is final."""
        self.committed = max(self.committed, step)

    def rates_known(self, step: int, rates: Sequence[float]) -> None:
        """The lease book says the learning rates of a step, in the order of the optimizers."""
        if step > self._rates[0]:
            self._rates = (step, rates)

    def total(self, step: int, totals: Sequence[float], loss: float) -> None:
        """The sums of all slices' shares of a step, and its mean loss."""
        if step > self._totals[0]:
            self._totals = (step, totals, loss)

    def hold(self) -> None:
        """Parameters and state stay as they are until `release` has been called as often as this."""
        self._holds += 1

    def release(self) -> None:
        """The end of a hold; `advance` may have become possible."""
        self._holds -= 1

    @property
    def last_rates(self) -> Sequence[float] | None:
        """The learning rates last told; None where the update knows them by itself."""
        return self._rates[1] if self._told_rates else None

    @property
    def last_totals(self) -> tuple[int, Sequence[float], float]:
        """The totals last told, with their step (0: none yet) and its mean loss."""
        return self._totals

    @property
    def complete(self) -> Partial | None:
        """Value of the next step's tree, once it is complete and nothing but totals is missing; else None."""
        step = self.version + 1
        if self.committed < self.version or (self._told_rates and self._rates[0] != step):
            return None
        return self._tree.result

    def share(self) -> list[ExactSum] | None:
        """This slice's share of the sums of the next step, once it is complete; None before, or if none are needed."""
        gradient = self.complete
        if gradient is None or not self.update.needs_sums:
            return None
        if self._share is None:
            self._share = self.update.sums(self.parameters, gradient.gradient)
        return self._share

    def advance(self) -> bool:
        """Applies the next step's gradient if it may be applied; True if the version moved."""
        gradient, step = self.complete, self.version + 1
        if gradient is None or self._holds or (self.update.needs_sums and self._totals[0] != step):
            return False
        self._apply(gradient)
        return True

    def replay(self, gradient: Partial) -> None:
        """Applies the next step's gradient, which another server has reduced and applied: this is its replica."""
        self.committed = self.version  # or it had not been applied there
        self._apply(gradient)

    def _apply(self, gradient: Partial) -> None:
        step = self.version + 1
        totals, loss = (self._totals[1], self._totals[2]) if self.update.needs_sums else ((), 0.0)
        self.update.apply(
            self.parameters, gradient.gradient, step, self._plan.epoch(step), self.last_rates, totals, loss
        )  # fmt: skip
        self.version = step
        self.reduced = gradient
        self._share = None
        self._tree = ReductionTree(self._plan.leaves(step + 1))
