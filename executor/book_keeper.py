"""Carries out what the lease book decides: the part of server 0 that coordinates the other servers and the workers."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from compute.optim import ExactSum
from executor.arrival_book import ArrivalBook
from executor.checkpoint_keeper import CheckpointKeeper
from executor.job import LoadedJob
from executor.lease_actions import Action, CommitStep, Fail, Finish, GiveLease, Paused, Report, RevokeLease, TellRates
from executor.lease_book import LeaseBook, Phase
from executor.peer_servers import PeerServer, PeerServers
from executor.recent_reports import RecentReports, Unacknowledged, nothing
from executor.reduction_tree import Node
from executor.resumable import Resumable
from executor.session import Session
from executor.sum_book import SumBook
from executor.sum_message import decoded
from executor.takeover import fits, hands_over, newest_totals
from proto import control_pb2 as control
from proto.exchange_pb2 import (
    Bookmark,
    Commit,
    Header,
    Holding,
    Join,
    LeaseRequest,
    Part,
    Rates,
    Restore,
    Restored,
    Revoke,
    Scores,
    Times,
    Totals,
)

TICK_S = 0.05
MIN_TICK_S = 0.005
PHASES = ("data", "compute", "push", "wait", "pull")  # of a worker's time

logger = logging.getLogger(__name__)


def claim_of(join: Join) -> tuple[int, Node] | None:
    """Step and node of the gradient that a worker has, or will have without being told to."""
    return (join.step, Node(join.level, join.index)) if join.step else None


class BookKeeper:
    """Runs the lease book of one attempt.

    What it needs of the server it belongs to is passed in: `holding` and `bookmark` say what it has from the attempt
    before, `restore` loads the server's own slice, `begun` has it say again how far it is, `committed` tells it that a
    step is final (and where to write a checkpoint of it), `rates` and `totals` tell it what the other servers are told,
    `weights` are its own final parameters, `unacknowledged` what it told the driver without an answer.
    """

    def __init__(
        self,
        job: LoadedJob,
        membership: control.Membership,
        secret: str,
        tell_driver: Callable[[control.TaskMessage], None],
        holding: Callable[[], Holding],
        bookmark: Callable[[], Bookmark | None],
        restore: Callable[[Restore], Awaitable[None]],
        begun: Callable[[], None],
        committed: Callable[[Commit], None],
        rates: Callable[[Rates], None],
        totals: Callable[[Totals], None],
        weights: Callable[[], bytes],
        unacknowledged: Unacknowledged = nothing,
    ) -> None:
        self.attempt = membership.attempt
        self._job = job
        self._tell_driver = tell_driver
        self._holding = holding
        self._old_bookmark = bookmark
        self._restore = restore
        self._on_begun = begun
        self._on_committed = committed
        self._on_rates = rates
        self._on_totals = totals
        self._weights = weights
        self._servers = len(membership.servers)
        self._own_task = membership.servers[0].task_id
        self._former = list(membership.former)
        here = {server.task_id for server in membership.servers}
        leaving = [server for server in membership.former if server.task_id not in here]
        self._peers = PeerServers(self.attempt, secret, membership.servers[1:], leaving, self._take)
        self._book: LeaseBook | None = None
        self._order: Restore | None = None  # what every server is to begin with, but for its index
        self._workers: dict[str, tuple[Session, Join]] = {}
        self._ready: dict[str, None] = {}  # workers that asked for a lease before there was a book
        self._checkpoints = CheckpointKeeper(job, self._servers, self._checkpoint_written, self._fail)
        self._sums = SumBook(self._servers)
        self._rates: Rates | None = None  # the last that were told
        self._outgoing = control.Progress()
        self._reported = RecentReports(unacknowledged)
        self._times: dict[str, control.WorkerTimes] = {}  # of workers, since the last step was reported
        self._finished: control.Finished.Reason | None = None
        self._stop: control.Stop | None = None
        self._pausing = False
        self.over = False  # the last word was said

    async def run(self) -> None:
        """The whole attempt; ends when the job is over, or by cancellation.

        Raises:
            InputError: the checkpoint cannot be used.
        """
        keeping = asyncio.create_task(self._peers.keep())
        try:
            await self._peers.surveyed()
            holdings = [self._holding(), *(peer.holding or Holding() for peer in self._peers.members)]
            mark = self._old_bookmark()
            keep = mark is not None and fits(mark, holdings)
            handed = not keep and hands_over(mark, self._former_holdings())
            mark = mark if keep or handed else None
            start, written, untold = await self._order_restore(mark, handed)
            self._peers.begin(self._order_of)
            await self._restore(self._order_of(0))
            await self._peers.restored()
            kind = LeaseBook if self._job.sync.synchronous else ArrivalBook
            book = kind(
                self._job.spec, self._job.plan, self._servers, self.attempt, self._job.epoch_digest(),
                bool(self._job.message.checkpoint_url), start,
                written=written,
            )
            self._book = book
            self._act([Report(untold)])
            now = time.monotonic()
            for worker, (_, join) in self._workers.items():
                self._act(book.worker_joined(worker, join.micro_batch_s, now, claim_of(join)))
            self._act(book.begin(now, validated=mark is not None and mark.validated))
            if keep:
                self._go_on(book, newest_totals(holdings))
            for worker in self._ready:
                self._act(book.lease_wanted(worker, now))
            if self._stop is not None:
                self.stop(self._stop)
            if self._pausing:
                self.pause()
            while self._finished is None:
                due = book.next_deadline()
                until_due = TICK_S if due is None else due - time.monotonic()
                # A tick, not a wait: all else is driven by messages.
                await asyncio.sleep(min(max(until_due, MIN_TICK_S), TICK_S))
                self._act(book.tick(time.monotonic()))
                self._take_prepared()  # a validation may have been between
                self._flush_progress()
            await self._finish(book, self._finished)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    def _go_on(self, book: LeaseBook, totals: Totals | None) -> None:
        """Tells every server what it may have missed of the last attempt, and has it say how far it is."""
        self._peers.ask_again()
        if totals is not None:
            self._peers.tell(Header(attempt=self.attempt, totals=totals))
        self._on_committed(Commit(step=book.committed))
        if totals is not None:
            self._on_totals(totals)
        self._on_begun()

    # --- from workers -----------------------------------------------------------------------------------------------

    def joined(self, worker: str, session: Session, join: Join) -> None:
        """A worker has connected."""
        self._workers[worker] = (session, join)
        self._ready.pop(worker, None)
        if self._book is not None:
            self._act(self._book.worker_joined(worker, join.micro_batch_s, time.monotonic(), claim_of(join)))

    def left(self, worker: str, session: Session) -> None:
        """A worker's connection is gone."""
        if worker in self._workers and self._workers[worker][0] is session:
            del self._workers[worker]
            self._ready.pop(worker, None)
            if self._book is not None:
                self._act(self._book.worker_left(worker, time.monotonic()))

    def lease_wanted(self, worker: str, request: LeaseRequest | None = None) -> None:
        """A worker is ready; of a lease that was revoked, the request says how much it had done."""
        if self._book is None:
            self._ready[worker] = None
        else:
            done, computed_s = (request.done, request.computed_s) if request is not None else (0, 0.0)
            self._act(self._book.lease_wanted(worker, time.monotonic(), done, computed_s))

    def pushed(self, worker: str, step: int, node: Node, computed_s: float) -> None:
        """The server has a node's gradient from a worker, which says for how many seconds it has computed."""
        if self._book is not None:
            self._act(self._book.node_pushed(worker, step, node, time.monotonic(), computed_s))

    def timed(self, worker: str, times: Times) -> None:
        """A worker says where its time went."""
        known = self._times.setdefault(worker, control.WorkerTimes())
        for name in PHASES:
            setattr(known, name, getattr(known, name) + getattr(times, name))

    def renewed(self, worker: str) -> None:
        """A worker is still at it."""
        if self._book is not None:
            self._act(self._book.renewed(worker, time.monotonic()))

    def scored(self, worker: str, scores: Scores) -> None:
        """A worker has scored a block."""
        if self._book is not None:
            sums = [list(metric.values) for metric in scores.metrics]
            now = time.monotonic()
            self._act(self._book.scored(worker, scores.step, scores.index, sums, scores.samples, now))

    # --- from this server and its peers -----------------------------------------------------------------------------

    def prepared(self, step: int, loss: float, samples: int, digest: int) -> None:
        """The server's own tree is complete, and applied."""
        if self._book is not None:
            self._act(self._book.server_prepared(0, step, time.monotonic(), loss, samples, digest))
            self._take_prepared()

    def shared(self, server: int, step: int, share: Sequence[ExactSum], loss: float | None = None) -> None:
        """A server's share of a step's sums, the own one (0) with the step's mean loss."""
        if self._book is None:
            return  # of an attempt before this one
        try:
            done = self._sums.share(server, step, share, loss)
        except ValueError as error:
            self._fail(control.Failure.INTERNAL, str(error))
            return
        if done is None:
            return
        totals = Totals(step=done.step, totals=done.totals, loss=done.loss)
        self._peers.tell(Header(attempt=self.attempt, totals=totals))
        self._on_totals(totals)

    def part_written(self, server: int, part: Part) -> None:
        """A slice of a checkpoint is safe, on this server (0) or another."""
        self._checkpoints.part_written(server, part)

    def stop(self, stop: control.Stop) -> None:
        """The driver wants an end."""
        self._stop = stop
        if self._book is not None:
            self._act(self._book.stop_wanted(stop.checkpoint, time.monotonic()))

    def pause(self) -> None:
        """The driver wants everything to stop between two steps."""
        self._pausing = True
        if self._book is not None:
            self._act(self._book.pause_wanted(time.monotonic()))

    @property
    def bookmark(self) -> Bookmark | None:
        """What another book needs to go on from here, but for what the server has applied; None before it began."""
        book = self._book
        if book is None:
            return None
        return Bookmark(
            progress=book.resumable.message(), validated=book.phase is not Phase.VALIDATING,
            reports=self._reported.all(),
        )  # fmt: skip

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def _former_holdings(self) -> list[Holding]:
        """What those hold who served in the attempt before, by their index then; empty if that is not asked for."""
        known = {peer.task_id: peer.holding for peer in [*self._peers.members, *self._peers.leaving]}
        known[self._own_task] = self._holding()
        return [known.get(server.task_id) or Holding() for server in self._former]

    async def _order_restore(self, mark: Bookmark | None, handed: bool) -> tuple[Resumable, set[int], control.Progress]:
        """Decides what the servers begin with.

        Args:
            mark: where to go on; None: from a checkpoint, or from the beginning.
            handed: the slices are those of former servers, cut anew.

        Returns:
            The state of the book, the step of the newest checkpoint, if there is one, and what the driver may not know.
        """
        url, start, untold = await asyncio.to_thread(self._checkpoints.choose, self.attempt)
        newest = {start.step} if start.step else set()
        if mark is not None:
            self._order = Restore(servers=self._servers, keep=not handed)
            if handed:
                self._order.version = mark.progress.step
                self._order.former.extend(server.address for server in self._former)
            return Resumable.of(mark.progress), newest, mark.reports
        self._order = Restore(servers=self._servers, checkpoint=url)
        return start, newest, untold

    def _order_of(self, index: int) -> Restore:
        order = Restore(index=index)
        order.MergeFrom(self._order or Restore())
        return order

    # --- peers ------------------------------------------------------------------------------------------------------

    def _take(self, peer: PeerServer, session: Session, header: Header) -> None:
        """Another server has said something."""
        match header.WhichOneof("body"):
            case "restored":
                self._peer_restored(peer, session, header.restored)
            case "prepared" if self._job.sync.synchronous:
                self._take_prepared()
            case "prepared" if self._book is not None:
                self._act(self._book.server_prepared(peer.index, header.prepared.step, time.monotonic()))
            case "part":
                self.part_written(peer.index, header.part)
            case "share":
                self.shared(peer.index, header.share.step, [decoded(each) for each in header.share.sums])

    def _take_prepared(self) -> None:
        """Tells the book of peers that have applied its step, be it before the book began it."""
        book = self._book if self._job.sync.synchronous else None
        step = 0
        while book is not None and book.step != step:
            step = book.step
            for peer in self._peers.members:
                if peer.version >= step:
                    self._act(book.server_prepared(peer.index, step, time.monotonic()))

    def _peer_restored(self, peer: PeerServer, session: Session, restored: Restored) -> None:
        if self._book is None:
            return
        # The connection was lost and is back: what was said meanwhile is said again.
        session.send(Header(attempt=self.attempt, commit=Commit(step=self._book.committed)))
        if self._rates is not None:
            session.send(Header(attempt=self.attempt, rates=self._rates))
        if self._sums.last is not None:
            step, totals, loss = self._sums.last
            session.send(Header(attempt=self.attempt, totals=Totals(step=step, totals=totals, loss=loss)))
        for order in self._checkpoints.orders_to(peer.index):
            session.send(Header(attempt=self.attempt, commit=order))
        self._act(self._book.server_restored(peer.index, restored.version, restored.ahead, time.monotonic()))
        self._take_prepared()

    def _checkpoint_written(self, step: int, url: str) -> None:
        if self._book is not None:
            self._act(self._book.checkpoint_written(step, url, time.monotonic()))

    # --- carrying out -----------------------------------------------------------------------------------------------

    def _act(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case GiveLease(worker, grant):
                    if worker in self._workers:
                        self._workers[worker][0].send(Header(attempt=self.attempt, grant=grant), overtakes=True)
                case RevokeLease(worker, step):
                    if worker in self._workers:
                        revoke = Header(attempt=self.attempt, revoke=Revoke(step=step))
                        self._workers[worker][0].send(revoke, overtakes=True)
                case CommitStep(step, wants_checkpoint):
                    self._commit(step, wants_checkpoint)
                case TellRates(step, rates):
                    self._rates = Rates(step=step, rates=rates)
                    self._peers.tell(Header(attempt=self.attempt, rates=self._rates))
                    self._on_rates(self._rates)
                case Report(message):
                    for report in message.steps[-1:]:
                        for worker, times in self._times.items():
                            report.times[worker].CopyFrom(times)
                        self._times.clear()
                    self._outgoing.MergeFrom(message)
                    self._reported.add(message, time.monotonic())
                    if message.epochs or message.validations or message.checkpoints:
                        self._flush_progress()
                case Finish(reason):
                    self._finished = reason
                case Paused():
                    self._flush_progress()
                    self._tell_driver(control.TaskMessage(paused=control.Paused(attempt=self.attempt)))
                case Fail(kind, summary):
                    self._fail(kind, summary)

    def _commit(self, step: int, wants_checkpoint: bool) -> None:
        order = Commit(step=step)
        if wants_checkpoint and self._book is not None:
            order = self._checkpoints.order(step, self._book.resumable, self._reported.all())
        self._peers.tell(Header(attempt=self.attempt, commit=order))
        self._on_committed(order)

    def _fail(self, kind: control.Failure.Kind, summary: str) -> None:
        self._flush_progress()
        self._tell_driver(control.TaskMessage(failure=control.Failure(kind=kind, summary=summary)))

    def _flush_progress(self) -> None:
        if self._outgoing.ByteSize():
            self._tell_driver(control.TaskMessage(progress=self._outgoing))
            self._outgoing = control.Progress()

    async def _finish(self, book: LeaseBook, reason: control.Finished.Reason) -> None:
        self._flush_progress()
        digest = hashlib.sha256(self._weights())
        for weights in await self._peers.weights(book.committed):
            digest.update(weights)
        finished = control.Finished(
            reason=reason,
            step=book.committed,
            epoch=book.committed // self._job.plan.steps_per_epoch,
            weights_sha256=digest.hexdigest(),
            metrics=book.resumable.metrics,
        )
        self._tell_driver(control.TaskMessage(finished=finished))
        self.over = True
