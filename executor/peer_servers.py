"""The other servers of a job, as the one that keeps the lease book sees them: one stream to each, for an attempt."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from executor.connection import Connection
from executor.pieces import piece_count
from executor.session import Session, SessionClosed
from proto import control_pb2 as control
from proto.exchange_pb2 import Header, Holding, Restore, Survey, Want
from proto.frames import FrameError

RECONNECT_S = 0.3

logger = logging.getLogger(__name__)


class PeerServer:
    """What one of them has said so far."""

    def __init__(self, server: control.Server) -> None:
        self.index = server.index
        self.task_id = server.task_id
        self.holding: Holding | None = None  # what it had when this attempt began
        self.address = server.address
        self.version = 0  # what it has applied, as far as it said so
        self.session: Session | None = None
        self.restored = False
        self.weights: bytearray | None = None
        self._arriving: tuple[bytearray, set[int]] = (bytearray(), set())

    def take_weights(self, offset: int, size: int, payload: memoryview) -> None:
        """Takes a frame of the final weights."""
        data, offsets = self._arriving
        if len(data) != size:
            data, offsets = self._arriving = (bytearray(size), set())
        if offset + len(payload) > size:
            raise FrameError(f"{len(payload)} bytes at {offset} of {size}")
        data[offset : offset + len(payload)] = payload
        offsets.add(offset)
        if len(offsets) >= piece_count(size // 4):
            self.weights = data


class PeerServers:
    """See the module.

    Attributes:
        members: those that serve in this attempt.
        leaving: those that served in the attempt before and do not any more; they are only asked what they hold.
    """

    def __init__(
        self,
        attempt: int,
        secret: str,
        members: Iterable[control.Server],
        leaving: Iterable[control.Server],
        take: Callable[[PeerServer, Session, Header], None],
    ) -> None:
        """
        Args:
            take: gets what members say of steps and checkpoints, and each Restored, after a lost connection too.
        """
        self.members = [PeerServer(server) for server in members]
        self.leaving = [PeerServer(server) for server in leaving]
        self._attempt = attempt
        self._secret = secret
        self._take = take
        self._order: Callable[[int], Restore] | None = None  # what a member is to begin with, by its index
        self._wanted: int | None = None  # version whose weights are wanted
        self._news = asyncio.Event()

    async def keep(self) -> None:
        """Keeps the connections, until cancelled."""
        await asyncio.gather(*(self._keep(peer) for peer in [*self.members, *self.leaving]))

    async def surveyed(self) -> None:
        """Waits until all have said what they hold."""
        await self._until(lambda: all(peer.holding is not None for peer in [*self.members, *self.leaving]))

    def begin(self, order: Callable[[int], Restore]) -> None:
        """Tells all members what to begin with."""
        self._order = order
        self.ask_again()

    def ask_again(self) -> None:
        """Has each member answer as if the connection to it had been lost."""
        for peer in self.members:
            if peer.session is not None:
                self._send_restore(peer, peer.session)

    async def restored(self) -> None:
        """Waits until all members have begun."""
        await self._until(lambda: all(peer.restored for peer in self.members))

    def tell(self, header: Header) -> None:
        """Sends this to all members that are connected."""
        for peer in self.members:
            if peer.session is not None:
                own = Header()
                own.CopyFrom(header)  # what is sent is completed for each stream
                peer.session.send(own)

    async def weights(self, version: int) -> list[bytearray]:
        """Each member's parameters of this version, float32, by index."""
        self._wanted = version
        self.tell(self._want(version))
        await self._until(lambda: all(peer.weights is not None for peer in self.members))
        return [peer.weights for peer in self.members if peer.weights is not None]

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._news.clear()
            await self._news.wait()

    def _want(self, version: int) -> Header:
        return Header(attempt=self._attempt, want=Want(version=version))

    def _send_restore(self, peer: PeerServer, session: Session) -> None:
        if self._order is not None:
            session.send(Header(attempt=self._attempt, to=peer.task_id, restore=self._order(peer.index)))

    async def _keep(self, peer: PeerServer) -> None:
        while True:
            try:
                async with Connection(peer.address, self._secret, f"server {peer.index}") as session:
                    peer.session = session
                    if self._order is None or peer in self.leaving:
                        session.send(Header(attempt=self._attempt, to=peer.task_id, survey=Survey()))
                    else:
                        self._send_restore(peer, session)
                    await self._read(peer, session)
            except (SessionClosed, FrameError) as error:
                logger.info("server %d: %s", peer.index, error)
            finally:
                peer.session = None
            if self._order is not None and peer in self.leaving:
                return
            await asyncio.sleep(RECONNECT_S)

    async def _read(self, peer: PeerServer, session: Session) -> None:
        async for header, payload in session.frames():
            match header.WhichOneof("body"):
                case "holding":
                    peer.holding = header.holding
                case "parameters":
                    peer.take_weights(header.parameters.offset, header.parameters.bytes, payload)
                case "restored":
                    peer.restored, peer.version = True, header.restored.version
                    self._take(peer, session, header)
                    if self._wanted is not None:
                        session.send(self._want(self._wanted))
                case "prepared":
                    peer.version = header.prepared.step
                    self._take(peer, session, header)
                case "part" | "share":
                    self._take(peer, session, header)
                case "refusal":
                    raise SessionClosed(header.refusal.reason)
                case other:
                    raise FrameError(f"sent {other}")
            self._news.set()
