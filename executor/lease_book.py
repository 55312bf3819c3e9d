"""The lease book: which block of which step is leased to whom, and which steps are committed.

A pure state machine (no I/O, no clock of its own): every method takes what happened and when, on any monotonic clock,
and returns what is to be done (lease_actions.py). The server of index 0 carries it out (book_keeper.py).

A job alternates between two phases. In TRAINING the blocks of one step are leased until every server has reported its
tree complete; the step is then committed. In VALIDATING the blocks of the validation set are leased until all have
been scored. A block whose lease expires, or whose worker leaves, is leased again; that both may deliver it does no
harm, since the results are identical and the second is dropped.
"""

import math
from collections.abc import Collection, Sequence
from enum import Enum, auto

from compute import TrainingSpec
from executor.lease_actions import Action, CommitStep, Fail, Finish, GiveLease, Paused, Report, RevokeLease, TellRates
from executor.leases import MIN_LEASE_S, Lease, Leases
from executor.reduction_tree import Node
from executor.resumable import Resumable
from executor.step_plan import StepPlan
from executor.training_record import StepResult, TrainingRecord
from executor.validation_round import ValidationRound
from proto import control_pb2 as control
from proto.exchange_pb2 import Grant

__all__ = [
    "MIN_LEASE_S", "Action", "CommitStep", "Fail", "Finish", "GiveLease", "LeaseBook", "Paused", "Phase", "Report",
    "Resumable", "RevokeLease", "TellRates",
]  # fmt: skip

SCORE_COST = 0.4  # scoring a sample costs about this share of training on it: no backward pass


class Phase(Enum):
    """What the book is about."""

    TRAINING = auto()
    VALIDATING = auto()
    PAUSED = auto()  # between two steps, for good: another attempt goes on
    FINISHING = auto()  # waiting for checkpoints to be written
    OVER = auto()


