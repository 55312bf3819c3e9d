"""The parameter server: holds a slice of the parameters, reduces gradients into it, and sends it to workers.

The server of index 0 also runs the book keeper. All state is touched from the event loop only.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from compute import InputError, checkpoint
from compute.optim import ParameterUpdate
from executor.arrival_slice import ArrivalSlice
from executor.book_keeper import BookKeeper
from executor.checkpointing import Checkpointing
from executor.data_lane import LaneListener
from executor.data_path import ParameterOutbox
from executor.job import LoadedJob
from executor.parameter_slice import ParameterSlice, Verdict
from executor.pieces import PIECE
from executor.recent_reports import Unacknowledged, nothing
from executor.reduction_tree import Node
from executor.replica import Replica
from executor.replication import Replication, totals_message
from executor.session import Session, SessionClosed, authenticate
from executor.shared_memory import SHARING_WAYS, SharedPool, way
from executor.step_plan import slice_bounds
from executor.sum_message import encoded
from proto import control_pb2 as control
from proto.checkpoint_pb2 import CheckpointPart
from proto.exchange_pb2 import (
    Applied,
    Bookmark,
    Commit,
    Follow,
    Header,
    Holding,
    Part,
    Prepared,
    Push,
    Rates,
    Refusal,
    Restore,
    Restored,
    Share,
    Totals,
)
from proto.frames import EXCHANGE_METHOD, FrameError, grpc_options

GRACE_S = 0.5
KEPT_PARTS = 1000  # steps for which it is known what became of their checkpoints
SHARED_BYTES = 512 << 20  # of parameters that workers of this host read where they lie; used as far as needed

logger = logging.getLogger(__name__)

Vector = NDArray[np.float32]


class ParameterServer:
    """One server of a job, for as long as its task lives."""

    def __init__(
        self,
        job: LoadedJob,
        task_id: str,
        secret: str,
        tell_driver: Callable[[control.TaskMessage], None],
        unacknowledged: Unacknowledged = nothing,
    ) -> None:
        self._job = job
        self._task_id = task_id
        self._secret = secret
        self._tell_driver = tell_driver
        self._unacknowledged = unacknowledged
        self._attempt = 0  # that the slice is of
        self._promised = 0  # frames of attempts before this one are refused
        self._place = (0, 0)  # index of the slice, number of servers; (_, 0): none yet
        self._told = -1  # the last version that the lease book was told of
        self._bookmark: Bookmark | None = None  # where the lease book was when another process kept it
        self._slice: ParameterSlice | None = None
        self._parts: dict[int, Part | None] = {}  # of checkpoints, by step; None: it is being written
        self._shared = 0  # the last step whose share of sums was sent on the book session
        self._attempt_reached = asyncio.Condition()
        self._restoring = asyncio.Lock()
        self._sessions: set[Session] = set()
        self._checkpointing = Checkpointing(self._advance)
        self._replication = Replication(
            secret, tell_driver, lambda: self._held, self._marked, self._reached, moved=self._moved
        )
        self._pool = SharedPool(SHARED_BYTES) if way() in SHARING_WAYS else None
        self._outbox = ParameterOutbox(self._pool)
        self._keeper: BookKeeper | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._book_session: Session | None = None  # to the lease book, on a server that does not keep it
        self._background: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._grpc = grpc.aio.server(options=grpc_options())
        self._lanes: LaneListener | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    async def run(self, bind: str, bind_lanes: str = "") -> None:
        """Serves until cancelled.

        Args:
            bind: host:port.
            bind_lanes: host:port for lanes; empty: there are none.

        Raises:
            OSError: a port cannot be had; with another one it may go well.
        """
        handler: Any = grpc.stream_stream_rpc_method_handler(self._serve)
        service, method = EXCHANGE_METHOD.strip("/").split("/")
        self._grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        try:
            self._grpc.add_insecure_port(bind)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {bind}: {error}") from None
        await self._grpc.start()
        if bind_lanes and way() != "grpc":
            self._lanes = LaneListener(bind_lanes)
            await self._lanes.start()
        try:
            await self._failed
        finally:
            if self._keeping is not None:
                self._keeping.cancel()
            self._replication.stop()
            if self._lanes is not None:
                self._lanes.close()
            for session in list(self._sessions):
                session.abort()
            await self._grpc.stop(GRACE_S)

    def joined(self, membership: control.Membership) -> None:
        """The driver says who serves."""
        mine = next((s for s in membership.servers if s.task_id == self._task_id), None)
        if mine is None or membership.attempt < self._promised:
            return
        if mine.index == 0 and (self._keeper is None or self._keeper.attempt < membership.attempt):
            self._keep_book(membership)
        self._replication.named(mine, len(membership.servers), membership.attempt)

    def _keep_book(self, membership: control.Membership) -> None:
        self._bookmark = self._marked()
        self._promised = membership.attempt
        if self._keeping is not None:
            self._keeping.cancel()
        self._keeper = BookKeeper(
            self._job, membership, self._secret, self._tell_driver,
            holding=self._holding,
            bookmark=self._marked,
            restore=lambda order: self._restore(membership.attempt, order),
            begun=self._tell_again,
            committed=self._committed,
            rates=self._rates_told,
            totals=self._totalled,
            weights=self._weights,
            unacknowledged=self._unacknowledged,
        )
        self._keeping = self._spawn(self._keeper.run())

    @property
    def keeps_book(self) -> bool:
        """Whether the job's end is for this server to announce."""
        return self._keeper is not None

    @property
    def over(self) -> bool:
        """Whether it has announced it."""
        return self._keeper is not None and self._keeper.over

    def stop(self, stop: control.Stop) -> None:
        """The driver wants the job to end."""
        if self._keeper is not None:
            self._keeper.stop(stop)

    def _spawn(self, work: Any) -> "asyncio.Task[None]":
        """Runs a coroutine in the background; what it raises ends the server."""
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._background.add(task)

        def ended(task: "asyncio.Task[None]") -> None:
            self._background.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None and not self._failed.done():
                self._failed.set_exception(error)

        task.add_done_callback(ended)
        return task

    # --- streams ----------------------------------------------------------------------------------------------------

    async def _serve(self, _requests: Any, context: Any) -> None:
        await authenticate(context, self._secret)
        session = Session(context, context.peer())
        self._sessions.add(session)
        try:
            await self._converse(session)
        except SessionClosed as error:
            logger.info("%s: %s", session.peer, error)
        except FrameError as error:
            logger.warning("%s: %s", session.peer, error)
            session.refuse(self._attempt, Refusal.MALFORMED, reason=str(error))
            await session.drain(GRACE_S)
        except Exception as error:  # noqa: BLE001 - gRPC would only log it; it is this server that has failed
            if not self._failed.done():
                self._failed.set_exception(error)
        finally:
            self._sessions.discard(session)
            self._outbox.forget(session)
            if self._book_session is session:
                self._book_session = None
            if self._keeper is not None:
                self._keeper.left(session.peer, session)
            session.closed = True
            session.stop_writer()

    async def _converse(self, session: Session) -> None:
        following: Replica | None = None
        attempt, opened = 0, ""
        async for header, payload in session.frames():
            body = header.WhichOneof("body")
            if attempt == 0:  # the first frame says who this is
                attempt, opened = header.attempt, body
                if body not in ("restore", "join", "survey", "follow"):
                    raise FrameError(f"a stream begins with Join, Survey, Restore or Follow, not with {body}")
                if body in ("join", "follow") and self._lanes is not None:
                    session.offer_lane(self._lanes)
                if body == "join":
                    await self._reached(attempt)
            if header.attempt < self._promised or header.attempt != attempt:
                session.refuse(self._promised, Refusal.STALE_ATTEMPT, reason=f"this is attempt {self._promised}")
                await session.drain(GRACE_S)
                return
            match body:
                case "survey":
                    self._promised = attempt
                    session.send(Header(attempt=attempt, holding=self._holding()))
                    continue
                case "restore" if opened in ("survey", "restore"):
                    await self._restore(attempt, header.restore)
                case "follow":
                    self._promised = attempt
                    following = self._following(header.follow)
                    session.send(Header(attempt=attempt, holding=self._holding()))
                    continue
                case "state" | "apply" if following is not None:
                    self._follow(session, following, header, payload)
                    continue
            if header.attempt != self._attempt or attempt != self._attempt:
                session.refuse(self._attempt, Refusal.STALE_ATTEMPT, reason=f"this is attempt {self._attempt}")
                await session.drain(GRACE_S)
                return
            match body:
                case "push":
                    self._pushed(session, header.push, payload)
                case "want":
                    self._outbox.want(session, header.want.version, self._held, again=True)
                case "lease_request" if self._keeper is not None:
                    self._keeper.lease_wanted(session.peer, header.lease_request.done)
                case "renew" if self._keeper is not None:
                    self._keeper.renewed(session.peer)
                case "scores" if self._keeper is not None:
                    self._keeper.scored(session.peer, header.scores)
                case "join":
                    session.peer = header.join.task_id
                    if self._pool is not None:
                        session.reciprocate(self._pool)
                    if self._keeper is not None:
                        self._keeper.joined(session.peer, session, header.join)
                case "restore" if opened in ("survey", "restore") and self._keeper is None:
                    self._book_session = session
                    through, ahead = self._held.applied
                    version = through if self._replication.safe(through) else max(self._told, 0)
                    session.send(Header(attempt=attempt, restored=Restored(version=version, ahead=ahead)))
                    self._shared = 0  # what was said before may be lost
                    self._advance()
                case "commit" | "rates" | "totals" if session is not self._book_session:
                    raise FrameError(f"{body} from somebody who does not keep the book")
                case "commit":
                    self._committed(header.commit)
                case "rates":
                    self._rates_told(header.rates)
                case "totals":
                    self._totalled(header.totals)
                case other:
                    raise FrameError(f"unexpected {other}")
            del header, payload  # of which nothing is to be kept in memory until the next frame comes

    @property
    def _held(self) -> ParameterSlice:
        if self._slice is None:
            raise FrameError("this server holds no slice yet")
        return self._slice

    async def _reached(self, attempt: int) -> None:
        """Waits until this server serves the attempt (or a later one)."""
        async with self._attempt_reached:
            await self._attempt_reached.wait_for(lambda: self._attempt >= attempt)

    # --- the slice --------------------------------------------------------------------------------------------------

    def _holding(self) -> Holding:
        """What this server could go on with."""
        if self._slice is None or not self._job.sync.synchronous:
            return Holding()
        index, servers = self._place
        totals = totals_message(self._slice)
        return Holding(index=index, servers=servers, version=self._slice.version, totals=totals)

    def _marked(self) -> Bookmark | None:
        """Where the lease book is, for whoever may have to go on with it; None on a server that does not keep it."""
        mark = self._keeper.bookmark if self._keeper is not None else None
        if mark is None:
            mark = self._bookmark
        if mark is None or self._slice is None:
            return None
        mark.step = self._slice.version
        if self._slice.reduced is not None:
            value = self._slice.reduced
            mark.loss, mark.samples, mark.digest = value.loss, value.samples, value.digest
        return mark

    async def _restore(self, attempt: int, order: Restore) -> None:
        async with self._restoring:
            self._promised = max(self._promised, attempt)
            if attempt <= self._attempt:
                return
            job = self._job
            if not order.keep:
                begin, end = slice_bounds(job.parameters, order.servers, order.index)
                loaded = await asyncio.to_thread(self._load, order.checkpoint, begin, end)
                if attempt < self._promised:
                    return
                self._slice, self._place = loaded, (order.index, order.servers)
            held = self._held
            self._shared = 0
            self._told = held.version - 1
            self._attempt = attempt
            self._outbox.restart(attempt, order.keep)
            self._parts = {}
            if order.index != 0 and self._keeping is not None:
                self._keeping.cancel()
                self._keeper = None
            async with self._attempt_reached:
                self._attempt_reached.notify_all()
            how = "goes on" if order.keep else "begins"
            place = f"elements {held.begin} to {held.end}"
            logger.info("attempt %d: %s, %s at version %d", attempt, place, how, held.version)

    def _load(self, url: str, begin: int, end: int) -> ParameterSlice:
        job = self._job
        update = ParameterUpdate(job.layout, job.spec.optimizer, job.spec.clip, begin, end)
        if not url:
            parameters = np.array(job.initial_parameters()[begin:end], dtype=np.float32)
            return self._new_slice(begin, end, 0, parameters, update)
        manifest = checkpoint.read_manifest(url)
        checkpoint.check(url, manifest, job.fingerprint, job.parameters, job.training_constants)
        state = checkpoint.load_slice(url, manifest, begin, end)
        parameters = state.pop(checkpoint.PARAMETERS)
        if set(state) != set(update.state) or dict(manifest.optimizers) != job.optimizer_kinds:
            raise InputError(
                f"checkpoint {url} was written with another optimizer ({_shown(dict(manifest.optimizers))}, its "
                f"arrays are {sorted(state)}): resume with the same one, or name another checkpoint directory"
            )
        update.state = state
        update.memory = json.loads(manifest.memory)
        return self._new_slice(begin, end, manifest.step, parameters, update)

    def _new_slice(
        self, begin: int, end: int, version: int, parameters: Vector, update: ParameterUpdate
    ) -> ParameterSlice:
        job = self._job
        arguments = (begin, end, version, parameters, update, job.plan, job.told_rates, job.rounding)
        if job.sync.synchronous:
            return ParameterSlice(*arguments)
        return ArrivalSlice(*arguments, staleness=job.sync.staleness)

    def _pushed(self, session: Session, push: Push, payload: memoryview) -> None:
        held, node = self._held, Node(push.level, push.index)
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
            self._outbox.want(session, push.want, held)
        del payload
        self._advance()

    def _decoded(self, push: Push, payload: memoryview) -> Vector:
        """The gradient of a frame: of any whole pieces, or of one piece if the job compresses."""
        held, codec = self._held, self._job.codec
        begin = held.begin + push.offset // 4
        size = len(payload) // 4 if codec.plain else min(PIECE, held.end - begin)
        try:
            return codec.decode(payload, begin, begin + size)
        except ValueError as error:
            raise FrameError(f"{len(payload)} of {push.bytes} bytes at {push.offset}: {error}") from None

    def _node_ended(self, session: Session, push: Push, node: Node, verdict: Verdict) -> None:
        if verdict is Verdict.STALE:
            session.refuse(self._attempt, Refusal.STALE_STEP, push.step)
        if self._keeper is None:
            return
        self._keeper.timed(session.peer, push.times)
        # Even if stale here: it may have been pushed again for another server's sake.
        self._keeper.pushed(session.peer, push.step, node)
        if push.lease:
            self._keeper.lease_wanted(session.peer)

    def _committed(self, order: Commit) -> None:
        held = self._held
        held.commit(order.step)
        self._outbox.committed(order.step)
        if order.checkpoint:
            self._write_part(held, order)
        self._advance()

    def _write_part(self, held: ParameterSlice, order: Commit) -> None:
        """Has the slice written; if that was ordered before, says again what came of it, if anything has yet."""
        part = self._parts.get(order.step)
        if part is not None:
            self._tell_part(part)
        elif order.step not in self._parts and held.version == order.step:
            self._parts = {step: kept for step, kept in self._parts.items() if step > order.step - KEPT_PARTS}
            self._parts[order.step] = None
            written = self._checkpointing.write(held, order.checkpoint)
            self._spawn(self._tell_written(order.step, written, json.dumps(held.update.memory), self._attempt))

    def _rates_told(self, rates: Rates) -> None:
        self._held.rates_known(rates.step, list(rates.rates))
        self._advance()

    def _totalled(self, totals: Totals) -> None:
        self._held.total(totals.step, list(totals.totals), totals.loss)
        self._advance()

    async def _tell_written(
        self, step: int, written: "asyncio.Task[CheckpointPart]", memory: str, attempt: int
    ) -> None:
        file = await written
        if attempt != self._attempt:
            return
        part = self._parts[step] = Part(step=step, file=file, memory=memory)
        self._tell_part(part)

    def _tell_part(self, part: Part) -> None:
        if self._keeper is not None:
            self._keeper.part_written(0, part)
        elif self._book_session is not None:
            self._book_session.send(Header(attempt=self._attempt, part=part))

    def _advance(self) -> None:
        held = self._held
        while True:
            self._share()
            if held.can_apply():
                self._outbox.keep(held)
                self._outbox.add(held, held.version + 1, held.apply())
                self._replication.applied(held)
            if not held.advance():
                break
            if not held.size:
                self._outbox.add(held, held.version, [])
            self._replication.advanced(held)
            if not self._job.sync.synchronous:
                self._tell_arrived(held)
        if self._job.sync.synchronous:
            self._tell_prepared()

    def _tell_arrived(self, held: ParameterSlice) -> None:
        """Tells the lease book of a step that was applied when it arrived; there is no replica to be waited for."""
        if self._keeper is None and self._book_session is not None:
            self._book_session.send(Header(attempt=self._attempt, prepared=Prepared(step=held.finished)))
        elif self._keeper is not None and held.reduced is not None:
            value = held.reduced
            self._keeper.prepared(held.finished, value.loss, value.samples, value.digest)
        self._outbox.committed(held.version)  # only the newest version is ever wanted

    def _tell_prepared(self) -> None:
        """Tells the lease book of a new version, once the replica has it."""
        held = self._held
        if held.version <= self._told or not self._replication.safe(held.version):
            return
        if self._keeper is not None and (mark := self._marked()) is not None:
            self._told = held.version
            self._keeper.prepared(held.version, mark.loss, mark.samples, mark.digest)
        elif self._keeper is None and self._book_session is not None:
            self._told = held.version
            self._book_session.send(Header(attempt=self._attempt, prepared=Prepared(step=held.version)))

    def _tell_again(self) -> None:
        """The book goes on with what the servers held, and does not know yet what this one has."""
        self._told = self._held.version - 1
        self._shared = 0
        self._advance()

    def _moved(self) -> None:
        """Replication has got further."""
        if self._slice is not None and self._attempt:
            self._advance()

    # --- as a replica -----------------------------------------------------------------------------------------------

    def _following(self, follow: Follow) -> Replica:
        place = (follow.index, follow.servers)
        if self._place != place:
            self._slice, self._place, self._bookmark = None, place, None
        return Replica(self._job, follow, self._slice, self._bookmark)

    def _follow(self, session: Session, replica: Replica, header: Header, payload: memoryview) -> None:
        """Takes a frame of the server that this is the replica of."""
        if header.WhichOneof("body") == "state":
            done = replica.take_state(header.state, payload)
            if done:
                self._outbox.restart(header.attempt)
        else:
            if header.apply.last and replica.held is not None:
                self._outbox.keep(replica.held)  # should the server be lost now, others may still be at that version
            done = replica.take_step(header.apply, payload)
            if done:
                self._outbox.committed(header.apply.step - 1)
        if done and replica.held is not None:
            self._slice, self._bookmark = replica.held, replica.bookmark
            session.send(Header(attempt=header.attempt, applied=Applied(version=replica.held.version)))

    def _share(self) -> None:
        """Says this slice's share of the next step's sums, once it is known."""
        held = self._held
        step, share = held.version + 1, held.share()
        if share is None or self._shared == step or (complete := held.complete) is None:
            return
        if self._keeper is not None:
            self._shared = step
            self._keeper.shared(0, step, share, complete.loss / complete.samples)
        elif self._book_session is not None:
            self._shared = step
            message = Share(step=step, sums=[encoded(value) for value in share])
            self._book_session.send(Header(attempt=self._attempt, share=message))

    def _weights(self) -> bytes:
        return self._held.parameters.tobytes()


def _shown(kinds: Mapping[str, str]) -> str:
    return ", ".join(f"{prefix}: {kind}" if prefix else kind for prefix, kind in kinds.items())
