"""Records of one size each, somewhere in a file, read by number: only what is asked for is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compute.data.files import REMEDY, File
from compute.data.source import Indices
from compute.errors import InputError


@dataclass(frozen=True)
class Records:
    """A run of records of `size` bytes, the first at `begin`. Positioned reads, so any number of threads.

    Positioned reads rather than a memory map: a file that is cut while it is in use is then an error that names it, not
    the end of the process by SIGBUS.
    """

    file: File
    begin: int
    size: int
    count: int

    def read(self, indices: Indices) -> NDArray[np.uint8]:
        """The records' bytes, uint8 (len(indices), size).

        Raises:
            InputError: the file ends within a record, which is named.
        """
        # Neighbours are read at once; what comes out keeps the asked-for order.
        ascending = np.argsort(indices, kind="stable")
        wanted = indices[ascending]
        breaks = np.flatnonzero(np.diff(wanted) != 1) + 1
        firsts = np.concatenate([wanted[:1], wanted[breaks]])
        runs = np.diff(np.concatenate([[0], breaks, [len(wanted)]]))
        if not len(wanted):
            return np.empty((0, self.size), dtype=np.uint8)
        offsets, sizes = self.begin + firsts * self.size, runs * self.size
        out = np.empty((len(indices), self.size), dtype=np.uint8)
        done = 0
        pieces = self.file.read_ranges(offsets.tolist(), sizes.tolist())
        for first, run, piece in zip(firsts.tolist(), runs.tolist(), pieces, strict=True):
            if len(piece) < run * self.size:
                broken = first + len(piece) // self.size
                raise InputError(f"{self.file.name} is cut short: it ends within record {broken}; {REMEDY}")
            records = np.frombuffer(piece, dtype=np.uint8).reshape(run, self.size)
            out[ascending[done : done + run]] = records
            done += run
        return out
