"""A server's side of the connection to its replica.

The replica gets everything the server holds once, and from then on every step's reduced gradient, which it applies
itself: the same bits come out at half the bytes of parameters and momentum. Once it holds what the server holds, the
server acknowledges no step that the replica has not acknowledged, even while the connection is broken: until the driver
takes the replica out of the membership the replica may have taken the server's place.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable

import numpy as np

from executor.connection import Connection
from executor.parameter_slice import ParameterSlice
from executor.session import Session, SessionClosed
from proto import control_pb2 as control
from proto.exchange_pb2 import Apply, Bookmark, Follow, Header, Holding, State, Totals
from proto.frames import CHUNK_BYTES, Frame, FrameError, frame

RECONNECT_S = 0.3
PORTION_BYTES = 512 << 20  # of a state that are queued at once; less than session.MAX_QUEUED_BYTES

logger = logging.getLogger(__name__)


class Follower:
    """What a server knows of its replica. A pure state machine.

    absent --named--> behind --acknowledged what the server holds--> in step --another named, or none--> behind, absent
    """

    def __init__(self) -> None:
        self.task_id = ""
        self.in_step = False
        self._acknowledged = -1

    def named(self, task_id: str) -> bool:
        """The driver says who the replica is ("": nobody); True if that is news."""
        if task_id == self.task_id:
            return False
        self.task_id, self.in_step, self._acknowledged = task_id, False, -1
        return True

    def restarted(self) -> None:
        """Another attempt: what the replica has acknowledged counts no more."""
        self._acknowledged = -1

    def acknowledged(self, version: int, held: int) -> bool:
        """The replica holds a version, the server another or the same; True if it is in step from now on."""
        self._acknowledged = version
        if self.in_step or version != held:
            return False
        self.in_step = True
        return True

    def safe(self, version: int) -> bool:
        """Whether the version would outlive the server, as far as that is asked for."""
        return not self.in_step or self._acknowledged >= version


class Replication:
    """Keeps the replica up to date, if there is one. Lives in the event loop of its server."""

    def __init__(
        self,
        secret: str,
        tell_driver: Callable[[control.TaskMessage], None],
        held: Callable[[], ParameterSlice],
        bookmark: Callable[[], Bookmark | None],
        reached: Callable[[int], Awaitable[None]],
        moved: Callable[[], None],
    ) -> None:
        """
        Args:
            held: the server's slice.
            bookmark: what the replica must know of the lease book.
            reached: waits until the server holds its slice for an attempt.
            moved: called when a step may have become possible, or safe.
        """
        self._secret = secret
        self._tell_driver = tell_driver
        self._held = held
        self._bookmark = bookmark
        self._reached = reached
        self._moved = moved
        self._follower = Follower()
        self._session: Session | None = None  # of a replica that only needs what is applied from now on
        self._late: Session | None = None  # of one that is to get everything when the slice is whole again
        self._keeping: asyncio.Task[None] | None = None
        self._sending: asyncio.Task[None] | None = None
        self._attempt = 0
        self._servers = 0  # how many there are

    def named(self, server: control.Server, servers: int, attempt: int) -> None:
        """The driver says who the replica is, in which attempt."""
        if servers != self._servers:
            self._follower = Follower()  # what the replica has is of another slice
        self._servers = servers
        if not self._follower.named(server.replica_task_id) and attempt == self._attempt:
            if self._follower.in_step:
                self._tell_in_step()  # the driver may be another one than it was told
            return
        if attempt != self._attempt:
            self._follower.restarted()
        self._attempt = attempt
        self.stop()
        if self._follower.task_id:
            follow = Header(
                attempt=attempt, to=server.replica_task_id, follow=Follow(index=server.index, servers=servers)
            )
            self._keeping = asyncio.create_task(self._keep(server.replica_address, follow))
        self._moved()

    def stop(self) -> None:
        """Ends the connection."""
        self._session = self._late = None
        if self._keeping is not None:
            self._keeping.cancel()
            self._keeping = None

    def safe(self, version: int) -> bool:
        """Whether a version may be acknowledged."""
        return self._follower.safe(version)

    def applied(self, held: ParameterSlice) -> None:
        """The server has applied gradients of the next step, which are in `held.gradients`."""
        session, gradients = self._session, held.gradients
        if session is None or gradients is None:
            held.gradients = None
            return
        for first, gradient in gradients:
            data = gradient.data.cast("B")
            for begin in range(0, len(data), CHUNK_BYTES):
                step = Apply(step=held.version + 1, offset=4 * first + begin, bytes=4 * held.size)
                session.send(Header(attempt=self._attempt, apply=step), data[begin : begin + CHUNK_BYTES], beside=True)
        gradients.clear()

    def advanced(self, held: ParameterSlice) -> None:
        """The server has ended a step."""
        if self._session is not None:
            self._end_step(self._session, held)
        elif self._late is not None:
            held.hold()
            self._sending = asyncio.create_task(self._send_state(self._late, held))
            self._late = None

    async def _keep(self, address: str, follow: Header) -> None:
        await self._reached(follow.attempt)
        while True:
            try:
                async with Connection(address, self._secret, f"replica {self._follower.task_id}") as session:
                    session.send(follow)
                    await self._read(session)
            except (SessionClosed, FrameError) as error:
                logger.info("replica %s: %s", self._follower.task_id, error)
            finally:
                self._session = self._late = None
            await asyncio.sleep(RECONNECT_S)

    async def _read(self, session: Session) -> None:
        async for header, _ in session.frames():
            match header.WhichOneof("body"):
                case "holding":
                    await self._bring_up(session, header.holding)
                case "applied":
                    self._acknowledged(header.applied.version)
                case "refusal":
                    raise SessionClosed(header.refusal.reason)
                case other:
                    raise FrameError(f"sent {other}")

    async def _bring_up(self, session: Session, holding: Holding) -> None:
        held = self._held()
        if not held.whole:
            self._late = session
        elif holding.servers and holding.version == held.version:
            self._go_on(session, held)
            self._acknowledged(holding.version)
        else:
            held.hold()
            await self._send_state(session, held)

    def _go_on(self, session: Session, held: ParameterSlice) -> None:
        self._session = session
        held.gradients = []

    async def _send_state(self, session: Session, held: ParameterSlice) -> None:
        """Sends everything, and then releases the slice, which is held until all but the last portion has left."""
        try:
            frames = await asyncio.to_thread(self._state, held, self._bookmark())
            queued = 0
            for made in frames:
                queued += len(made.payload)
                if queued > PORTION_BYTES:  # a session that lets too much pile up is cut off
                    await session.flushed()
                    queued = len(made.payload)
                session.send_frames((made,))
            if not session.closed:
                self._go_on(session, held)
        finally:
            held.release()
            self._moved()

    def _acknowledged(self, version: int) -> None:
        if self._follower.acknowledged(version, self._held().version):
            self._tell_in_step()
        self._moved()

    def _tell_in_step(self) -> None:
        self._tell_driver(control.TaskMessage(replicated=control.Replicated(replica=self._follower.task_id)))

    def _end_step(self, session: Session, held: ParameterSlice) -> None:
        step = Apply(step=held.version, bytes=4 * held.size, last=True, rates=held.last_rates or ())
        totals, bookmark = totals_message(held), self._bookmark()
        if totals is not None:
            step.totals.CopyFrom(totals)
        if bookmark is not None:
            step.bookmark.CopyFrom(bookmark)
        session.send(Header(attempt=self._attempt, apply=step))

    def _state(self, held: ParameterSlice, bookmark: Bookmark | None) -> list[Frame]:
        arrays = [held.parameters, *held.update.state.values()]
        whole = np.concatenate(arrays).data.cast("B")
        first = State(version=held.version, arrays=list(held.update.state), memory=json.dumps(held.update.memory))
        totals = totals_message(held)
        if totals is not None:
            first.totals.CopyFrom(totals)
        if bookmark is not None:
            first.bookmark.CopyFrom(bookmark)
        frames = []
        for begin in range(0, max(len(whole), 1), CHUNK_BYTES):
            state = State(offset=begin, bytes=len(whole))
            if begin == 0:
                state.MergeFrom(first)
            frames.append(frame(Header(attempt=self._attempt, state=state), whole[begin : begin + CHUNK_BYTES]))
        return frames


def totals_message(held: ParameterSlice) -> Totals | None:
    """The last totals that a slice was told; None if it never was."""
    step, totals, loss = held.last_totals
    return Totals(step=step, totals=totals, loss=loss) if step else None
