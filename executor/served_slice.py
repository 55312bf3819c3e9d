"""A server's slice at work: gradients come in, versions go out, the lease book and the replica are told.

The same holds what a replica is told, until it takes its server's place. All state is touched from the event loop only.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
from numpy.typing import NDArray

from executor.book_link import BookLink
from executor.checkpoint_parts import CheckpointParts
from executor.data_path import ParameterOutbox
from executor.job import LoadedJob
from executor.parameter_slice import ParameterSlice, Verdict
from executor.pieces import PIECE
from executor.reduction_tree import Node
from executor.replica import Replica
from executor.replication import Replication, totals_message
from executor.session import Session, SessionClosed
from executor.shared_memory import SharedPool
from executor.slice_handover import Gathering, give, parts_of
from executor.slice_loading import load_slice
from executor.step_plan import slice_bounds
from proto import control_pb2 as control
from proto.exchange_pb2 import (
    Applied,
    Bookmark,
    Commit,
    Fetch,
    Follow,
    Header,
    Holding,
    Parameters,
    Push,
    Rates,
    Refusal,
    Restore,
    Restored,
    Totals,
)
from proto.frames import Frame, FrameError, frame

RECONNECT_S = 0.3

logger = logging.getLogger(__name__)


class ServedSlice:
    """See the module.

    Attributes:
        attempt: that the slice is of; 0: none yet.
        promised: frames of attempts before this one are refused.
        book: the way to the lease book.
        outbox: the versions on their way to workers.
        replication: the way to the replica, if there is one.
    """

    def __init__(
        self,
        job: LoadedJob,
        secret: str,
        tell_driver: Callable[[control.TaskMessage], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        pool: SharedPool | None,
    ) -> None:
        """
        Args:
            spawn: runs a coroutine in the background; what it raises ends the server.
            pool: memory that workers of this host read; None: not to be used.
        """
        self._job = job
        self._secret = secret
        self.attempt = 0
        self.promised = 0
        self.book = BookLink()
        self.outbox = ParameterOutbox(pool, job.parameter_codec)
        self.replication = Replication(
            secret, tell_driver, lambda: self.held, self.marked, self.reached, moved=self._moved
        )
        self._slice: ParameterSlice | None = None
        self._place = (0, 0)  # index of the slice, number of servers; (_, 0): none yet
        self._former: ParameterSlice | None = None  # that others may still have to get, after the number changed
        self._told = -1  # the last version that the lease book was told of
        self._shared = 0  # the last step whose share of sums was sent to it
        self._bookmark: Bookmark | None = None  # where the lease book was when another process kept it
        self._attempt_reached = asyncio.Condition()
        self._restoring = asyncio.Lock()
        self._parts = CheckpointParts(self.book, spawn, self._advance)

    @property
    def held(self) -> ParameterSlice:
        """The slice itself.

        Raises:
            FrameError: there is none yet; whoever asked could have known.
        """
        if self._slice is None:
            raise FrameError("this server holds no slice yet")
        return self._slice

    # --- attempts ---------------------------------------------------------------------------------------------------

    async def reached(self, attempt: int) -> None:
        """Waits until this server serves the attempt (or a later one)."""
        async with self._attempt_reached:
            await self._attempt_reached.wait_for(lambda: self.attempt >= attempt)

    def holding(self) -> Holding:
        """What this server could go on with."""
        if self._slice is None or not self._job.sync.synchronous:
            return Holding()
        index, servers = self._place
        totals = totals_message(self._slice)
        return Holding(index=index, servers=servers, version=self._slice.version, totals=totals)

    def marked(self) -> Bookmark | None:
        """Where the lease book is, for whoever may have to go on with it; None on a server that does not keep it."""
        mark = self.book.keeper.bookmark if self.book.keeper is not None else None
        if mark is None:
            mark = self._bookmark
        if mark is None or self._slice is None:
            return None
        mark.step = self._slice.version
        if self._slice.reduced is not None:
            value = self._slice.reduced
            mark.loss, mark.samples, mark.digest = value.loss, value.samples, value.digest
        return mark

    def keep_mark(self) -> None:
        """Before another keeper begins: remembers where the last one was."""
        self._bookmark = self.marked()

    async def restore(self, attempt: int, order: Restore) -> bool:
        """Begins an attempt with what the lease book says; False if it has begun already, or a later one was promised.

        Raises:
            InputError: the checkpoint cannot be used.
        """
        async with self._restoring:
            self.promised = max(self.promised, attempt)
            if attempt <= self.attempt:
                return False
            if not order.keep:
                loaded = await (self._gathered(attempt, order) if order.former else self._loaded(order))
                if loaded is None or attempt < self.promised:
                    return False
                self._former = self._slice if order.former else None
                self._slice, self._place = loaded, (order.index, order.servers)
            held = self.held
            self._shared = 0
            self._told = held.version - 1
            self.attempt = attempt
            self.outbox.restart(attempt, order.keep)
            self._parts.restart(attempt)
            async with self._attempt_reached:
                self._attempt_reached.notify_all()
            how = "goes on" if order.keep else "begins"
            place = f"elements {held.begin} to {held.end}"
            logger.info("attempt %d: %s, %s at version %d", attempt, place, how, held.version)
            return True

    async def _loaded(self, order: Restore) -> ParameterSlice:
        begin, end = slice_bounds(self._job.parameters, order.servers, order.index)
        return await asyncio.to_thread(load_slice, self._job, order.checkpoint, begin, end)

    async def _gathered(self, attempt: int, order: Restore) -> ParameterSlice | None:
        """The slice as former servers hold it; None if another attempt has begun before it was complete."""
        gathering = Gathering(
            self._job, order.version, *slice_bounds(self._job.parameters, order.servers, order.index)
        )
        for index, begin, end in parts_of(self._job.parameters, order.former, gathering.begin, gathering.end):
            if self._place == (index, len(order.former)):
                gathering.take(self.held)
                continue
            while True:
                try:
                    await gathering.fetch(order.former[index], self._secret, attempt, begin, end)
                    break
                except (SessionClosed, FrameError) as error:
                    logger.info("elements %d to %d: %s", begin, end, error)
                await asyncio.sleep(RECONNECT_S)
                if attempt < self.promised:
                    return None
        return gathering.result()

    async def give(self, session: Session, attempt: int, fetch: Fetch) -> None:
        """Sends what another server of the new set has asked for.

        Raises:
            FrameError: it is not held here.
        """
        await give(session, attempt, self._former or self.held, fetch)

    # --- from workers -----------------------------------------------------------------------------------------------

    def pushed(self, session: Session, push: Push, payload: memoryview) -> None:
        """Takes pieces of a node's gradient.

        Raises:
            FrameError: they are not of this slice, or of a step that cannot be yet.
        """
        held, node = self.held, Node(push.level, push.index)
        stale = push.step <= held.applied[0]
        if (push.bytes != 4 * held.size and not stale) or push.offset % 4:
            raise FrameError(f"{push.bytes} bytes at {push.offset} for a slice of {4 * held.size}")
        too_old = held.too_old(push.step, push.version)
        verdict = Verdict.STALE if stale or too_old else Verdict.DUPLICATE
        if len(payload) and not too_old and not stale:
            gradient = self._decoded(push, payload)
            verdict = held.push(push.step, node, push.offset // 4, gradient)
            del gradient
        if push.last and verdict is not Verdict.INVALID and not too_old:
            verdict = held.end_node(push.step, node, push.loss, push.samples, push.digest)
        if verdict is Verdict.INVALID:
            what = f"step {push.step} {node}, {len(payload)} bytes at {push.offset}"
            raise FrameError(f"{what}: not wanted at {held.version}")
        if push.last:
            self._node_ended(session, push, node, verdict)
        if push.want:
            self.outbox.want(session, push.want, held)
        del payload
        self._advance()

    def _decoded(self, push: Push, payload: memoryview) -> NDArray[np.float32]:
        """The gradient of a frame: of any whole pieces, or of one piece if the job compresses."""
        held, codec = self.held, self._job.codec
        begin = held.begin + push.offset // 4
        size = len(payload) // 4 if codec.plain else min(PIECE, held.end - begin)
        try:
            return codec.decode(payload, begin, begin + size)
        except ValueError as error:
            raise FrameError(f"{len(payload)} of {push.bytes} bytes at {push.offset}: {error}") from None

    def _node_ended(self, session: Session, push: Push, node: Node, verdict: Verdict) -> None:
        if verdict is Verdict.STALE:
            session.refuse(self.attempt, Refusal.STALE_STEP, push.step)
        keeper = self.book.keeper
        if keeper is None:
            return
        keeper.timed(session.peer, push.times)
        # Even if stale here: it may have been pushed again for another server's sake.
        keeper.pushed(session.peer, push.step, node, push.computed_s)
        if push.lease:
            keeper.lease_wanted(session.peer)

    # --- from the lease book ----------------------------------------------------------------------------------------

    def asked_by_book(self, session: Session) -> None:
        """The book's server has connected, for the first time or again, and is told all that it may not know."""
        self.book.session = session
        through, ahead = self.held.applied
        version = through if self.replication.safe(through) else max(self._told, 0)
        session.send(Header(attempt=self.attempt, restored=Restored(version=version, ahead=ahead)))
        self._shared = 0  # what was said before may be lost
        self._advance()

    def tell_again(self) -> None:
        """The book goes on with what the servers held, and does not know yet what this one has."""
        self._told = self.held.version - 1
        self._shared = 0
        self._advance()

    def committed(self, order: Commit) -> None:
        """A step is final."""
        held = self.held
        held.commit(order.step)
        self._former = None  # all have theirs, or there would be no steps
        self.outbox.committed(order.step)
        if order.checkpoint:
            self._parts.write(held, order)
        self._advance()

    def rates_told(self, rates: Rates) -> None:
        """The learning rates of a step are known."""
        self.held.rates_known(rates.step, list(rates.rates))
        self._advance()

    def totalled(self, totals: Totals) -> None:
        """The sums over the whole vector are known."""
        self.held.total(totals.step, list(totals.totals), totals.loss)
        self._advance()

    def weights(self) -> bytes:
        """The slice's parameters, for the digest of the whole."""
        return self.held.parameters.tobytes()

    def send_weights(self, session: Session) -> None:
        """Sends them to the lease book, when the training has ended."""
        held, data = self.held, memoryview(self.weights())

        def made(begin: int) -> Frame:
            parameters = Parameters(version=held.version, offset=4 * begin, bytes=4 * held.size)
            return frame(Header(attempt=self.attempt, parameters=parameters), data[4 * begin :][: 4 * PIECE])

        frames = map(made, range(0, max(held.size, 1), PIECE))
        session.send_when_free(lambda: next(frames, None))

    # --- steps ------------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        held = self.held
        while True:
            self._share()
            if held.can_apply():
                self.outbox.keep(held)
                self.outbox.add(held, held.version + 1, held.apply())
                self.replication.applied(held)
            if not held.advance():
                break
            if not held.size:
                self.outbox.add(held, held.version, [])
            self.replication.advanced(held)
            if not self._job.sync.synchronous:
                self._tell_arrived(held)
        if self._job.sync.synchronous:
            self._tell_prepared()

    def _share(self) -> None:
        """Says this slice's share of the next step's sums, once it is known."""
        held = self.held
        step, share = held.version + 1, held.share()
        if share is None or self._shared == step or (complete := held.complete) is None:
            return
        if self.book.open:
            self._shared = step
            self.book.shared(self.attempt, step, share, complete)

    def _tell_arrived(self, held: ParameterSlice) -> None:
        """Tells the lease book of a step that was applied when it arrived; there is no replica to be waited for."""
        if held.reduced is not None:
            value = held.reduced
            self.book.prepared(self.attempt, held.finished, value.loss, value.samples, value.digest)
        self.outbox.committed(held.version)  # only the newest version is ever wanted

    def _tell_prepared(self) -> None:
        """Tells the lease book of a new version, once the replica has it."""
        held = self.held
        if held.version <= self._told or not self.replication.safe(held.version) or not self.book.open:
            return
        mark = self.marked() if self.book.keeper is not None else Bookmark()
        if mark is not None:
            self._told = held.version
            self.book.prepared(self.attempt, held.version, mark.loss, mark.samples, mark.digest)

    def _moved(self) -> None:
        """Replication has got further."""
        if self._slice is not None and self.attempt:
            self._advance()

    # --- as a replica -----------------------------------------------------------------------------------------------

    def following(self, follow: Follow) -> Replica:
        """From now on this is the replica of the server that says so."""
        place = (follow.index, follow.servers)
        if self._place != place:
            self._slice, self._place, self._bookmark = None, place, None
        return Replica(self._job, follow, self._slice, self._bookmark)

    def follow(self, session: Session, replica: Replica, header: Header, payload: memoryview) -> None:
        """Takes a frame of the server that this is the replica of."""
        if header.WhichOneof("body") == "state":
            done = replica.take_state(header.state, payload)
            if done:
                self.outbox.restart(header.attempt)
        else:
            if header.apply.last and replica.held is not None:
                self.outbox.keep(replica.held)  # should the server be lost now, others may still be at that version
            done = replica.take_step(header.apply, payload)
            if done:
                self.outbox.committed(header.apply.step - 1)
        if done and replica.held is not None:
            self._slice, self._bookmark = replica.held, replica.bookmark
            session.send(Header(attempt=header.attempt, applied=Applied(version=replica.held.version)))
