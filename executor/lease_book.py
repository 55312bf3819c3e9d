"""The lease book: which block of which step is leased to whom, and which steps are committed.

A pure state machine (no I/O, no clock of its own): every method takes what happened and when, on any monotonic clock,
and returns what is to be done. The server of index 0 carries it out (server.py).

A job alternates between two phases. In TRAINING the blocks of one step are leased until every server has reported its
tree complete; the step is then committed. In VALIDATING the blocks of the validation set are leased until all have
been scored. A block whose lease expires, or whose worker leaves, is leased again; that both may deliver it does no
harm, since the results are identical and the second is dropped.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from statistics import median

import numpy as np

from compute import TrainingSpec, TrainingState
from compute.optim import LearningRates
from executor.reduction_tree import DIGEST_MODULUS, Node
from executor.resumable import Resumable
from executor.step_plan import StepPlan, lease_level, lease_nodes
from proto import control_pb2 as control
from proto.exchange_pb2 import Grant

MIN_LEASE_S = 2.0
LEASE_FACTOR = 8.0  # a lease lasts this many times what its block should take
SCORE_COST = 0.4  # scoring a sample costs about this share of training on it: no backward pass


@dataclass(frozen=True)
class GiveLease:
    """Send this grant to this worker."""

    worker: str
    grant: Grant


@dataclass(frozen=True)
class CommitStep:
    """Tell every server that the step is final, and to write a checkpoint of it if asked."""

    step: int
    checkpoint: bool


@dataclass(frozen=True)
class TellRates:
    """Tell every server the learning rates of the step that begins, in the order of the optimizers."""

    step: int
    rates: list[float]


@dataclass(frozen=True)
class Report:
    """Tell the driver."""

    message: control.Progress


@dataclass(frozen=True)
class Finish:
    """The job is over; all checkpoints are written."""

    reason: control.Finished.Reason


@dataclass(frozen=True)
class Fail:
    """The job cannot go on."""

    kind: control.Failure.Kind
    summary: str


Action = GiveLease | CommitStep | TellRates | Report | Finish | Fail


class Phase(Enum):
    """What the book is about."""

    TRAINING = auto()
    VALIDATING = auto()
    FINISHING = auto()  # waiting for checkpoints to be written
    OVER = auto()


@dataclass
class _Lease:
    block: int
    leaves: float  # its size in micro-batches
    granted: float
    deadline: float


@dataclass
class _Worker:
    lease: _Lease | None = None
    overdue: bool = False


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
        """
        self.spec = spec
        self.plan = plan
        self.phase = Phase.TRAINING
        self.committed = start.step
        self.step = start.step + 1
        self._servers = servers
        self._attempt = attempt
        self._expected_digest = epoch_digest
        self._checkpoints = checkpoints
        self._state = start
        self._rates = LearningRates(spec.optimizer, start.schedules)
        self._workers: dict[str, _Worker] = {}
        self._waiting: dict[str, None] = {}  # an ordered set
        self._free: deque[int] = deque()
        self._nodes: list[Node] = []
        self._done: set[int] = set()
        self._prepared: set[int] = set()
        self._tree_report: tuple[float, int, int] | None = None
        self._pushed_deadline = math.inf
        self._blocks: list[tuple[int, int]] = []
        self._scores: dict[int, tuple[Sequence[Sequence[float]], int]] = {}
        self._leaf_s: deque[float] = deque(maxlen=64)
        self._last_commit: float | None = None
        self._unwritten: set[int] = set()
        self._written: set[int] = {start.step} if start.step else set()
        self._stopping: control.Finished.Reason | None = None
        self._begun = False

    # --- what may be asked ------------------------------------------------------------------------------------------

    @property
    def resumable(self) -> Resumable:
        """What a checkpoint of the last committed step must hold."""
        return self._state

    @property
    def workers(self) -> int:
        """How many are connected."""
        return len(self._workers)

    def next_deadline(self) -> float | None:
        """When tick() has something to do, if nothing happens before."""
        leases = min((w.lease.deadline for w in self._workers.values() if w.lease), default=math.inf)
        deadline = min(leases, self._pushed_deadline if self.phase is Phase.TRAINING else math.inf)
        return deadline if math.isfinite(deadline) else None

    # --- what may happen --------------------------------------------------------------------------------------------

    def begin(self, now: float) -> list[Action]:
        """Every server holds its slice at the version of the start."""
        self._begun = True
        self._last_commit = now
        if self.committed or self.spec.inference:  # resumed: what followed that commit may not have happened yet
            return self._after_commit(now)
        return self._begin_step(now)

    def worker_joined(self, worker: str, micro_batch_s: float, now: float) -> list[Action]:
        """A worker has connected; it may have been here before."""
        actions = self.worker_left(worker, now)
        self._workers[worker] = _Worker()
        if micro_batch_s > 0:
            self._leaf_s.append(micro_batch_s)
        return actions

    def worker_left(self, worker: str, now: float) -> list[Action]:
        """A worker's connection is gone: what it held is free again at once."""
        gone = self._workers.pop(worker, None)
        self._waiting.pop(worker, None)
        if gone and gone.lease:
            self._release(gone.lease)
            return self._assign(now)
        return []

    def lease_wanted(self, worker: str, now: float) -> list[Action]:
        """A worker is ready for its next lease."""
        entry = self._workers.get(worker)
        if entry is None:
            return []
        if entry.lease is not None:  # it gave up what it had
            self._release(entry.lease)
            entry.lease = None
        entry.overdue = False
        self._waiting[worker] = None
        return self._assign(now)

    def renewed(self, worker: str, now: float) -> list[Action]:
        """A worker is still at it."""
        entry = self._workers.get(worker)
        if entry and entry.lease:
            entry.lease.deadline = now + self._lease_s(entry.lease.leaves)
        return []

    def node_pushed(self, worker: str, step: int, node: Node, now: float) -> list[Action]:
        """The book's own server has a node's gradient, now or from before; the others may not have it yet."""
        entry = self._workers.get(worker)
        if self.phase is not Phase.TRAINING or step != self.step or entry is None or entry.lease is None:
            return []
        if self._nodes[entry.lease.block] == node:
            self._leaf_s.append(max((now - entry.lease.granted) / entry.lease.leaves, 1e-6))
            self._done.add(entry.lease.block)
            entry.lease = None
            if len(self._done) == len(self._nodes):
                # From here on it only matters whether the pushes reach the other servers. If they do not, the tick
                # finds the step still open and leases it again.
                self._pushed_deadline = now + self._lease_s(1)
        return []

    def server_prepared(
        self, server: int, step: int, now: float, loss: float = 0.0, samples: int = 0, digest: int = 0
    ) -> list[Action]:
        """A server has completed the step's tree; the book's own (0) also says what it counted."""
        if self.phase is not Phase.TRAINING or step != self.step:
            return []
        self._prepared.add(server)
        if server == 0:
            self._tree_report = (loss, samples, digest)
        if len(self._prepared) < self._servers or self._tree_report is None:
            return []
        return self._commit(now, *self._tree_report)

    def scored(
        self, worker: str, step: int, block: int, sums: Sequence[Sequence[float]], samples: int, now: float
    ) -> list[Action]:
        """A worker has scored a block of the validation set (sums: per metric); it is ready for the next."""
        entry = self._workers.get(worker)
        if entry is None:
            return []
        if self.phase is Phase.VALIDATING and step == self.committed:
            self._scores.setdefault(block, (sums, samples))
            self._done.add(block)
            if entry.lease and entry.lease.block == block:
                entry.lease = None
            if len(self._scores) == len(self._blocks):
                self._waiting[worker] = None
                entry.overdue = False
                return self._validated(now)
        return self.lease_wanted(worker, now)

    def checkpoint_written(self, step: int, path: str, now: float) -> list[Action]:
        """A checkpoint is complete."""
        self._unwritten.discard(step)
        self._written.add(step)
        report = Report(control.Progress(checkpoints=[control.CheckpointReport(step=step, path=path)]))
        return [report, *self._finish_if_written()]

    def stop_wanted(self, checkpoint: bool, now: float) -> list[Action]:
        """The driver wants the job to end, with a checkpoint or at once."""
        if self.phase in (Phase.FINISHING, Phase.OVER):
            return []
        self._stopping = control.Finished.STOPPED
        self._checkpoints = self._checkpoints and checkpoint
        idle = not self._prepared and not self._done and not any(w.lease for w in self._workers.values())
        if not self._begun or self.phase is Phase.VALIDATING or idle:
            return self._end(control.Finished.STOPPED)
        return []  # the running step ends first

    def tick(self, now: float) -> list[Action]:
        """Time has passed: overdue leases are free again."""
        freed = False
        for entry in self._workers.values():
            if entry.lease and now >= entry.lease.deadline:
                self._release(entry.lease)
                entry.lease = None
                entry.overdue = True
                freed = True
        if self.phase is Phase.TRAINING and now >= self._pushed_deadline:
            # Everything was pushed to this server, and yet another one's tree is incomplete: a push was lost.
            self._free.extend(sorted(self._done))
            self._done.clear()
            self._pushed_deadline = math.inf
            freed = True
        return self._assign(now) if freed else []

    # --- decisions --------------------------------------------------------------------------------------------------

    def _active(self) -> int:
        return sum(not w.overdue for w in self._workers.values())

    def _lease_s(self, leaves: float) -> float:
        expected = median(self._leaf_s) * leaves if self._leaf_s else 0.0
        return max(MIN_LEASE_S, LEASE_FACTOR * expected)

    def _release(self, lease: _Lease) -> None:
        if lease.block not in self._done and lease.block not in self._free:
            self._free.append(lease.block)  # last in the row: one block must not keep another from its turn

    def _begin_step(self, now: float) -> list[Action]:
        self.phase = Phase.TRAINING
        self.step = self.committed + 1
        leaves = self.plan.leaves(self.step)
        self._nodes = lease_nodes(leaves, lease_level(leaves, max(self._active(), 1)))
        self._open_blocks(len(self._nodes))
        self._prepared.clear()
        self._tree_report = None
        self._pushed_deadline = math.inf
        if not self._rates.feeds_back:
            return self._assign(now)
        rates = self._rates.at(self.step, self.plan.epoch(self.step))
        return [TellRates(self.step, list(rates.values())), *self._assign(now)]

    def _open_blocks(self, count: int) -> None:
        self._free = deque(range(count))
        self._done = set()
        for worker in self._workers.values():
            worker.lease = None

    def _assign(self, now: float) -> list[Action]:
        if not self._begun or self.phase not in (Phase.TRAINING, Phase.VALIDATING):
            return []
        actions: list[Action] = []
        while self._free and self._waiting:
            worker = next(iter(self._waiting))
            del self._waiting[worker]
            block = self._free.popleft()
            actions.append(self._give(worker, block, now))
        return actions

    def _give(self, worker: str, block: int, now: float) -> GiveLease:
        if self.phase is Phase.TRAINING:
            node = self._nodes[block]
            first, last = node.leaves(self.plan.leaves(self.step))
            size: float = last - first
            grant = Grant(
                kind=Grant.TRAIN,
                step=self.step,
                epoch=self.plan.epoch(self.step),
                step_in_epoch=self.plan.step_in_epoch(self.step),
                level=node.level,
                index=node.position,
                first=first,
                last=last,
            )
        else:
            first, last = self._blocks[block]
            size = SCORE_COST * (last - first) / self.plan.micro_batch_size
            grant = Grant(kind=Grant.VALIDATE, step=self.committed, index=block, first=first, last=last)
            grant.epoch = self.plan.epoch(self.committed)
        grant.lease_s = self._lease_s(size)
        self._workers[worker].lease = _Lease(block, size, now, now + grant.lease_s)
        return GiveLease(worker, grant)

    def _commit(self, now: float, loss: float, samples: int, digest: int) -> list[Action]:
        step, plan = self.step, self.plan
        mean = loss / samples
        if not math.isfinite(mean):
            self.phase = Phase.OVER
            rate = self._rates.main(step, plan.epoch(step))
            return [
                Fail(
                    control.Failure.DIVERGED,
                    f"the loss is {mean} at step {step} (epoch {plan.epoch(step)}): the training diverged; "
                    f"lower the learning rate ({rate:g}) or look for invalid values in the data",
                )
            ]
        begun = now if self._last_commit is None else self._last_commit
        self._last_commit = now
        self.committed = step
        rates = self._rates.at(step, plan.epoch(step))
        total = self._state.epoch_samples + samples
        digests = (self._state.epoch_digest + digest) % DIGEST_MODULUS
        progress = control.Progress(
            steps=[
                control.StepReport(
                    step=step,
                    epoch=plan.epoch(step),
                    loss=mean,
                    samples=samples,
                    learning_rate=self._rates.main(step, plan.epoch(step)),
                    learning_rates=rates if len(rates) > 1 else None,
                    seconds=now - begun,
                    workers=self.workers,
                    attempt=self._attempt,
                )
            ]
        )
        if plan.ends_epoch(step):
            exact = total == plan.samples and digests == self._expected_digest
            progress.epochs.add(
                epoch=plan.epoch(step), samples=total, step=step, digest=f"{digests:016x}", exact=exact
            )
            total, digests = 0, 0
            if not exact:
                self.phase = Phase.OVER
                return [
                    Report(progress),
                    Fail(control.Failure.INTERNAL, f"epoch {plan.epoch(step)} did not count every sample exactly once"),
                ]
        self._state = replace(self._state, step=step, epoch_samples=total, epoch_digest=digests, loss=mean)
        self._rates.after_step(self._training_state())
        self._remember_schedules()
        when = self.spec.checkpoint_when
        checkpoint = self._checkpoints and when is not None and when(self._training_state())
        if checkpoint:
            self._unwritten.add(step)
        return [Report(progress), CommitStep(step, checkpoint), *self._after_commit(now)]

    def _remember_schedules(self) -> None:
        schedules = {prefix: dict(memory) for prefix, memory in self._rates.memories.items()}
        self._state = replace(self._state, schedules=schedules)

    def _training_state(self) -> TrainingState:
        return TrainingState(
            step=self.committed,
            epoch=self.plan.epoch(self.committed),
            epoch_finished=self.plan.ends_epoch(self.committed),
            loss=self._state.loss,
            metrics=self._state.metrics,
        )

    def _after_commit(self, now: float) -> list[Action]:
        if self._stopping is not None:
            return self._end(self._stopping)
        validation = self.spec.validation
        if validation is None or not (self.spec.inference or validation.trigger(self._training_state())):
            return self._go_on(now)
        self.phase = Phase.VALIDATING
        count, size = len(validation.dataset), validation.batch_size
        self._blocks = [(first, min(first + size, count)) for first in range(0, count, size)]
        self._scores = {}
        self._open_blocks(len(self._blocks))
        return self._assign(now)

    def _validated(self, now: float) -> list[Action]:
        validation = self.spec.validation
        if validation is None:
            raise RuntimeError("scores without a validation")
        blocks = [self._scores[block] for block in range(len(self._blocks))]  # added in order, for the same bits
        metrics = {
            metric.name: metric.result(np.sum([sums[position] for sums, _ in blocks], axis=0, dtype=np.float64))
            for position, metric in enumerate(validation.metrics)
        }
        self._state = replace(self._state, metrics=metrics)
        self._rates.after_validation(self._training_state())
        self._remember_schedules()
        finished = self.committed // self.plan.steps_per_epoch
        report = control.ValidationReport(
            step=self.committed, epoch=finished, metrics=metrics, samples=sum(samples for _, samples in blocks)
        )
        self._last_commit = now  # the time of a validation is not the next step's
        return [Report(control.Progress(validations=[report])), *self._go_on(now)]

    def _go_on(self, now: float) -> list[Action]:
        if self.spec.inference or self.spec.end_when(self._training_state()):
            return self._end(control.Finished.END_WHEN)
        return self._begin_step(now)

    def _end(self, reason: control.Finished.Reason) -> list[Action]:
        self.phase = Phase.FINISHING
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
