"""Who holds which part of the present phase, and until when; a pure state machine, part of the lease book.

The work of a phase are leaves 0 to n - 1; what is leased is a node over them, as in the reduction tree. Where nodes of
one leaf only are allowed, leaves are any pieces of work that have nothing to do with each other.

- Each waiting worker gets as large a node as lets all workers be done at the same time (shares.py), by their own speed.
- When nothing is free, a waiting worker gets a copy of what another holds, if that is overdue or the copy should be
  there first. Whichever arrives first counts.
- A lease that expires, or whose worker has left, is free again.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from executor.free_work import FreeWork
from executor.reduction_tree import Node
from executor.shares import SIMILAR, shares

MIN_LEASE_S = 2.0
LEASE_FACTOR = 8.0  # a lease lasts this many times what its node should take
OVERDUE_FACTOR = 2.0  # a copy is given to another worker after this many times what the node should take,
MIN_OVERDUE_S = 0.05  # but not for so little
SOONER = 1.5  # or at once, if what remains would take another worker this many times less
RECHECK_S = 0.02
REMEMBERED = 9  # leases of a worker that its speed is the median of
FORGET = 0.9  # a worker that had nothing in a phase is thought faster by this, so that its recovery is found out


@dataclass
class Lease:
    """A node in a worker's hands.

    Attributes:
        phase: number of the phase that it belongs to.
        node: what is to be computed.
        first, last: its leaves.
        size: in micro-batches.
        granted, deadline: when it began and when it expires.
        expected_s: what it should take.
    """

    phase: int
    node: Node
    first: int
    last: int
    size: float
    granted: float
    deadline: float
    expected_s: float

    def remaining_s(self, now: float) -> float:
        """What it will still take: once it is late, as long again as it is late by now."""
        return abs(self.granted + self.expected_s - now)


@dataclass
class _Worker:
    guess_s: float
    lease: Lease | None = None
    overdue: bool = False
    durations: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    computed: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    place: int = -1  # first leaf of its last node
    last_phase: int = 0
    passed_over: int = 0


class Leases:
    """Workers are known by their task ids.

    Attributes:
        done: leaves of which the result is here.
    """

    def __init__(self) -> None:
        self.done: set[int] = set()
        self._phase = 0
        self._leaf_size = 1.0
        self._workers: dict[str, _Worker] = {}
        self._waiting: dict[str, None] = {}  # an ordered set
        self._free = FreeWork()
        self._leaf_s: deque[float] = deque(maxlen=64)
        self._computed_s: deque[float] = deque(maxlen=64)
        self._guesses_s: deque[float] = deque(maxlen=64)  # from warming up, which has no pushes
        self._recheck = math.inf

    # --- what may be asked ------------------------------------------------------------------------------------------

    @property
    def connected(self) -> int:
        """Workers that are connected."""
        return len(self._workers)

    @property
    def held(self) -> bool:
        """Whether any of this phase's work is in a worker's hands."""
        return any(True for _ in self._current())

    @property
    def holders(self) -> list[tuple[str, Lease]]:
        """Workers that hold any of this phase's work, and what."""
        return list(self._current())

    @property
    def fresh(self) -> int:
        """Of single leaves, how many have ever been leased in this phase."""
        return self._free.fresh

    @property
    def complete(self) -> bool:
        """Whether every leaf is done."""
        return len(self.done) == self._free.count

    def knows(self, worker: str) -> bool:
        """Whether the worker is connected."""
        return worker in self._workers

    def next_deadline(self) -> float:
        """When the first lease expires, or another look at who waits is due; else infinite."""
        expiry = min((w.lease.deadline for w in self._workers.values() if w.lease), default=math.inf)
        return min(expiry, self._recheck)

    def lease_s(self, size: float, worker: str = "") -> float:
        """Seconds that a lease of so many micro-batches lasts."""
        slowest = max(self._typical_s(), self._own_s(worker))
        return max(MIN_LEASE_S, LEASE_FACTOR * slowest * size)

    # --- what may happen --------------------------------------------------------------------------------------------

    def open(self, leaves: int, leaf_size: float = 1.0, single: bool = False) -> None:
        """A new phase begins; what was leased before is over, though workers may still be at it.

        Args:
            leaves: how many.
            leaf_size: of a leaf, in micro-batches.
            single: whether only nodes of one leaf may be leased.
        """
        for worker in self._workers.values():
            idle = worker.lease is None and not worker.overdue and worker.last_phase != self._phase
            worker.passed_over = worker.passed_over + 1 if idle and self._phase else 0
        self._phase += 1
        self._leaf_size = leaf_size
        self.done = set()
        self._free = FreeWork(leaves, single)

    def truncate(self) -> None:
        """The phase, of single leaves, ends with what has been leased by now."""
        self._free.truncate()

    def joined(self, worker: str, micro_batch_s: float) -> None:
        """A worker has connected; a micro-batch took it so long when it warmed up."""
        self._workers[worker] = _Worker(micro_batch_s)
        if micro_batch_s > 0:
            self._guesses_s.append(micro_batch_s)

    def left(self, worker: str) -> bool:
        """A worker's connection is gone; True if that may matter to others."""
        gone = self._workers.pop(worker, None)
        self._waiting.pop(worker, None)
        if gone is None:
            return False
        if gone.lease is not None:
            self._release(gone.lease)
        return True

    def wanted(self, worker: str, now: float, done: int = 0, computed_s: float = 0.0) -> None:
        """A connected worker is ready for its next lease; what it held it has given up after `done` leaves of it.

        Args:
            computed_s: how long it has computed these; 0: it does not say.
        """
        entry = self._workers[worker]
        lease, entry.lease = entry.lease, None
        if lease is not None:
            if done:
                taken_s, size = now - lease.granted, done * self._leaf_size
                self._took(entry, taken_s / size, min(computed_s or taken_s, taken_s) / size)
            self._release(lease)
        entry.overdue = False
        self._waiting[worker] = None

    def renewed(self, worker: str, now: float) -> None:
        """A worker is still at it."""
        entry = self._workers.get(worker)
        if entry and entry.lease:
            entry.lease.deadline = now + self.lease_s(entry.lease.size, worker)

    def delivered(
        self, worker: str, node: Node, now: float, current: bool = True, computed_s: float = 0.0
    ) -> list[str]:
        """A node is here, from a worker that may or may not hold a lease of it.

        Args:
            current: whether it is of this phase; from an earlier one it still tells how fast the worker is.
            computed_s: how long the worker has computed; 0: it does not say.

        Returns:
            Workers of whose leases nothing is needed any more.
        """
        entry = self._workers[worker]
        lease = entry.lease
        if lease is not None and lease.node == node and (lease.phase == self._phase) == current:
            entry.lease = None
            taken_s = now - lease.granted
            self._took(entry, taken_s / lease.size, min(computed_s or taken_s, taken_s) / lease.size)
        if not current:
            return []
        first, last = node.leaves(self._free.count)
        before = len(self.done)
        self.done.update(range(first, last))
        self._free.remove(first, last)
        if len(self.done) == before:
            return []
        late = ((name, lease) for name, lease in self._current() if lease.first < last and first < lease.last)
        return [name for name, lease in late if self.done.issuperset(range(lease.first, lease.last))]

    def expire(self, now: float) -> bool:
        """Ends leases whose time has passed; True if anybody should be given work."""
        due = now >= self._recheck
        for entry in self._workers.values():
            if entry.lease and now >= entry.lease.deadline:
                lease, entry.lease = entry.lease, None
                entry.overdue = True
                self._release(lease)
                due = True
        return due

    def reopen(self, leaf: int | None = None) -> None:
        """What was done, or one leaf of it, must be done again."""
        again = sorted(self.done) if leaf is None else [leaf]
        self.done.difference_update(again)
        self._give_back(again)

    def assign(
        self, now: float, limit: int | None = None, claimed: Mapping[str, Node] | None = None
    ) -> list[tuple[str, Lease]]:
        """Gives work to waiting workers.

        Args:
            limit: at most so many single leaves that were never leased before; None: any number.
            claimed: nodes that workers have computed already, by worker: each is given its own, if it is free.
        """
        given: list[tuple[str, Lease]] = []
        self._recheck = math.inf
        for worker in list(self._waiting):
            node = None
            fresh = self._free.fresh < self._free.count and (limit is None or limit > 0)
            claim = (claimed or {}).get(worker)
            if claim is not None and self._all_free(claim):
                node = claim
                self._free.remove(*claim.leaves(self._free.count))
            elif self._free.returned or fresh:
                share = self._share(worker, now)
                if share and fresh and not self._free.returned and limit is not None:
                    limit -= 1
                node = self._free.take(share, self._workers[worker].place) if share else None
            else:
                node = self._copy(worker, now)
            if node is not None:
                del self._waiting[worker]
                given.append((worker, self._lease(worker, node, now)))
        if self._waiting and len(self.done) < self._free.count:
            leases = [lease for _, lease in self._current()]
            self._recheck = min((due for lease in leases if (due := self._due(lease)) > now), default=math.inf)
            if self._free.leaves and limit is None:  # all that wait would be slower than those who are at work
                soon = 0.25 * max((lease.remaining_s(now) for lease in leases), default=0.0)
                self._recheck = min(self._recheck, now + max(RECHECK_S, soon))
        return given

    # --- speeds -----------------------------------------------------------------------------------------------------

    def _typical_s(self) -> float:
        known = self._leaf_s or self._guesses_s
        return median(known) if known else 0.0

    def _took(self, entry: _Worker, micro_batch_s: float, computed_s: float) -> None:
        entry.durations.append(max(micro_batch_s, 1e-6))
        entry.computed.append(max(computed_s, 1e-6))
        self._leaf_s.append(entry.durations[-1])
        self._computed_s.append(entry.computed[-1])

    def _own_s(self, worker: str) -> float:
        entry = self._workers.get(worker)
        if entry is None:
            return 0.0
        return median(entry.durations) if entry.durations else entry.guess_s

    def _leaf_time_s(self, worker: str) -> float:
        """Seconds that a leaf will take a worker, as far as shares go.

        Only computing counts: a push and its way through the network take as long whatever the share, and vary from
        worker to worker and from step to step where the network is what all wait for.
        """
        entry = self._workers[worker]
        known = self._computed_s or self._guesses_s
        typical = median(known) if known else 1.0
        own = (median(entry.computed) if entry.computed else entry.guess_s) or typical
        own *= FORGET**entry.passed_over
        similar = typical / SIMILAR <= own <= typical * SIMILAR or (self._workers[worker].passed_over and own < typical)
        return (typical if similar else own) * self._leaf_size

    # --- whose turn it is -------------------------------------------------------------------------------------------

    def _current(self) -> Iterable[tuple[str, Lease]]:
        for name, worker in self._workers.items():
            if worker.lease is not None and worker.lease.phase == self._phase:
                yield name, worker.lease

    def _holders(self, leaf: int) -> int:
        return sum(lease.first <= leaf < lease.last for _, lease in self._current())

    def _share(self, worker: str, now: float) -> int:
        """How many leaves a waiting worker should have next."""
        if self._free.single and self._free.leaves > 2 * len(self._workers):
            return 1
        names, available = [worker], [now]
        for name, entry in self._workers.items():
            if name != worker and (name in self._waiting or entry.lease is not None):
                names.append(name)
                available.append(now + (entry.lease.remaining_s(now) if entry.lease else 0.0))
        leaf_s = np.array([self._leaf_time_s(name) for name in names])
        return int(shares(self._free.leaves, np.array(available), leaf_s)[0])

    def _lease(self, worker: str, node: Node, now: float) -> Lease:
        entry = self._workers[worker]
        first, last = node.leaves(self._free.count)
        size = self._leaf_size * (last - first)
        expected_s = (self._own_s(worker) or self._typical_s()) * size
        deadline = now + self.lease_s(size, worker)
        entry.lease = Lease(self._phase, node, first, last, size, now, deadline, expected_s)
        entry.place, entry.last_phase = first, self._phase
        return entry.lease

    # --- copies -----------------------------------------------------------------------------------------------------

    def _due(self, lease: Lease) -> float:
        """When a lease is so late that a copy is worth it whoever makes it."""
        expected_s = max(lease.expected_s, self._typical_s() * lease.size)
        return lease.granted + max(OVERDUE_FACTOR * expected_s, MIN_OVERDUE_S)

    def _copy(self, worker: str, now: float) -> Node | None:
        """The part of another's lease that a waiting worker should compute as well."""
        leaf_s = self._leaf_time_s(worker)
        for lease in sorted((lease for _, lease in self._current()), key=lambda lease: -lease.remaining_s(now)):
            open_leaves = [
                leaf
                for leaf in range(lease.first, lease.last)
                if leaf not in self.done and self._holders(leaf) == 1
            ]  # fmt: skip
            if not open_leaves:
                continue
            part = -(-len(open_leaves) // max(len(self._waiting), 1))
            copy_s = max(leaf_s, self._typical_s() * self._leaf_size) * part
            remaining_s = lease.remaining_s(now)
            if now < self._due(lease) and remaining_s < max(SOONER * copy_s, MIN_OVERDUE_S):
                continue
            level = 0
            while not self._free.single and 2 << level <= part:
                level += 1
            node = Node(level, open_leaves[0] >> level)
            if not set(range(*node.leaves(self._free.count))) <= set(open_leaves):
                node = Node(0, open_leaves[0])
            return node
        return None

    def _all_free(self, node: Node) -> bool:
        first, last = node.leaves(self._free.count)
        return not self._free.single and first < last and all(self._free.holds(leaf) for leaf in range(first, last))

    def _release(self, lease: Lease) -> None:
        if lease.phase == self._phase:
            self._give_back(leaf for leaf in range(lease.first, lease.last) if leaf not in self.done)

    def _give_back(self, leaves: Iterable[int]) -> None:
        self._free.add(leaf for leaf in leaves if not self._holders(leaf) and not self._free.holds(leaf))
