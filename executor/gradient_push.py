"""The gradient of a leased block on its way to the servers, which begins while its backward pass still runs."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from compute.compression.codec import Buffer, Vector
from executor.pieces import PIECE, Readiness, runs
from executor.session import Session
from executor.shared_memory import SharedPool
from proto.exchange_pb2 import Grant, Header, Push

SHARED_FROM_BYTES = 128 << 10
"""Less than that goes over the socket: saying where it lies, and that it was read, costs more than to copy it."""

LONGEST_RUN = 8
"""Pieces that one frame may carry whose payload lies in shared memory: a server works on the first meanwhile."""


class GradientPush:
    """Pushes every piece once it is known, to the server that holds it. Of the event loop's thread.

    What is pushed over sockets is read from the gradient's memory when its turn comes: it must not change before
    Session.flushed.
    """

    def __init__(
        self,
        grant: Grant,
        attempt: int,
        sessions: list[Session],
        bounds: list[tuple[int, int]],
        pool: SharedPool | None,
        encode: Callable[[Vector, int], Buffer] | None = None,
        versions: Sequence[int] = (),
    ) -> None:
        """
        Args:
            grant: the lease.
            attempt: of the membership.
            sessions: one to each server.
            bounds: [begin, end) of each server's slice, in elements.
            pool: memory to share with servers of this host.
            encode: bytes of a piece that begins at an element of the flat vector; None: they are the piece's own.
            versions: asynchronous: of each slice, what the gradient is computed with.
        """
        self._grant = grant
        self._attempt = attempt
        self._sessions = sessions
        self._bounds = bounds
        self._pool = pool if encode is None else None
        self._encode = encode
        self._versions = versions
        self._ready = [Readiness(end - begin) for begin, end in bounds]
        self._kept_back: list[NDArray[np.float32] | None] = [None] * len(sessions)

    def final(self, vector: NDArray[np.float32], begin: int, end: int) -> None:
        """Elements [begin, end) of the flat vector have their values."""
        for server, (first, last) in enumerate(self._bounds):
            if begin >= last or end <= first:
                continue
            ready = self._ready[server]
            for run in runs(ready.known(max(begin, first) - first, min(end, last) - first), LONGEST_RUN):
                if last - first <= PIECE:
                    # The only piece of a slice waits for what ends the node, to travel in one frame with it. More
                    # would be missed by the others' pieces: none of them is applied and sent back before all are there.
                    self._kept_back[server] = vector
                else:
                    self._send(server, vector, run, None)

    def finish(self, ending: Push) -> None:
        """All is known: `ending` holds what the lease book wants to hear."""
        for server in range(len(self._sessions)):
            kept = self._kept_back[server]
            end = Push(last=True)
            if server == 0:
                end.MergeFrom(ending)
            if kept is None:
                self._sessions[server].send(self._header(server, 0, end), beside=True)
            else:
                self._send(server, kept, range(1), end)

    def _send(self, server: int, vector: NDArray[np.float32], run: range, end: Push | None) -> None:
        session, (first, last) = self._sessions[server], self._bounds[server]
        begin = run.start * PIECE
        data = vector[first + begin : min(first + run.stop * PIECE, last)].data.cast("B")
        large = len(data) >= SHARED_FROM_BYTES
        block = self._pool.take(len(data)) if self._pool is not None and large and session.shares() else None
        if block is not None:
            block.data[:] = data
            session.send_block(self._header(server, begin, end), block, 0, len(data))
            block.drop()
            return
        for index in run:
            offset = 4 * (index * PIECE - begin)
            piece = data[offset : offset + 4 * PIECE]
            if self._encode is not None:
                values = vector[first + index * PIECE : min(first + (index + 1) * PIECE, last)]
                piece = memoryview(self._encode(values, first + index * PIECE))
            session.send_tensor(self._header(server, index * PIECE, end if index == run[-1] else None), piece)

    def _header(self, server: int, begin: int, end: Push | None) -> Header:
        grant, (first, last) = self._grant, self._bounds[server]
        push = Push(
            step=grant.step, level=grant.level, index=grant.index, offset=4 * begin, bytes=4 * (last - first),
            want=0 if self._versions else grant.step,
        )  # fmt: skip
        if self._versions:
            push.version = self._versions[server]
        if end is not None:
            push.MergeFrom(end)
        return Header(attempt=self._attempt, push=push)