class LeaseBook:
    """See the module. Workers are known by their task ids, servers by their indices."""

    def __init__(
        self,
        spec: TrainingSpec,
        plan: StepPlan,
        servers: int,
        attempt: int,
        epoch_digest: int,
        checkpoints: bool,
        start: Resumable,
        written: Collection[int] | None = None,
    ) -> None:
        """
        Args:
            spec: the job.
            plan: cut of its data into steps.
            servers: how many there are.
            attempt: of the membership, for the reports.
            epoch_digest: what the digest of a complete epoch must be.
            checkpoints: whether checkpoints have a place to go to.
            start: where to begin.
            written: steps of checkpoints that exist; by default that of `start`.
        """
        self.spec = spec
        self.plan = plan
        self.phase = Phase.TRAINING
        self.step = start.step + 1
        self._servers = servers
        self._checkpoints = checkpoints
        self._record = TrainingRecord(spec, plan, attempt, epoch_digest, start)
        self._leases = Leases()
        self._prepared: set[int] = set()  # servers; of an asynchronous job: steps
        self._result: StepResult | None = None
        self._pushed_deadline = math.inf
        self._validation: ValidationRound | None = None
        self._last_commit: float | None = None
        self._unwritten: set[int] = set()
        self._written: set[int] = set(written) if written is not None else {start.step} if start.step else set()
        self._claims: dict[str, tuple[int, Node]] = {}  # gradients that workers have already
        self._stopping: control.Finished.Reason | None = None
        self._begun = False
        self._pausing = False
        self._granted = False  # any lease of the running step

    # --- what may be asked ------------------------------------------------------------------------------------------

    @property
    def committed(self) -> int:
        """The last step that is."""
        return self._record.resumable.step

    @property
    def resumable(self) -> Resumable:
        """What a checkpoint of the last committed step must hold."""
        return self._record.resumable

    @property
    def workers(self) -> int:
        """How many are connected."""
        return self._leases.connected

    def next_deadline(self) -> float | None:
        """When tick() has something to do, if nothing happens before."""
        pushed = self._pushed_deadline if self.phase is Phase.TRAINING else math.inf
        deadline = min(self._leases.next_deadline(), pushed)
        return deadline if math.isfinite(deadline) else None

    # --- what may happen --------------------------------------------------------------------------------------------

    def begin(self, now: float, validated: bool = False) -> list[Action]:
        """Every server holds its slice at the version of the start, or the next one.

        Args:
            validated: the validation that follows the commit of the start is done, or there is none.
        """
        self._begun = True
        self._last_commit = now
        if self.committed or self.spec.inference:  # resumed: what followed that commit may not have happened yet
            actions = self._go_on(now) if validated else self._after_commit(now)
        else:
            actions = self._begin_step(now)
        self._granted = self._granted or validated  # servers may have something of the step from the attempt before
        return actions

    def worker_joined(
        self, worker: str, micro_batch_s: float, now: float, claim: tuple[int, Node] | None = None
    ) -> list[Action]:
        """A worker has connected; it may have been here before.

        Args:
            claim: step and node of a gradient that it has, or is computing: it gets that block, if it can be had.
        """
        actions = self.worker_left(worker, now)
        self._leases.joined(worker, micro_batch_s)
        if claim is not None:
            self._claims[worker] = claim
        return actions

    def worker_left(self, worker: str, now: float) -> list[Action]:
        """A worker's connection is gone: what it held is free again at once."""
        self._claims.pop(worker, None)
        return self._assign(now) if self._leases.left(worker) else []

    def lease_wanted(self, worker: str, now: float, done: int = 0, computed_s: float = 0.0) -> list[Action]:
        """A worker is ready for its next lease; of the one that was revoked it had done so many micro-batches.

        Args:
            computed_s: for so long; 0: it does not say.
        """
        if not self._leases.knows(worker):
            return []
        self._leases.wanted(worker, now, done, computed_s)
        return self._assign(now)

    def renewed(self, worker: str, now: float) -> list[Action]:
        """A worker is still at it."""
        self._leases.renewed(worker, now)
        return []

    def node_pushed(
        self, worker: str, step: int, node: Node, now: float, computed_s: float = 0.0
    ) -> list[Action]:
        """The book's own server has a node's gradient, now or from before; the others may not have it yet.

        Args:
            computed_s: that the worker has computed for it; 0: it does not say.
        """
        if not self._leases.knows(worker):
            return []
        current = self.phase is Phase.TRAINING and step == self.step
        complete = self._leases.complete
        late = self._leases.delivered(worker, node, now, current, computed_s)
        if current and not complete and self._leases.complete:
            # From here on it only matters whether the pushes reach the other servers. If they do not, the tick
            # finds the step still open and leases it again.
            self._pushed_deadline = now + self._leases.lease_s(1)
        return [RevokeLease(name, step) for name in late]

    def server_prepared(
        self, server: int, step: int, now: float, loss: float = 0.0, samples: int = 0, digest: int = 0
    ) -> list[Action]:
        """A server has completed the step's tree; the book's own (0) also says what it counted."""
        if self.phase is not Phase.TRAINING or step != self.step:
            return []
        self._prepared.add(server)
        if server == 0:
            self._result = StepResult(loss, samples, digest)
        if len(self._prepared) < self._servers or self._result is None:
            return []
        return self._commit(now, self._result)

    def scored(
        self, worker: str, step: int, block: int, sums: Sequence[Sequence[float]], samples: int, now: float
    ) -> list[Action]:
        """A worker has scored a block of the validation set (sums: per metric); it is ready for the next."""
        if not self._leases.knows(worker):
            return []
        if self._validation is None or step != self.committed:
            return self.lease_wanted(worker, now)
        self._validation.scored(block, sums, samples)
        late = self._leases.delivered(worker, Node(0, block), now)
        revoked = [RevokeLease(name, step) for name in late]
        if not self._validation.complete:
            return [*revoked, *self.lease_wanted(worker, now)]
        self._leases.wanted(worker, now)
        return [*revoked, *self._validated(self._validation, now)]

    def checkpoint_written(self, step: int, path: str, now: float) -> list[Action]:
        """A checkpoint is complete."""
        self._unwritten.discard(step)
        self._written.add(step)
        report = Report(control.Progress(checkpoints=[control.CheckpointReport(step=step, path=path)]))
        return [report, *self._finish_if_written(), *self._pause_if_written()]

    def pause_wanted(self, now: float) -> list[Action]:
        """The driver wants the servers to stop between two steps."""
        self._pausing = True
        # A lease that has expired may be pushed yet, so a step of which anything was ever leased has to end.
        if self._begun and self.phase is Phase.TRAINING and not self._granted:
            self.phase = Phase.PAUSED
        return self._pause_if_written()

    def _pause_if_written(self) -> list[Action]:
        return [Paused()] if self.phase is Phase.PAUSED and not self._unwritten else []

    def stop_wanted(self, checkpoint: bool, now: float) -> list[Action]:
        """The driver wants the job to end, with a checkpoint or at once."""
        if self.phase in (Phase.FINISHING, Phase.OVER):
            return []
        self._stopping = control.Finished.STOPPED
        self._checkpoints = self._checkpoints and checkpoint
        idle = not self._prepared and not self._leases.done and not self._leases.held
        if not self._begun or self.phase in (Phase.VALIDATING, Phase.PAUSED) or idle:
            return self._end(control.Finished.STOPPED)
        return self._stop_soon(now)

    def _stop_soon(self, now: float) -> list[Action]:
        return []  # the running step ends first

    def server_restored(self, server: int, version: int, ahead: Sequence[int], now: float) -> list[Action]:
        """A server is connected again and says what it has; `ahead` are steps beyond `version`, out of turn."""
        return self.server_prepared(server, version, now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed: overdue leases are free again."""
        freed = self._leases.expire(now)
        if self.phase is Phase.TRAINING and now >= self._pushed_deadline:
            self._push_lost(now)
            freed = True
        return self._assign(now) if freed else []

    def _push_lost(self, now: float) -> None:
        """Everything was pushed to this server, and yet another one's tree is incomplete."""
        self._leases.reopen()
        self._pushed_deadline = math.inf

    # --- leases -----------------------------------------------------------------------------------------------------

    def _begin_step(self, now: float) -> list[Action]:
        if self._pausing:
            self.phase = Phase.PAUSED
            return self._pause_if_written()
        self.phase = Phase.TRAINING
        self.step = self.committed + 1
        self._leases.open(self.plan.leaves(self.step))
        self._prepared.clear()
        self._granted = False
        self._result = None
        self._pushed_deadline = math.inf
        rates = self._record.told_rates(self.step)
        told = [] if rates is None else [TellRates(self.step, rates)]
        return [*told, *self._assign(now)]

    def _assign(self, now: float) -> list[Action]:
        if not self._begun or self.phase not in (Phase.TRAINING, Phase.VALIDATING):
            return []
        limit = self._limit() if self.phase is Phase.TRAINING else None
        given = self._leases.assign(now, limit, self._claimed())
        self._granted = self._granted or bool(given)
        return [GiveLease(worker, self._grant(lease)) for worker, lease in given]

    def _claimed(self) -> dict[str, Node]:
        """Nodes whose gradients workers have, by worker."""
        if self.phase is not Phase.TRAINING:
            return {}
        return {worker: node for worker, (step, node) in self._claims.items() if step == self.step}

    def _limit(self) -> int | None:
        """How many more leases may be given; None: any number."""
        return None

    def _grant(self, lease: Lease) -> Grant:
        grant = Grant(lease_s=lease.deadline - lease.granted)
        if self._validation is None:
            grant.kind = Grant.TRAIN
            self._fill_grant(grant, lease)
            grant.step_in_epoch = self.plan.step_in_epoch(grant.step)
        else:
            grant.kind, grant.step = Grant.VALIDATE, self.committed
            grant.index = lease.node.position
            grant.first, grant.last = self._validation.blocks[lease.node.position]
        grant.epoch = self.plan.epoch(grant.step)
        return grant

    def _fill_grant(self, grant: Grant, lease: Lease) -> None:
        grant.step = self.step
        grant.level, grant.index = lease.node
        grant.first, grant.last = lease.first, lease.last

    # --- decisions --------------------------------------------------------------------------------------------------

    def _commit(self, now: float, result: StepResult) -> list[Action]:
        reports = self._count(now, result)
        if self.phase is Phase.OVER:
            return reports
        return [*reports, *self._committed_now(now, self._record.wants_checkpoint)]

    def _count(self, now: float, result: StepResult) -> list[Action]:
        """Counts the next step; the phase is OVER if the job cannot go on."""
        begun = now if self._last_commit is None else self._last_commit
        progress, failure = self._record.commit(self.committed + 1, result, now - begun, self.workers)
        reports: list[Action] = [Report(progress)] if progress.ByteSize() else []
        if failure:
            self.phase = Phase.OVER
            return [*reports, failure]
        self._last_commit = now
        return reports

    def _committed_now(self, now: float, wants_checkpoint: bool) -> list[Action]:
        checkpoint = self._checkpoints and wants_checkpoint
        if checkpoint:
            self._unwritten.add(self.committed)
        return [CommitStep(self.committed, checkpoint), *self._after_commit(now)]

    def _after_commit(self, now: float) -> list[Action]:
        if self._stopping is not None:
            return self._end(self._stopping)
        if self.spec.validation is None or not self._validation_due:
            return self._go_on(now)
        self.phase = Phase.VALIDATING
        self._validation = ValidationRound(self.spec.validation)
        cost = SCORE_COST * self.spec.validation.batch_size / self.plan.micro_batch_size
        self._leases.open(len(self._validation.blocks), cost, single=True)
        return self._assign(now)

    def _validated(self, validation: ValidationRound, now: float) -> list[Action]:
        self._validation = None
        self._last_commit = now  # the time of a validation is not the next step's
        return [Report(self._record.validated(validation)), *self._go_on(now)]

    def _go_on(self, now: float) -> list[Action]:
        return self._end(control.Finished.END_WHEN) if self._end_due else self._begin_step(now)

    @property
    def _validation_due(self) -> bool:
        return self._record.wants_validation

    @property
    def _end_due(self) -> bool:
        return self._record.ends

    def _end(self, reason: control.Finished.Reason) -> list[Action]:
        self.phase = Phase.FINISHING
        self._validation = None
        self._stopping = reason
        actions: list[Action] = []
        missing = self.committed not in self._written and self.committed not in self._unwritten
        if self._checkpoints and self.committed and missing:
            self._unwritten.add(self.committed)
            actions.append(CommitStep(self.committed, True))
        return actions + self._finish_if_written()

    def _finish_if_written(self) -> list[Action]:
        if self.phase is not Phase.FINISHING or self._unwritten or self._stopping is None:
            return []
        self.phase = Phase.OVER
        return [Finish(self._stopping)]
