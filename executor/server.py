"""The parameter server: serves its slice to workers, to the lease book's server and, as a replica, to its server.

The server of index 0 also runs the book keeper. All state is touched from the event loop only.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import grpc.aio

from executor.book_keeper import BookKeeper
from executor.connection import authenticate
from executor.data_lane import LaneListener
from executor.job import LoadedJob
from executor.recent_reports import Unacknowledged, nothing
from executor.replica import Replica
from executor.served_slice import ServedSlice
from executor.session import Session, SessionClosed
from executor.shared_memory import SHARING_WAYS, SharedPool, way
from proto import control_pb2 as control
from proto.exchange_pb2 import Header, Refusal, Restore
from proto.frames import EXCHANGE_METHOD, FrameError, grpc_options

GRACE_S = 0.5
SHARED_BYTES = 512 << 20  # of parameters that workers of this host read where they lie; used as far as needed

logger = logging.getLogger(__name__)


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
        self._sessions: set[Session] = set()
        self._pool = SharedPool(SHARED_BYTES) if way() in SHARING_WAYS else None
        self._slice = ServedSlice(job, secret, tell_driver, self._spawn, self._pool)
        self._book = self._slice.book
        self._keeping: asyncio.Task[None] | None = None
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
            self._slice.replication.stop()
            if self._lanes is not None:
                self._lanes.close()
            for session in list(self._sessions):
                session.abort()
            await self._grpc.stop(GRACE_S)

    def joined(self, membership: control.Membership) -> None:
        """The driver says who serves."""
        mine = next((s for s in membership.servers if s.task_id == self._task_id), None)
        if mine is None or membership.attempt < self._slice.promised:
            return
        keeper = self._book.keeper
        if mine.index == 0 and (keeper is None or keeper.attempt < membership.attempt):
            self._keep_book(membership)
        self._slice.replication.named(mine, len(membership.servers), membership.attempt)

    def _keep_book(self, membership: control.Membership) -> None:
        held = self._slice
        held.keep_mark()
        held.promised = membership.attempt
        if self._keeping is not None:
            self._keeping.cancel()
        keeper = self._book.keeper = BookKeeper(
            self._job, membership, self._secret, self._tell_driver,
            holding=held.holding,
            bookmark=held.marked,
            restore=lambda order: self._restore(membership.attempt, order),
            begun=held.tell_again,
            committed=held.committed,
            rates=held.rates_told,
            totals=held.totalled,
            weights=held.weights,
            unacknowledged=self._unacknowledged,
        )
        self._keeping = self._spawn(keeper.run())

    @property
    def keeps_book(self) -> bool:
        """Whether the job's end is for this server to announce."""
        return self._book.keeper is not None

    @property
    def over(self) -> bool:
        """Whether it has announced it."""
        return self._book.keeper is not None and self._book.keeper.over

    def stop(self, stop: control.Stop) -> None:
        """The driver wants the job to end."""
        if self._book.keeper is not None:
            self._book.keeper.stop(stop)

    def pause(self, pause: control.Pause) -> None:
        """The driver wants the servers to stop between two steps, all with one version."""
        keeper = self._book.keeper
        if keeper is not None and keeper.attempt == pause.attempt:
            keeper.pause()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
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
            session.refuse(self._slice.attempt, Refusal.MALFORMED, reason=str(error))
            await session.drain(GRACE_S)
        except Exception as error:  # noqa: BLE001 - gRPC would only log it; it is this server that has failed
            if not self._failed.done():
                self._failed.set_exception(error)
        finally:
            self._sessions.discard(session)
            self._slice.outbox.forget(session)
            if self._book.session is session:
                self._book.session = None
            if self._book.keeper is not None:
                self._book.keeper.left(session.peer, session)
            session.closed = True
            session.stop_writer()

    async def _converse(self, session: Session) -> None:
        held, book = self._slice, self._book
        following: Replica | None = None
        attempt, opened = 0, ""
        async for header, payload in session.frames():
            body = header.WhichOneof("body")
            if attempt == 0:  # the first frame says who this is
                attempt, opened = header.attempt, body
                if body not in ("restore", "join", "survey", "follow", "fetch"):
                    raise FrameError(f"a stream begins with Join, Survey, Restore, Follow or Fetch, not with {body}")
                if body in ("restore", "survey", "follow") and header.to != self._task_id:
                    session.refuse(attempt, Refusal.STALE_ATTEMPT, reason=f"this is {self._task_id}, not {header.to}")
                    await session.drain(GRACE_S)
                    return
                if body in ("join", "follow", "fetch") and self._lanes is not None:
                    session.offer_lane(self._lanes)
                if body == "join":
                    await held.reached(attempt)
            if header.attempt < held.promised or header.attempt != attempt:
                session.refuse(held.promised, Refusal.STALE_ATTEMPT, reason=f"this is attempt {held.promised}")
                await session.drain(GRACE_S)
                return
            match body:
                case "survey":
                    held.promised = attempt
                    session.send(Header(attempt=attempt, holding=held.holding()))
                    continue
                case "restore" if opened in ("survey", "restore"):
                    await self._restore(attempt, header.restore)
                case "follow":
                    held.promised = attempt
                    following = held.following(header.follow)
                    session.send(Header(attempt=attempt, holding=held.holding()))
                    continue
                case "fetch" if opened == "fetch":
                    await held.give(session, attempt, header.fetch)
                    continue
                case "state" | "apply" if following is not None:
                    held.follow(session, following, header, payload)
                    continue
            if header.attempt != held.attempt or attempt != held.attempt:
                session.refuse(held.attempt, Refusal.STALE_ATTEMPT, reason=f"this is attempt {held.attempt}")
                await session.drain(GRACE_S)
                return
            match body:
                case "push":
                    held.pushed(session, header.push, payload)
                case "want" if session is book.session:
                    held.send_weights(session)
                case "want":
                    held.outbox.want(session, header.want.version, held.held, again=True)
                case "lease_request" if book.keeper is not None:
                    book.keeper.lease_wanted(session.peer, header.lease_request)
                case "renew" if book.keeper is not None:
                    book.keeper.renewed(session.peer)
                case "scores" if book.keeper is not None:
                    book.keeper.scored(session.peer, header.scores)
                case "join":
                    session.peer = header.join.task_id
                    if self._pool is not None:
                        session.reciprocate(self._pool)
                    if book.keeper is not None:
                        book.keeper.joined(session.peer, session, header.join)
                case "restore" if opened in ("survey", "restore") and book.keeper is None:
                    held.asked_by_book(session)
                case "commit" | "rates" | "totals" if session is not book.session:
                    raise FrameError(f"{body} from somebody who does not keep the book")
                case "commit":
                    held.committed(header.commit)
                case "rates":
                    held.rates_told(header.rates)
                case "totals":
                    held.totalled(header.totals)
                case other:
                    raise FrameError(f"unexpected {other}")
            del header, payload  # of which nothing is to be kept in memory until the next frame comes

    async def _restore(self, attempt: int, order: Restore) -> None:
        if await self._slice.restore(attempt, order) and order.index != 0 and self._keeping is not None:
            self._keeping.cancel()
            self._book.keeper = None
