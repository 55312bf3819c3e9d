"""The connections of a worker to all servers of one attempt, and what goes over them."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from compute import InputError
from compute.compression.codec import Buffer, Vector
from executor.gradient_push import GradientPush
from executor.job import LoadedJob
from executor.lease_computer import LeaseComputer, LeaseRevoked
from executor.parameter_gate import ParameterGate, ParametersGone
from executor.parameter_inbox import ParameterInbox
from executor.session import CONNECT_TIMEOUT_S, Connection, Session, SessionClosed
from executor.shared_memory import SharedPool
from executor.step_plan import slice_bounds
from proto import control_pb2 as control
from proto.exchange_pb2 import Grant, Header, LeaseRequest, MetricSums, Push, Refusal, Renew, Scores, Times, Want
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
        self._pool = SharedPool(size) if worker.way != "tcp" else None
        self._inbox = ParameterInbox(self._bounds)
        self._gate: ParameterGate | None = None  # for a lease that begins before all of its parameters are there
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
            for session in self._sessions:
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
                    self._inbox.take(server, header.parameters, payload)
                    if self._gate is not None:
                        self._take_late(self._gate, server, header.parameters.version, len(payload))
                    elif not self._worker.is_computing:
                        self._load()
                    self._arrived.set()
                case "refusal" if header.refusal.code == Refusal.STALE_STEP:
                    logger.info("step %d was done by another worker", header.refusal.step)
                case "refusal":
                    raise SessionClosed(f"server {server} refused: {header.refusal.reason}")
                case other:
                    raise FrameError(f"server {server} sent {other}")
            del header, payload  # of which nothing is to be kept in memory until the next frame comes

    def _load(self) -> None:
        """Moves what has arrived to where the computer has its parameters."""
        waiting = self._inbox.waiting
        if waiting:
            self._worker.computer.load_pieces(waiting)
            waiting.clear()
            self._loaded = True

    def _take_late(self, gate: ParameterGate, server: int, version: int, size: int) -> None:
        """While a lease's gate is open: moves what came last to its place, if it is for this lease or older."""
        if version > gate.version:
            if gate.lacks(*self._bounds[server]):
                gate.give_up()  # the server is past it
        elif size:
            offset, data = self._inbox.waiting.pop()
            self._worker.computer.load_pieces([(offset, data)])  # where nobody reads before the gate says so
            self._loaded = True
            if version == gate.version:
                gate.arrived(offset, offset + size // 4)

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
                logger.info("step %d was done by others: stopped %s", grant.step, revoked)
                computed_s = self._clock.computed()
                for k in range(len(self._sessions)):
                    self._inbox.will_come(k, -1)  # the push that should have asked for it was not sent to its end
                self._request_lease(revoked.done if isinstance(revoked, LeaseRevoked) else 0, computed_s)

    async def _score(self, grant: Grant) -> None:
        sums = await self._worker.compute(LeaseComputer.score, grant, self._progress(grant))
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
        self._loaded = False
        await self._worker.compute(LeaseComputer.use_parameters)

    def _begin_early(self, version: int) -> bool:
        """Whether a lease may begin although not all of its parameters have come: they are all on their way."""
        if self._worker.is_computing or not self._inbox.comes(version):
            return False
        self._load()
        self._gate = ParameterGate(version, self._inbox.lacking(version))
        return True

    async def _obtain(self, version: int) -> bool:
        """Loads the parameters of `version`; False when the servers are past it."""
        for server in self._inbox.missing(version):
            self._sessions[server].send(Header(attempt=self._attempt, want=Want(version=version)))
        while not self._inbox.has(version):
            if self._inbox.is_past(version):
                return False
            self._arrived.clear()
            await self._arrived.wait()
        if self._worker.is_computing:  # a lease of the attempt before, with parameters that must not change meanwhile
            await self._worker.compute(LeaseComputer.use_parameters)
        self._load()
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
        computed_s = self._clock.computed()
        ending = Push(lease=True, loss=value.loss, samples=value.samples, digest=value.digest, computed_s=computed_s)
        ending.times.CopyFrom(self._clock.report())
        push.finish(ending)
        if not self._worker.is_computing:
            self._load()  # what came meanwhile
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
