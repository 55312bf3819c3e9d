"""A server's slice in asynchronous training: every step's gradient is applied when it arrives, in whatever order.

The version counts what has been applied. Each step is applied once: a second gradient of it, of another worker or sent
again, is dropped.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from executor.parameter_slice import ParameterSlice, Vector, Verdict
from executor.pieces import whole_pieces
from executor.reduction_tree import Node, Partial


class ArrivalSlice(ParameterSlice):
    """See the module; constructed as a ParameterSlice.

    Attributes:
        through: all steps up to this one have been applied,
        ahead: and these beyond.
    """

    def __init__(self, *arguments: Any, staleness: int | None = None) -> None:
        """
        Args:
            staleness: the most versions that a gradient may be behind; None for any number.
        """
        super().__init__(*arguments)
        self._staleness = staleness
        self.through = self.finished = self.version
        self.ahead: set[int] = set()
        self._arriving: dict[int, tuple[Vector, set[int]]] = {}  # gradients, and the pieces of them that are here
        self._arrived: deque[tuple[int, Partial]] = deque()
        self._moved = False

    @property
    def applied(self) -> tuple[int, Sequence[int]]:
        """See ParameterSlice."""
        return self.through, sorted(self.ahead)

    def too_old(self, step: int, version: int) -> bool:
        """See ParameterSlice."""
        if self._is_applied(step) or self._staleness is None or self.version - version <= self._staleness:
            return False
        self._arriving.pop(step, None)  # what came of it before it was too old
        return True

    def push(self, step: int, node: Node, first: int, gradient: Vector) -> Verdict:
        """Takes pieces of the gradient of a whole step; of each piece the first that comes counts."""
        leaves = self._plan.leaves(max(step, 1))
        pieces = whole_pieces(self.size, first, first + gradient.size)
        if step < 1 or node.leaves(leaves) != (0, leaves) or pieces is None:
            return Verdict.INVALID
        if self._is_applied(step):
            return Verdict.DUPLICATE
        whole = self._arriving.setdefault(step, (np.empty(self.size, dtype=np.float32), set()))
        verdict = Verdict.DUPLICATE
        for index in set(pieces) - whole[1]:
            begin, end = self._bounds[index]
            whole[0][begin:end] = gradient[begin - first : end - first]
            whole[1].add(index)
            verdict = Verdict.TAKEN
        return verdict

    def end_node(self, step: int, node: Node, loss: float = 0.0, samples: int = 0, digest: int = 0) -> Verdict:
        """All pieces of a step were pushed."""
        leaves = self._plan.leaves(max(step, 1))
        if step < 1 or node.leaves(leaves) != (0, leaves):
            return Verdict.INVALID
        if self._is_applied(step):
            return Verdict.DUPLICATE
        gradient, pieces = self._arriving.pop(step, (np.empty(self.size, dtype=np.float32), set()))
        if len(pieces) < len(self._bounds):
            return Verdict.INVALID
        self.ahead.add(step)
        while self.through + 1 in self.ahead:
            self.through += 1
            self.ahead.remove(self.through)
        self._arrived.append((step, Partial(gradient, loss, samples, digest)))
        return Verdict.TAKEN

    @property
    def complete(self) -> Partial | None:
        """Nothing ever waits for totals here."""
        return None

    def can_apply(self) -> bool:
        """See ParameterSlice."""
        return bool(self._arrived) and not self._moved and not self._holds

    def apply(self) -> list[int]:
        """Applies the next gradient that has arrived; the pieces that have a new version by that, which are all."""
        if not self.can_apply():
            return []
        self.finished, self.reduced = self._arrived.popleft()
        step = self.version + 1
        self.update.apply(self.parameters, self.reduced.gradient, step, self._plan.epoch(step))
        self._moved = True
        return list(range(len(self._bounds)))

    def advance(self) -> bool:
        """Moves to the next version if a gradient was applied; `finished` is its step."""
        if not self._moved:
            return False
        self._moved = False
        self.version += 1
        return True

    def _is_applied(self, step: int) -> bool:
        return step <= self.through or step in self.ahead
