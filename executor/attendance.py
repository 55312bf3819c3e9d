"""The connections of a worker to all servers of one attempt, and what goes over them."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from compute import InputError
from compute.compression.codec import Buffer, Vector
from executor.connection import CONNECT_TIMEOUT_S, Connection
from executor.gradient_push import GradientPush
from executor.job import LoadedJob
from executor.lease_computer import LeaseComputer, LeaseRevoked
from executor.parameter_gate import ParameterGate, ParametersGone
from executor.parameter_inbox import ParameterInbox
from executor.pieces import PIECE
from executor.session import Session, SessionClosed
from executor.shared_memory import SHARING_WAYS, SharedPool
from executor.step_plan import slice_bounds
from proto import control_pb2 as control
from proto.exchange_pb2 import (
    Grant,
    Header,
    LeaseRequest,
    MetricSums,
    Parameters,
    Push,
    Refusal,
    Renew,
    Scores,
    Times,
    Want,
)
from proto.frames import FrameError

MAX_SHARED_BYTES = 512 << 20
SHARED_GRADIENTS = 2  # of which so many fit into the memory that servers of this host read

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class Attendant(Protocol):
    """What an attendance needs of its worker."""

    @property
    def job(self) -> LoadedJob:
        """What is trained."""

    @property
    def computer(self) -> LeaseComputer:
        """What computes; its methods are called by `compute`, but for load_pieces while it does not compute."""

    @property
    def is_computing(self) -> bool:
        """Whether the computing thread uses the parameters."""

    @property
    def way(self) -> str:
        """How tensors are to travel (executor.shared_memory)."""

    computed: Grant
    """The last whose gradient was computed, or is: of whatever attempt."""

    @property
    def encode(self) -> Callable[[Vector, int], Buffer] | None:
        """Bytes of a part of a gradient that begins at an element of the flat vector; None: as it is."""

    def join(self, attempt: int) -> Header:
        """First frame to every server."""

    def connect(self, server: control.Server) -> Connection:
        """To one of the servers."""

    async def compute(self, call: Callable[..., Result], *args: Any) -> Result:
        """Calls a method of the lease computer in the computing thread."""


class Attendance:
    """See the module."""

    def __init__(self, worker: Attendant, membership: control.Membership) -> None:
        self._worker = worker
        self._attempt = membership.attempt
        self._servers = list(membership.servers)
        parameters = worker.job.parameters
        self._bounds = [slice_bounds(parameters, len(self._servers), k) for k in range(len(self._servers))]
        size = min(SHARED_GRADIENTS * 4 * parameters, MAX_SHARED_BYTES)
        self._pool = SharedPool(size) if worker.way in SHARING_WAYS else None
        self._codec = worker.job.parameter_codec
        self._inbox = ParameterInbox(self._bounds)
        self._gate: ParameterGate | None = None  # for a lease that begins before all of its parameters are there
        self._in_hand = False  # the parameters of a lease are all there, and it has not been computed yet
        self._loaded = False  # something was, that the computer does not use yet
        self._sessions: list[Session] = []
        self._grants: asyncio.Queue[Grant] = asyncio.Queue()
        self._granted: Grant | None = None  # the last that came
        self._revoked: Grant | None = None
        self._arrived = asyncio.Event()
        self._renewed = 0.0
        self._clock = _Clock(worker.computer)

    async def run(self) -> None:
        """Until a connection ends.

        Raises:
            SessionClosed: a connection broke or could not be made.
            FrameError: a server does not speak the protocol.
            InputError: memory must be shared with a server, and cannot be.
        """
        async with AsyncExitStack() as stack:
            for server in self._servers:
                self._sessions.append(await stack.enter_async_context(self._worker.connect(server)))
            for k, session in enumerate(self._sessions):
                session.channel.place = partial(self._place, k)
                session.send(self._worker.join(self._attempt))
                if self._pool is not None:
                    session.offer(self._pool)
            tasks = [asyncio.create_task(self._read(k)) for k in range(len(self._sessions))]
            tasks.append(asyncio.create_task(self._work()))
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _request_lease(self, done: int = 0, computed_s: float = 0.0) -> None:
        request = LeaseRequest(done=done, computed_s=computed_s)
        self._sessions[0].send(Header(attempt=self._attempt, lease_request=request))

    async def _read(self, server: int) -> None:
        async for header, payload in self._sessions[server].frames():
            match header.WhichOneof("body"):
                case "grant":
                    self._granted = header.grant
                    self._grants.put_nowait(header.grant)
                case "revoke":
                    self._revoked = self._granted
                case "parameters":
                    payload = self._decoded(server, header.parameters, payload)
                    home: object = self._worker.computer.parameters
                    placed = payload.obj is home
                    self._inbox.take(server, header.parameters, payload, placed)
                    self._loaded = self._loaded or placed
                    if self._gate is not None:
                        self._take_late(self._gate, server, header.parameters, len(payload), placed)
                    else:
                        self._load_unless_used()
                    self._arrived.set()
                case "refusal" if header.refusal.code == Refusal.STALE_STEP:
                    logger.info("step %d was done by another worker", header.refusal.step)
                case "refusal":
                    raise SessionClosed(f"server {server} refused: {header.refusal.reason}")
                case other:
                    raise FrameError(f"server {server} sent {other}")
            del header, payload  # of which nothing is to be kept in memory until the next frame comes

    def _place(self, server: int, header: Header, size: int) -> memoryview | None:
        """Parameters that nothing computes with, or not yet, are received where they belong."""
        if header.attempt != self._attempt or not header.HasField("parameters") or not self._codec.plain:
            return None
        if self._gate is None or header.parameters.version != self._gate.version:
            if self._in_use:
                return None
            self._load()  # what came before must not be written over it later
        begin = self._inbox.comes(server, header.parameters, size)
        return self._worker.computer.parameters.data.cast("B")[4 * begin : 4 * begin + size]

    def _decoded(self, server: int, message: Parameters, payload: memoryview) -> memoryview:
        """The parameters of a frame as float32: if the job compresses them, of one piece."""
        if self._codec.plain or not payload:
            return payload
        (begin, end), first = self._bounds[server], message.offset // 4
        try:
            values = self._codec.decode(payload, begin + first, min(begin + first + PIECE, end))
        except ValueError as error:
            raise FrameError(f"parameters at {message.offset}: {error}") from None
        return values.data.cast("B")

    @property
    def _in_use(self) -> bool:
        """Whether the parameters must not change: something is computed with them, or about to be."""
        return self._in_hand or self._worker.is_computing

    def _load_unless_used(self) -> None:
        if not self._in_use:
            self._load()

    def _load(self) -> None:
        """Moves what has arrived to where the computer has its parameters."""
        waiting = self._inbox.waiting
        if waiting:
            self._worker.computer.load_pieces(waiting)
            waiting.clear()
            self._loaded = True

    def _take_late(self, gate: ParameterGate, server: int, message: Parameters, size: int, placed: bool) -> None:
        """While a lease has a gate: moves what came last to its place, if it is of the lease's version or older."""
        begin, end = self._bounds[server]
        if message.version > gate.version:
            if gate.lacks(begin, end):
                gate.give_up()  # the server is past it
        elif size:
            if not placed:
                self._worker.computer.load_pieces([self._inbox.waiting.pop()])  # nobody reads there yet
                self._loaded = True
            if message.version == gate.version:
                first = begin + message.offset // 4
                gate.arrived(first, first + size // 4)

    async def _work(self) -> None:
        if self._worker.way == "shm":
            for session in self._sessions:
                if refused := await session.sharing_known(CONNECT_TIMEOUT_S):
                    raise InputError(
                        f"--exchange shm, but {session.peer} cannot share memory ({refused}): use auto or tcp"
                    )
        self._request_lease()
        while True:
            grant = await self._grants.get()
            self._renewed = time.monotonic()
            self._clock.granted()
            if not await self._obtain_for(grant):
                logger.info("step %d is past", grant.step)
                self._request_lease()
                continue
            try:
                await (self._train(grant) if grant.kind == Grant.TRAIN else self._score(grant))
            except (LeaseRevoked, ParametersGone) as revoked:
                self._in_hand = False
                logger.info("step %d was done by others: stopped %s", grant.step, revoked)
                computed_s = self._clock.computed()
                for k in range(len(self._sessions)):
                    self._inbox.will_come(k, -1)  # the push that should have asked for it was not sent to its end
                self._request_lease(revoked.done if isinstance(revoked, LeaseRevoked) else 0, computed_s)

    async def _score(self, grant: Grant) -> None:
        sums = await self._worker.compute(LeaseComputer.score, grant, self._progress(grant))
        self._in_hand = False
        self._load_unless_used()
        metrics = [MetricSums(values=values) for values in sums]
        scores = Scores(step=grant.step, index=grant.index, metrics=metrics, samples=grant.last - grant.first)
        self._sessions[0].send(Header(attempt=self._attempt, scores=scores))
        self._clock.pushed()

    async def _obtain_for(self, grant: Grant) -> bool:
        if grant.kind == Grant.VALIDATE:
            return await self._obtain(grant.step)
        if self._worker.job.sync.synchronous:
            return self._begin_early(grant.step - 1) or await self._obtain(grant.step - 1)
        await self._obtain_newest(grant.version)
        return True

    async def _obtain_newest(self, version: int) -> None:
        """Loads the newest parameters that the servers have, of `version` at the least."""
        self._inbox.ask_again(version)
        for session in self._sessions:
            session.send(Header(attempt=self._attempt, want=Want(version=version)))
        while not self._inbox.has_at_least(version):
            self._arrived.clear()
            await self._arrived.wait()
        self._load()
        self._loaded, self._in_hand = False, True
        await self._worker.compute(LeaseComputer.use_parameters)

    def _begin_early(self, version: int) -> bool:
        """Whether a lease may begin although not all of its parameters have come: they are all on their way."""
        if self._worker.is_computing or not self._inbox.on_the_way(version):
            return False
        self._load()
        self._in_hand = True
        self._gate = ParameterGate(version, self._inbox.lacking(version))
        return True

    async def _obtain(self, version: int) -> bool:
        """Loads the parameters of `version`; False when the servers are past it."""
        while True:
            for server in self._inbox.missing(version):
                self._sessions[server].send(Header(attempt=self._attempt, want=Want(version=version)))
            while not self._inbox.has(version):
                if self._inbox.is_past(version):
                    return False
                self._arrived.clear()
                await self._arrived.wait()
            if not self._worker.is_computing:
                break
            # It is a lease of the attempt before. Until that is done, pieces of the next version may come.
            await self._worker.compute(LeaseComputer.use_parameters)
        self._load()
        self._in_hand = True
        if self._loaded:
            self._loaded = False
            await self._worker.compute(LeaseComputer.use_parameters)
        return True

    async def _train(self, grant: Grant) -> None:
        for session in self._sessions:
            await session.flushed()  # of the last lease's gradient, whose memory is about to be overwritten
        self._clock.obtained()
        self._worker.computed = grant
        loop = asyncio.get_running_loop()
        synchronous = self._worker.job.sync.synchronous
        versions = () if synchronous else self._inbox.versions
        push = GradientPush(
            grant, self._attempt, self._sessions, self._bounds, self._pool, self._worker.encode, versions
        )

        def final(vector: NDArray[np.float32], begin: int, end: int) -> None:
            loop.call_soon_threadsafe(push.final, vector, begin, end)

        for k in range(len(self._sessions) if synchronous else 0):
            self._inbox.will_come(k, grant.step)
        gate = self._gate
        try:
            if gate is not None:
                self._loaded = False
                await self._worker.compute(LeaseComputer.use_parameters)
            needed = gate.needed if gate is not None else None
            value = await self._worker.compute(LeaseComputer.train, grant, self._progress(grant), final, needed)
        finally:
            if gate is not None:
                gate.give_up()  # or, if this attendance ends, the computing thread would wait for ever
                self._gate = None
        self._in_hand = False
        computed_s = self._clock.computed()
        ending = Push(lease=True, loss=value.loss, samples=value.samples, digest=value.digest, computed_s=computed_s)
        ending.times.CopyFrom(self._clock.report())
        push.finish(ending)
        self._load_unless_used()  # what came meanwhile
        for session in self._sessions:
            await session.flushed()
        self._clock.pushed()

    def _progress(self, grant: Grant) -> Callable[[], None]:
        loop = asyncio.get_running_loop()
        session = self._sessions[0]
        done = 0

        def progress() -> None:
            nonlocal done
            done += 1
            if self._revoked is grant:
                raise LeaseRevoked(done)
            now = time.monotonic()
            if now - self._renewed > grant.lease_s / 4:
                self._renewed = now
                header = Header(attempt=self._attempt, renew=Renew(step=grant.step))
                loop.call_soon_threadsafe(session.send, header)

        return progress


class _Clock:
    """Where the worker's time goes (exchange.proto, Times)."""

    def __init__(self, computer: LeaseComputer) -> None:
        self._computer = computer
        self._computer_s = (computer.data_s, computer.compute_s, computer.pull_s)
        self._since = time.monotonic()
        self._times = Times()

    def _lap(self) -> float:
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        return seconds

    def granted(self) -> None:
        """Until now it waited for a lease."""
        self._times.wait += self._lap()

    def obtained(self) -> None:
        """Until now, for parameters."""
        self._times.pull += self._lap()

    def computed(self) -> float:
        """Until now it computed; seconds of that, and of waiting for data."""
        computer, before = self._computer, self._computer_s
        self._computer_s = (computer.data_s, computer.compute_s, computer.pull_s)
        data, compute, pull = (now - then for now, then in zip(self._computer_s, before, strict=True))
        self._times.data += data
        self._times.compute += compute
        self._times.pull += pull
        self._times.wait += max(self._lap() - data - compute - pull, 0.0)
        return data + compute

    def pushed(self) -> None:
        """Until now it pushed."""
        self._times.push += self._lap()

    def report(self) -> Times:
        """What was spent since the last report."""
        times, self._times = self._times, Times()
        return times
