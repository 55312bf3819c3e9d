"""Memory that a plan's buffers share: `Arena`."""

from __future__ import annotations

import math
import mmap
import os
import resource
from bisect import insort
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from compute.memory import ALIGNMENT_BYTES, HUGE_PAGE_BYTES

_MAP_NORESERVE = 0x4000
"""Linux' number on x86 and ARM; Python's mmap has the name from 3.13 on."""


@dataclass(frozen=True, eq=False)
class Buffer:
    """Some bytes of an arena; `size_bytes` as asked for."""

    offset: int
    size_bytes: int
    memory: NDArray[np.uint8]

    def array(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """A C-contiguous array at its start, 64-byte aligned, with whatever was there. Raises ValueError if larger."""
        wanted = np.dtype(dtype).itemsize * math.prod(shape)
        if wanted > self.size_bytes:
            raise ValueError(f"an array of {wanted} bytes does not fit into {self.size_bytes}")
        return self.memory[:wanted].view(dtype).reshape(shape)


class Arena:
    """One range of addresses, in huge pages, from which a plan takes its buffers in the order in which its calls run.

    What is given back once the last call that reads it has been planned is taken again by later calls: the arena
    grows to the largest sum of what is in use at a time (and holes between). Memory is the system's until it is first
    written to, and returns to it when the arena and the last array on it are gone.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        """Reserves addresses, not memory, for `limit_bytes`: by default all that the machine has.

        Raises:
            MemoryError: not even a huge page could be reserved.
        """
        self._memory = _reserve(limit_bytes or _most_bytes())
        self._live: dict[int, Buffer] = {}
        self._holes: list[tuple[int, int]] = []
        self._end = 0

    @property
    def peak_bytes(self) -> int:
        """What the buffers need together, so far."""
        return self._end

    @property
    def live_bytes(self) -> int:
        """Sum of the buffers in use, each rounded up to its alignment."""
        return sum(_rounded(buffer.size_bytes) for buffer in self._live.values())

    def again(self) -> Arena:
        """An empty arena on the same memory, for a plan that never runs between another's calls."""
        twin = object.__new__(Arena)
        twin._memory, twin._live, twin._holes, twin._end = self._memory, {}, [], 0
        return twin

    def take(self, size_bytes: int) -> Buffer:
        """A buffer that overlaps none in use; its content is undefined. Raises MemoryError beyond the limit."""
        size = _rounded(size_bytes)
        fitting = [(length, start) for start, length in self._holes if length >= size]
        if fitting:
            # The smallest that is large enough; of those the first.
            length, start = min(fitting)
            self._holes.remove((start, length))
            if length > size:
                insort(self._holes, (start + size, length - size))
        else:
            start = self._end
            if self._holes and sum(self._holes[-1]) == self._end:
                start = self._holes[-1][0]
            if start + size > len(self._memory):
                raise MemoryError(f"a plan needs more than the {len(self._memory) >> 20} MB that its memory may have")
            if start < self._end:
                self._holes.pop()
            self._end = start + size
        buffer = self._live[start] = Buffer(start, size_bytes, self._memory[start : start + size_bytes])
        return buffer

    def give_back(self, buffer: Buffer) -> None:
        """Calls that are planned from now on may overwrite it. Raises ValueError if it is not in use."""
        if self._live.get(buffer.offset) is not buffer:
            raise ValueError("the buffer was given back before, or is not of this arena")
        del self._live[buffer.offset]
        start, end = buffer.offset, buffer.offset + _rounded(buffer.size_bytes)
        for hole in [hole for hole in self._holes if hole[0] == end or sum(hole) == start]:
            self._holes.remove(hole)
            start, end = min(start, hole[0]), max(end, sum(hole))
        insort(self._holes, (start, end - start))


def _rounded(size_bytes: int) -> int:
    """To whole cache lines, at least one: no two buffers have one offset."""
    return max(-(-size_bytes // ALIGNMENT_BYTES), 1) * ALIGNMENT_BYTES


def _most_bytes() -> int:
    """The machine's memory, or a quarter of the addresses that the process may have if that is less."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
    return physical if addresses == resource.RLIM_INFINITY else min(physical, addresses // 4)


def _reserve(size_bytes: int) -> NDArray[np.uint8]:
    """Addresses of `size_bytes` or, where the system has not as many, of half, a quarter, ..., in huge pages."""
    while True:
        try:
            mapping = mmap.mmap(
                -1, size_bytes + HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
            )
            break
        except OSError:
            if size_bytes <= HUGE_PAGE_BYTES:
                raise MemoryError("the system has no addresses left for a plan's memory") from None
            size_bytes //= 2
    # A kernel built without huge pages refuses; small ones do as well.
    with suppress(OSError):
        mapping.madvise(mmap.MADV_HUGEPAGE)
    start = -np.frombuffer(mapping, dtype=np.uint8, count=1).ctypes.data % HUGE_PAGE_BYTES
    return np.frombuffer(mapping, dtype=np.uint8, count=size_bytes, offset=start)
