"""The worker: leases blocks of micro-batches, computes their gradients, pushes them, and leases again."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, TypeVar

from executor.job import LoadedJob
from executor.lease_computer import LeaseComputer
from executor.reduction_tree import Partial
from executor.session import Connection, Session, SessionClosed
from executor.step_plan import slice_bounds
from proto import control_pb2 as control
from proto.exchange_pb2 import (
    Grant,
    Header,
    Join,
    LeaseRequest,
    MetricSums,
    Parameters,
    Push,
    Refusal,
    Renew,
    Scores,
    Want,
)
from proto.frames import Assembly, FrameError, chunked

RECONNECT_S = 0.3

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class _Inbox:
    """Parameters as they arrive from one server."""

    def __init__(self) -> None:
        self.version = -1
        self.wanted = -1
        self.data: bytes | bytearray | memoryview = b""
        self._assembly: Assembly | None = None

    def take(self, message: Parameters, payload: memoryview) -> bool:
        """Takes a frame; True when the slice is complete."""
        if len(payload) == message.bytes:
            self.data = payload  # one chunk: kept as it came
        else:
            if message.offset == 0:
                self._assembly = Assembly(message.bytes)
            if self._assembly is None:
                raise FrameError("parameters begin in the middle")
            if not self._assembly.add(message.offset, payload):
                return False
            self.data, self._assembly = self._assembly.data, None
        self.version = message.version
        return True


class Worker:
    """One worker of a job, for as long as its task lives."""

    def __init__(self, job: LoadedJob, task_id: str, secret: str, threads: int) -> None:
        self._job = job
        self._task_id = task_id
        self._secret = secret
        self._threads = threads
        # One thread computes; the event loop stays free for renewing the lease and for what arrives meanwhile.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._computer: LeaseComputer | None = None
        self._micro_batch_s = 0.0
        self.loaded = -1  # version of the parameters in the lease computer; of whatever attempt, for the bits are equal
        self.computed = Grant()  # the last whose gradient was computed, or is
        self._membership: control.Membership | None = None
        self._changed = asyncio.Event()

    def joined(self, membership: control.Membership) -> None:
        """The driver says who serves."""
        if self._membership is None or membership.attempt > self._membership.attempt:
            self._membership = membership
            self._changed.set()

    async def run(self) -> None:
        """Until cancelled. Raises whatever the user's code raises."""
        await self._in_pool(self._prepare)
        session: asyncio.Task[None] | None = None
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                if session is not None:
                    session.cancel()
                    await asyncio.gather(session, return_exceptions=True)
                if self._membership is not None:
                    session = asyncio.create_task(self._stay_connected(self._membership))
                    changed = asyncio.create_task(self._changed.wait())
                    await asyncio.wait([session, changed], return_when=asyncio.FIRST_COMPLETED)
                    changed.cancel()
                    if session.done():
                        session.result()  # only ever ends by an exception
        finally:
            if session is not None:
                session.cancel()
            self._pool.submit(self._end)  # after what it may still be computing

    def _end(self) -> None:
        if self._computer is not None:
            self._computer.close()

    def _prepare(self) -> None:
        begun = time.monotonic()
        self._computer = LeaseComputer(self._job, self._threads)
        self._micro_batch_s = self._computer.warm_up()
        logger.info("ready after %.2f s, a micro-batch takes %.4f s", time.monotonic() - begun, self._micro_batch_s)

    async def _in_pool(self, call: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    async def _stay_connected(self, membership: control.Membership) -> None:
        while True:
            try:
                await _Attendance(self, membership).run()
            except (SessionClosed, FrameError) as error:
                logger.info("attempt %d: %s", membership.attempt, error)
            await asyncio.sleep(RECONNECT_S)

    # What an attendance needs of its worker.

    @property
    def job(self) -> LoadedJob:
        """What is trained."""
        return self._job

    def join(self, attempt: int) -> Header:
        """First frame to every server."""
        join = Join(task_id=self._task_id, micro_batch_s=self._micro_batch_s)
        join.step, join.level, join.index = self.computed.step, self.computed.level, self.computed.index
        return Header(attempt=attempt, join=join)

    def connect(self, server: control.Server) -> Connection:
        """To one of the servers."""
        return Connection(server.address, self._secret, f"server {server.index}")

    async def compute(self, call: Callable[..., Result], *args: Any) -> Result:
        """Calls a method of the lease computer in the computing thread."""
        if self._computer is None:
            raise RuntimeError("the worker is not prepared")
        return await self._in_pool(partial(call, self._computer, *args))


class _Attendance:
    """The connections of a worker to all servers of one attempt, and what goes over them."""

    def __init__(self, worker: Worker, membership: control.Membership) -> None:
        self._worker = worker
        self._attempt = membership.attempt
        self._servers = list(membership.servers)
        parameters = worker.job.parameters
        self._bounds = [slice_bounds(parameters, len(self._servers), k) for k in range(len(self._servers))]
        self._inboxes = [_Inbox() for _ in self._servers]
        self._sessions: list[Session] = []
        self._grants: asyncio.Queue[Grant] = asyncio.Queue()
        self._arrived = asyncio.Event()
        self._renewed = 0.0

    async def run(self) -> None:
        """Until a connection ends.

        Raises:
            SessionClosed: a connection broke or could not be made.
            FrameError: a server does not speak the protocol.
        """
        async with AsyncExitStack() as stack:
            for server in self._servers:
                self._sessions.append(await stack.enter_async_context(self._worker.connect(server)))
            for session in self._sessions:
                session.send(self._worker.join(self._attempt))
            self._request_lease()
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

    def _request_lease(self) -> None:
        self._sessions[0].send(Header(attempt=self._attempt, lease_request=LeaseRequest()))

    async def _read(self, server: int) -> None:
        async for header, payload in self._sessions[server].frames():
            match header.WhichOneof("body"):
                case "grant":
                    self._grants.put_nowait(header.grant)
                case "parameters":
                    if self._inboxes[server].take(header.parameters, payload):
                        self._arrived.set()
                case "refusal" if header.refusal.code == Refusal.STALE_STEP:
                    logger.info("step %d was done by another worker", header.refusal.step)
                case "refusal":
                    raise SessionClosed(f"server {server} refused: {header.refusal.reason}")
                case other:
                    raise FrameError(f"server {server} sent {other}")

    async def _work(self) -> None:
        while True:
            grant = await self._grants.get()
            self._renewed = time.monotonic()
            version = grant.step - 1 if grant.kind == Grant.TRAIN else grant.step
            if not await self._obtain(version):
                logger.info("step %d is past", grant.step)
                self._request_lease()
            elif grant.kind == Grant.TRAIN:
                progress = self._progress(grant)
                self._worker.computed = grant
                self._push(grant, await self._worker.compute(LeaseComputer.train, grant, progress))
            else:
                progress = self._progress(grant)
                sums = await self._worker.compute(LeaseComputer.score, grant, progress)
                metrics = [MetricSums(values=values) for values in sums]
                scores = Scores(step=grant.step, index=grant.index, metrics=metrics, samples=grant.last - grant.first)
                self._sessions[0].send(Header(attempt=self._attempt, scores=scores))

    async def _obtain(self, version: int) -> bool:
        """Loads the parameters of `version`; False when the servers are past it."""
        if self._worker.loaded == version:
            return True
        while True:
            self._arrived.clear()
            for inbox, session in zip(self._inboxes, self._sessions, strict=True):
                if max(inbox.wanted, inbox.version) < version:
                    inbox.wanted = version
                    session.send(Header(attempt=self._attempt, want=Want(version=version)))
            if any(inbox.version > version for inbox in self._inboxes):
                return False
            if all(inbox.version == version for inbox in self._inboxes):
                slices = [inbox.data for inbox in self._inboxes]
                self._worker.loaded = -1  # should this be interrupted, the thread goes on
                await self._worker.compute(LeaseComputer.load_parameters, slices)
                self._worker.loaded = version
                return True
            await self._arrived.wait()

    def _push(self, grant: Grant, value: Partial) -> None:
        gradient = value.gradient.data.cast("B")
        for k, (session, (begin, end)) in enumerate(zip(self._sessions, self._bounds, strict=True)):
            self._inboxes[k].wanted = grant.step
            data = gradient[4 * begin : 4 * end]

            def header(offset: int, k: int = k, size: int = len(data)) -> Header:
                push = Push(
                    step=grant.step, level=grant.level, index=grant.index, offset=offset, bytes=size, want=grant.step
                )
                if k == 0:
                    push.lease = True
                    push.loss, push.samples, push.digest = value.loss, value.samples, value.digest
                return Header(attempt=self._attempt, push=push)

            session.send_frames(chunked(header, data))

    def _progress(self, grant: Grant) -> Callable[[], None]:
        loop = asyncio.get_running_loop()
        session = self._sessions[0]

        def progress() -> None:
            now = time.monotonic()
            if now - self._renewed > grant.lease_s / 4:
                self._renewed = now
                header = Header(attempt=self._attempt, renew=Renew(step=grant.step))
                loop.call_soon_threadsafe(session.send, header)

        return progress
