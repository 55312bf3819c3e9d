"""A server's slice of the parameters: collects the gradients of one step after another and applies them.

A pure state machine, like the lease book. Version v is what the parameters are after step v. Every piece of the slice
(executor.pieces) has a reduction tree of its own and moves from version s - 1 to s when

- its tree of step s is complete,
- the lease book has committed step s - 1, so that every server passes every version that a checkpoint may be asked of,
- the learning rates of step s are known, where they depend on how the training goes, and
- where the update needs sums over the whole vector: all of the slice's trees are complete, and the sums over all slices
  are known; `share` gives this slice's part, `total` takes the whole,

and nobody holds the slice, as while a checkpoint is copied.

The slice has version s when all of its pieces have, and every node of the step was ended.
"""

from collections.abc import Callable, Sequence
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from compute.optim import ExactSum, ParameterUpdate
from executor.pieces import piece_bounds, piece_count, whole_pieces
from executor.reduction_tree import Node, Partial, ReductionTree, Round
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
        finished: last step that was applied.
        reduced: value of the tree of that step, for the lease book's reports; without the gradient.
        gradients: what `apply` has applied, for a replica: first element and gradient of each part. Whoever sets it to
            a list empties it.
    """

    def __init__(
        self, begin: int, end: int, version: int, parameters: Vector, update: ParameterUpdate, plan: StepPlan,
        told_rates: bool = False, rounding: Callable[[int], Round | None] | None = None,
    ) -> None:
        """
        Args:
            told_rates: whether the learning rates come from the lease book, by `rates_known`.
            rounding: of the reduction tree's nodes, by first element in the flat vector.
        """
        self.begin = begin
        self.end = end
        self.version = self.finished = version
        self.committed = version
        self.parameters = parameters
        self.update = update
        self.reduced: Partial | None = None
        self.gradients: list[tuple[int, Vector]] | None = None
        self._plan = plan
        self._told_rates = told_rates
        self._rates: tuple[int, Sequence[float] | None] = (0, None)  # of a step
        self._totals: tuple[int, Sequence[float], float] = (0, (), 0.0)  # of a step, with its loss
        self._share: list[ExactSum] | None = None
        self._holds = 0
        size = end - begin
        self._bounds = [piece_bounds(size, index) for index in range(piece_count(size))]
        self._roundings = [rounding(begin + first) if rounding else None for first, _ in self._bounds]
        self._updates: list[ParameterUpdate] = []  # of each piece; made when first needed
        self._complete: Partial | None = None
        self._begin_step()

    def _begin_step(self) -> None:
        leaves = self._plan.leaves(self.version + 1)
        self._trees: list[ReductionTree | None] = [
            ReductionTree(leaves, rounding) for rounding in self._roundings
        ]  # None: applied
        self._whole: dict[int, None] = {}  # pieces whose tree is complete, in that order
        self._all_applied = not self._trees and not self.update.needs_sums
        self._nodes = ReductionTree(leaves)  # of losses and samples; without gradients
        self._complete = None
        self._share = None

    @property
    def applied(self) -> tuple[int, Sequence[int]]:
        """All steps up to the first have been applied, and these beyond it."""
        return self.version, ()

    def too_old(self, step: int, version: int) -> bool:
        """Whether a step's gradient that was computed with this version of the slice must not be applied any more."""
        return False

    @property
    def size(self) -> int:
        """Elements."""
        return self.end - self.begin

    def push(self, step: int, node: Node, first: int, gradient: Vector) -> Verdict:
        """Takes pieces of the gradient of a node of the step's tree, from element `first` of the slice on."""
        if step <= self.version:
            return Verdict.STALE
        pieces = whole_pieces(self.size, first, first + gradient.size)
        if step != self.version + 1 or not self._nodes.exists(node) or pieces is None:
            return Verdict.INVALID
        verdict = Verdict.DUPLICATE
        for index in pieces:
            tree, (begin, end) = self._trees[index], self._bounds[index]
            if tree is not None and tree.add(node, Partial(gradient[begin - first : end - first])):
                verdict = Verdict.TAKEN
                if tree.result is not None:
                    self._whole[index] = None
        return verdict

    def end_node(self, step: int, node: Node, loss: float = 0.0, samples: int = 0, digest: int = 0) -> Verdict:
        """All pieces of a node were pushed; the lease book's server hears of its samples."""
        if step <= self.version:
            return Verdict.STALE
        if step != self.version + 1 or not self._nodes.exists(node):
            return Verdict.INVALID
        taken = self._nodes.add(node, Partial(np.empty(0, dtype=np.float32), loss, samples, digest))
        return Verdict.TAKEN if taken else Verdict.DUPLICATE

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
        """Parameters and state stay as they are until `release` was called as often as this. Only while `whole`."""
        self._holds += 1

    def release(self) -> None:
        """The end of a hold; `apply` may have become possible."""
        self._holds -= 1

    @property
    def whole(self) -> bool:
        """Whether all of the slice has its version, and nothing the next one."""
        return not self._all_applied and all(tree is not None for tree in self._trees)

    @property
    def last_rates(self) -> Sequence[float] | None:
        """The learning rates last told; None where the update knows them by itself."""
        return self._rates[1] if self._told_rates else None

    @property
    def last_totals(self) -> tuple[int, Sequence[float], float]:
        """The totals last told, with their step (0: none yet) and its mean loss."""
        return self._totals

    @property
    def _may_apply(self) -> bool:
        """Whether the next step's update may be begun, as far as the lease book is concerned."""
        return self.committed >= self.version and (not self._told_rates or self._rates[0] == self.version + 1)

    @property
    def complete(self) -> Partial | None:
        """The gradient of the next step, once all of it is here and nothing but totals is missing; else None.

        Only for updates that need sums: others are applied piece by piece.
        """
        nodes = self._nodes.result
        if nodes is None or self._all_applied or len(self._whole) < len(self._bounds) or not self._may_apply:
            return None
        if self._complete is None:
            pieces = [tree.result.gradient for tree in self._trees if tree is not None and tree.result is not None]
            gradient = pieces[0] if len(pieces) == 1 else np.concatenate([nodes.gradient, *pieces])
            self._complete = Partial(gradient, nodes.loss, nodes.samples, nodes.digest)
        return self._complete

    def share(self) -> list[ExactSum] | None:
        """This slice's share of the sums of the next step, once it is complete; None before, or if none are needed."""
        if not self.update.needs_sums:
            return None
        gradient = self.complete
        if gradient is None:
            return None
        if self._share is None:
            self._share = self.update.sums(self.parameters, gradient.gradient)
        return self._share

    def can_apply(self) -> bool:
        """Whether `apply` would change something."""
        if self._holds:
            return False
        if self.update.needs_sums:
            return self._totals[0] == self.version + 1 and not self._all_applied and self.complete is not None
        return bool(self._whole) and self._may_apply

    def apply(self) -> list[int]:
        """Applies what may be applied of the next step's gradient; the pieces that have its version now, rising."""
        if not self.can_apply():
            return []
        step, rates = self.version + 1, self._rates[1] if self._told_rates else None
        epoch = self._plan.epoch(step)
        if self.update.needs_sums:
            gradient = self.complete
            if gradient is not None:
                _, totals, loss = self._totals
                self._remember(0, gradient.gradient)
                self.update.apply(self.parameters, gradient.gradient, step, epoch, rates, totals, loss)
            self._all_applied = True
        else:
            for index in self._whole:
                tree, (begin, end) = self._trees[index], self._bounds[index]
                if tree is not None and tree.result is not None:
                    self._remember(begin, tree.result.gradient)
                    self._update_of(index).apply(self.parameters[begin:end], tree.result.gradient, step, epoch, rates)
                    self._trees[index] = None
        found = sorted(self._whole)
        self._whole = {}
        self._all_applied = self._all_applied or all(tree is None for tree in self._trees)
        return found

    def _remember(self, first: int, gradient: Vector) -> None:
        if self.gradients is not None:
            self.gradients.append((first, gradient))

    def replay(self, result: Partial) -> None:
        """Applies a whole step, which the server has reduced and applied that this is the replica of.

        Args:
            result: with the gradient, float32 (end - begin,).
        """
        step = self.version + 1
        _, totals, loss = self._totals if self.update.needs_sums else (0, (), 0.0)
        self.update.apply(
            self.parameters, result.gradient, step, self._plan.epoch(step), self.last_rates, totals, loss
        )  # fmt: skip
        self.committed = self.version  # or it had not been applied there
        self.version = self.finished = step
        self.reduced = Partial(np.empty(0, dtype=np.float32), result.loss, result.samples, result.digest)
        self._begin_step()

    def _update_of(self, index: int) -> ParameterUpdate:
        if not self._updates:
            self._updates = [self.update.part(begin, end) for begin, end in self._bounds]
        return self._updates[index]

    def advance(self) -> bool:
        """Moves to the next version if all pieces have it and all nodes were ended; True if it moved."""
        nodes = self._nodes.result
        if not self._all_applied or nodes is None or not self._may_apply:
            return False
        self.version = self.finished = self.version + 1
        self.reduced = nodes
        self._begin_step()
        return True
