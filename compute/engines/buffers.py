"""Memory for the buffers of a plan, shared by those that are never in use at the same time."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.arena import Arena, Buffer

_FOREVER = 1 << 62


class Buffers:
    """Gives a plan its buffers; first apart from each other, to see how long each is used, then `placed`.

    The plan asks for the same buffers in the same order both times.

    Attributes:
        clock: calls that were emitted so far.
        taken: buffers that were given so far.
    """

    def __init__(self, arena: Arena, last_uses: list[int] | None = None) -> None:
        self._shared = arena
        # Addresses cost nothing until they are written to, and while uses are observed nothing runs.
        self._arena = arena.again() if last_uses is not None else Arena()
        self._last_uses = last_uses
        self._observed: list[int] = []
        self._starts: list[int] = []
        self._live: list[tuple[int, Buffer]] = []
        self.clock = 0

    @property
    def observing(self) -> bool:
        """Whether the plan is only made to see how long its buffers are used; then no call will run."""
        return self._last_uses is None

    @property
    def taken(self) -> int:
        """How many buffers were given."""
        return len(self._observed)

    @property
    def peak_bytes(self) -> int:
        """Size of the memory that all buffers share."""
        return self._arena.peak_bytes

    def placed(self) -> Buffers:
        """What gives the same buffers once more, on memory that is shared wherever their uses allow it."""
        return Buffers(self._shared, self._observed)

    def take(self, size_bytes: int) -> NDArray[np.uint8]:
        """The next buffer, uint8 (size_bytes,), 64-byte aligned."""
        if self._last_uses is not None:
            for _, buffer in (entry for entry in self._live if entry[0] <= self.clock):
                self._arena.give_back(buffer)
            self._live = [entry for entry in self._live if entry[0] > self.clock]
        buffer = self._arena.take(size_bytes)
        if self._last_uses is not None:
            self._live.append((self._last_uses[self.taken], buffer))
        array = buffer.array((size_bytes,), np.uint8)
        # Addresses only grow while buffers are not given back, so that the list is sorted.
        self._starts.append(array.ctypes.data)
        self._observed.append(self.clock)
        return array

    def use(self, array: NDArray[Any]) -> None:
        """Notes that a call before `clock` uses an array, which may lie in a buffer, as a whole or a part."""
        self._note(array, self.clock)

    def keep(self, array: NDArray[Any]) -> None:
        """Notes that an array must last as long as the plan."""
        self._note(array, _FOREVER)

    def _note(self, array: NDArray[Any], until: int) -> None:
        if not self.observing or not self._starts:
            return
        address = array.ctypes.data
        index = bisect_right(self._starts, address) - 1
        if index >= 0 and address < self._arena_end():
            self._observed[index] = max(self._observed[index], until)

    def _arena_end(self) -> int:
        return self._starts[0] + self._arena.peak_bytes
