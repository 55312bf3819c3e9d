"""A server's slice of the parameters: collects the gradients of one step after another and applies them.

A pure state machine, like the lease book. Version v is what the parameters are after step v. The slice moves from
version s - 1 to s when the tree of step s is complete, and not before the lease book has committed step s - 1, so that
every server passes every version that a checkpoint may be asked of.
"""

from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from compute.optim import Optimizer
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
        state: the optimizer's arrays, each like parameters.
    """

    def __init__(
        self, begin: int, end: int, version: int, parameters: Vector, state: dict[str, Vector], plan: StepPlan,
        optimizer: Optimizer,
    ) -> None:
        self.begin = begin
        self.end = end
        self.version = version
        self.committed = version
        self.parameters = parameters
        self.state = state
        self.reduced: Partial | None = None  # of the last completed step, for the lease book's reports
        self._plan = plan
        self._optimizer = optimizer
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

    def advance(self) -> bool:
        """Applies the next step's gradient if it is complete and may be applied; True if the version moved."""
        gradient = self._tree.result
        if gradient is None or self.committed < self.version:
            return False
        step = self.version + 1
        self._optimizer.update(self.parameters, gradient.gradient, self.state, step, self._plan.epoch(step))
        self.version = step
        self.reduced = gradient
        self._tree = ReductionTree(self._plan.leaves(step + 1))
        return True
