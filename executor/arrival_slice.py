"""A server's slice in asynchronous training: every step's gradient is applied when it arrives, in whatever order.

The version counts what has been applied. Each step is applied once: a second gradient of it, of another worker or sent
again, is dropped.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

from executor.parameter_slice import ParameterSlice, Verdict
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
        self._arrived: deque[tuple[int, Partial]] = deque()

    @property
    def applied(self) -> tuple[int, Sequence[int]]:
        """See ParameterSlice."""
        return self.through, sorted(self.ahead)

    def too_old(self, step: int, version: int) -> bool:
        """See ParameterSlice."""
        applied = step <= self.through or step in self.ahead
        return not applied and self._staleness is not None and self.version - version > self._staleness

    def push(self, step: int, node: Node, value: Partial) -> Verdict:
        """Takes the gradient of a whole step."""
        leaves = self._plan.leaves(max(step, 1))
        if step < 1 or node.leaves(leaves) != (0, leaves) or value.gradient.size != self.end - self.begin:
            return Verdict.INVALID
        if step <= self.through or step in self.ahead:
            return Verdict.DUPLICATE
        self.ahead.add(step)
        while self.through + 1 in self.ahead:
            self.through += 1
            self.ahead.remove(self.through)
        self._arrived.append((step, value))
        return Verdict.TAKEN

    @property
    def complete(self) -> Partial | None:
        """Nothing ever waits for totals here."""
        return None

    def advance(self) -> bool:
        """Applies the next of what has arrived; True if there was any, `finished` is its step then."""
        if not self._arrived:
            return False
        self.finished, self.reduced = self._arrived.popleft()
        self.version += 1
        epoch = self._plan.epoch(self.version)
        self.update.apply(self.parameters, self.reduced.gradient, self.version, epoch)
        return True
