"""The lease book of asynchronous training: what is leased are whole steps, many at a time, and each is applied alone.

Steps are leased in stretches, up to the next one after which something else is to be done: an epoch ends, or a trigger
fires. A stretch is over when every server has applied every step of it, in whatever order; so epochs, checkpoints,
validations and the end of the job are at points where the servers have applied exactly the steps up to one. Committed
steps are counted in the order in which they were applied: the version of the parameters is how many there are.

Bounded staleness: a step is leased only if, whatever arrives first, no gradient under way can become older than the
bound. So nothing computed is refused, but for what comes after its lease has expired (ArrivalSlice.too_old).
"""

import math
from collections.abc import Sequence
from typing import Any

from compute.sync_mode import SyncMode
from executor.lease_actions import Action, GiveLease, RevokeLease
from executor.lease_book import LeaseBook, Phase
from executor.leases import Lease
from executor.reduction_tree import Node, root_level
from executor.training_record import StepResult
from proto.exchange_pb2 import Grant


class ArrivalBook(LeaseBook):
    """See the module; constructed and used like LeaseBook."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._staleness = SyncMode.parse(self.spec.sync).staleness
        self._first = self.step  # of the stretch
        self._applied: dict[int, set[int]] = {}  # step of the stretch -> servers that have, until all have
        self._results: dict[int, StepResult] = {}
        self._pushed: dict[int, float] = {}  # step -> when every server should have applied it
        self._based: dict[str, int] = {}  # worker -> steps committed when it got its lease
        self._wants_checkpoint = self._wants_validation = self._wants_end = False

    def _begin_step(self, now: float) -> list[Action]:
        self.phase = Phase.TRAINING
        self.step = self._first = last = self.committed + 1
        while not self._record.pauses(last):
            last += 1
        for memory in (self._applied, self._results, self._pushed):
            memory.clear()
        self._wants_checkpoint = self._wants_validation = self._wants_end = False
        self._prepared.clear()
        self._pushed_deadline = math.inf
        self._leases.open(last - self._first + 1, self.plan.leaves(self._first), single=True)
        return self._assign(now)

    # --- leases -----------------------------------------------------------------------------------------------------

    def _limit(self) -> int | None:
        if self._staleness is None:
            return None
        based = (
            self._based[worker]
            for worker, lease in self._leases.holders
            if self._first + lease.first not in self._prepared
        )  # fmt: skip
        oldest = min(based, default=self.committed)
        leased = self._first - 1 + self._leases.fresh
        return max(self._staleness + 1 + min(oldest, self.committed) - leased, 0)

    def _assign(self, now: float) -> list[Action]:
        actions = super()._assign(now)
        for action in actions:
            if isinstance(action, GiveLease):
                self._based[action.worker] = self.committed
        return actions

    def _fill_grant(self, grant: Grant, lease: Lease) -> None:
        step = self._first + lease.first
        leaves = self.plan.leaves(step)
        grant.step = step
        grant.level, grant.index = Node(root_level(leaves), 0)
        grant.first, grant.last = 0, leaves
        grant.version = self.committed

    # --- what may happen --------------------------------------------------------------------------------------------

    def node_pushed(
        self, worker: str, step: int, node: Node, now: float, computed_s: float = 0.0
    ) -> list[Action]:
        """The book's own server has the gradient of a step."""
        if not self._leases.knows(worker):
            return []
        current = self.phase is Phase.TRAINING and self._first <= step < self._first + self._leases.fresh
        late = self._leases.delivered(worker, Node(0, step - self._first), now, current, computed_s)
        if current and step not in self._prepared:
            self._pushed[step] = now + self._leases.lease_s(self.plan.leaves(step))
            self._pushed_deadline = min(self._pushed.values())
        return [RevokeLease(name, step) for name in late]

    def server_prepared(
        self, server: int, step: int, now: float, loss: float = 0.0, samples: int = 0, digest: int = 0
    ) -> list[Action]:
        """A server has applied a step."""
        current = self._first <= step < self._first + self._leases.fresh
        if self.phase is not Phase.TRAINING or not current or step in self._prepared:
            return []
        self._applied.setdefault(step, set()).add(server)
        if server == 0:
            self._results[step] = StepResult(loss, samples, digest)
        if len(self._applied[step]) < self._servers or step not in self._results:
            return []
        self._pushed.pop(step, None)
        self._pushed_deadline = min(self._pushed.values(), default=math.inf)
        self._prepared.add(step)
        actions = self._count(now, self._results[step])
        if self.phase is not Phase.TRAINING:
            return actions
        self._look_at_triggers()
        if self._stretch_over:
            return [*actions, *self._committed_now(now, self._wants_checkpoint)]
        return [*actions, *self._assign(now)]

    def server_restored(self, server: int, version: int, ahead: Sequence[int], now: float) -> list[Action]:
        """A server is connected again and says which steps it has applied."""
        actions: list[Action] = []
        for step in [*range(self._first, version + 1), *ahead]:
            actions += self.server_prepared(server, step, now)
        return actions

    def _push_lost(self, now: float) -> None:
        for step, deadline in list(self._pushed.items()):
            if now >= deadline:
                del self._pushed[step]
                self._leases.reopen(step - self._first)
        self._pushed_deadline = min(self._pushed.values(), default=math.inf)

    # --- decisions --------------------------------------------------------------------------------------------------

    def _look_at_triggers(self) -> None:
        """What a loss makes fire in the middle of a stretch ends it with what is under way."""
        record = self._record
        self._wants_checkpoint |= record.wants_checkpoint
        self._wants_validation |= record.wants_validation
        self._wants_end |= record.ends
        if self._wants_checkpoint or self._wants_validation or self._wants_end or self._stopping is not None:
            self._leases.truncate()

    def _stop_soon(self, now: float) -> list[Action]:
        self._leases.truncate()
        return self._committed_now(now, False) if self._stretch_over else []

    @property
    def _stretch_over(self) -> bool:
        return self._leases.complete and self._leases.done == {step - self._first for step in self._prepared}

    @property
    def _validation_due(self) -> bool:
        return self._wants_validation or self._record.wants_validation

    @property
    def _end_due(self) -> bool:
        return self._wants_end or self._record.ends
