"""Who holds which block of the present phase, and until when; a pure state machine, part of the lease book."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

MIN_LEASE_S = 2.0
LEASE_FACTOR = 8.0  # a lease lasts this many times what its block should take


@dataclass
class Lease:
    """A block in a worker's hands; `leaves` is its size in micro-batches."""

    block: int
    leaves: float
    granted: float
    deadline: float


@dataclass
class _Worker:
    lease: Lease | None = None
    overdue: bool = False


class Leases:
    """Workers are known by their task ids, blocks by their numbers in the phase.

    Attributes:
        done: blocks of which the result is here.
    """

    def __init__(self) -> None:
        self.done: set[int] = set()
        self._workers: dict[str, _Worker] = {}
        self._waiting: dict[str, None] = {}  # an ordered set
        self._sizes: Sequence[float] = ()
        self._free: deque[int] = deque()
        self._leaf_s: deque[float] = deque(maxlen=64)

    # --- what may be asked ------------------------------------------------------------------------------------------

    @property
    def connected(self) -> int:
        """Workers that are connected."""
        return len(self._workers)

    @property
    def active(self) -> int:
        """Workers that are connected and have not let a lease expire since they last spoke."""
        return sum(not worker.overdue for worker in self._workers.values())

    @property
    def held(self) -> bool:
        """Whether any block is in a worker's hands."""
        return any(worker.lease for worker in self._workers.values())

    @property
    def complete(self) -> bool:
        """Whether every block is done."""
        return len(self.done) == len(self._sizes)

    def of(self, worker: str) -> Lease | None:
        """What a worker holds."""
        entry = self._workers.get(worker)
        return entry.lease if entry else None

    def knows(self, worker: str) -> bool:
        """Whether the worker is connected."""
        return worker in self._workers

    def next_deadline(self) -> float:
        """When the first lease expires; infinite without leases."""
        return min((w.lease.deadline for w in self._workers.values() if w.lease), default=math.inf)

    def lease_s(self, leaves: float) -> float:
        """Seconds that a lease of so many micro-batches lasts."""
        expected = median(self._leaf_s) * leaves if self._leaf_s else 0.0
        return max(MIN_LEASE_S, LEASE_FACTOR * expected)

    # --- what may happen --------------------------------------------------------------------------------------------

    def open(self, sizes: Sequence[float]) -> None:
        """A new phase begins, with blocks of these sizes in micro-batches; what was leased before is over."""
        self._sizes = sizes
        self._free = deque(range(len(sizes)))
        self.done = set()
        for worker in self._workers.values():
            worker.lease = None

    def joined(self, worker: str, micro_batch_s: float) -> None:
        """A worker has connected."""
        self._workers[worker] = _Worker()
        if micro_batch_s > 0:
            self._leaf_s.append(micro_batch_s)

    def left(self, worker: str) -> bool:
        """A worker's connection is gone; True if it held something."""
        gone = self._workers.pop(worker, None)
        self._waiting.pop(worker, None)
        if gone is None or gone.lease is None:
            return False
        self._release(gone.lease)
        return True

    def wanted(self, worker: str) -> None:
        """A connected worker is ready for its next lease; what it held it has given up."""
        entry = self._workers[worker]
        if entry.lease is not None:
            self._release(entry.lease)
            entry.lease = None
        entry.overdue = False
        self._waiting[worker] = None

    def renewed(self, worker: str, now: float) -> None:
        """A worker is still at it."""
        lease = self.of(worker)
        if lease:
            lease.deadline = now + self.lease_s(lease.leaves)

    def delivered(self, worker: str, now: float) -> None:
        """A worker has delivered what it held."""
        entry = self._workers[worker]
        if entry.lease is not None:
            self._leaf_s.append(max((now - entry.lease.granted) / entry.lease.leaves, 1e-6))
            self.done.add(entry.lease.block)
            entry.lease = None

    def scored(self, worker: str, block: int) -> None:
        """A worker has scored a block of the validation set, leased to it or not."""
        self.done.add(block)
        entry = self._workers[worker]
        if entry.lease and entry.lease.block == block:
            entry.lease = None

    def expire(self, now: float) -> bool:
        """Ends leases whose time has passed; True if there were any."""
        expired = False
        for entry in self._workers.values():
            if entry.lease and now >= entry.lease.deadline:
                self._release(entry.lease)
                entry.lease = None
                entry.overdue = True
                expired = True
        return expired

    def reopen(self) -> None:
        """What was done must be done again."""
        self._free.extend(sorted(self.done))
        self.done.clear()

    def assign(self, now: float, claimed: Mapping[str, int]) -> list[tuple[str, Lease]]:
        """Gives free blocks to waiting workers.

        Args:
            claimed: blocks whose results workers have already, by worker: each is given its own, and that of a worker
                that does not wait only if there is no other.
        """
        given = []
        while self._free and self._waiting:
            worker = next(iter(self._waiting))
            del self._waiting[worker]
            unclaimed = (block for block in self._free if block not in claimed.values())
            block = claimed.get(worker, -1)
            if block not in self._free:
                block = next(unclaimed, self._free[0])
            self._free.remove(block)
            size = self._sizes[block]
            lease = Lease(block, size, now, now + self.lease_s(size))
            self._workers[worker].lease = lease
            given.append((worker, lease))
        return given

    def _release(self, lease: Lease) -> None:
        if lease.block not in self.done and lease.block not in self._free:
            self._free.append(lease.block)  # last in the row: one block must not keep another from its turn
