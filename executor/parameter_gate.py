"""Lets a forward pass begin before all of its parameters have arrived."""

import threading
from collections.abc import Iterable

from executor.pieces import PIECE


class ParametersGone(Exception):
    """What is waited for will not come; the lease cannot be computed."""


class ParameterGate:
    """Pieces of one version that are still to come, between the thread that receives and the one that computes.

    Attributes:
        version: of the parameters.
    """

    def __init__(self, version: int, lacking: Iterable[tuple[int, int]]) -> None:
        """
        Args:
            lacking: the pieces, as ranges [begin, end) of the flat vector.
        """
        self.version = version
        self._lacking = dict(lacking)
        self._gone = False
        self._changed = threading.Condition()

    def arrived(self, begin: int, end: int) -> None:
        """Whole pieces, elements [begin, end), are at their place."""
        with self._changed:
            for place in range(begin, end, PIECE):
                self._lacking.pop(place, None)
            self._changed.notify_all()

    def lacks(self, begin: int, end: int) -> bool:
        """Whether something in this range is still to come."""
        return any(first < end and begin < last for first, last in self._lacking.items())

    def give_up(self) -> None:
        """Nothing more will come."""
        with self._changed:
            self._gone = True
            self._changed.notify_all()

    def needed(self, begin: int, end: int) -> None:
        """Waits until elements [begin, end) are at their place: in the computing thread.

        Raises:
            ParametersGone: they will not be.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._gone or not self.lacks(begin, end))
            if self._gone:
                raise ParametersGone
