"""The worker: leases blocks of micro-batches, computes their gradients, pushes them, and leases again."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from compute.compression import ErrorFeedback, Rounding
from compute.compression.codec import Buffer, Vector
from executor.attendance import Attendance
from executor.connection import Connection
from executor.job import LoadedJob
from executor.lease_computer import LeaseComputer
from executor.session import SessionClosed
from executor.shared_memory import way
from proto import control_pb2 as control
from proto.exchange_pb2 import Grant, Header, Join
from proto.frames import FrameError

RECONNECT_S = 0.3

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


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
        self.computed = Grant()  # the last whose gradient was computed, or is
        self._membership: control.Membership | None = None
        self._changed = asyncio.Event()
        self._way = way()
        self._computing = 0
        rounds = job.codec.plain or isinstance(job.codec.codec, Rounding)
        self._feedback = None if rounds else ErrorFeedback(job.codec, job.parameters)

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
                await Attendance(self, membership).run()
            except (SessionClosed, FrameError) as error:
                logger.info("attempt %d: %s", membership.attempt, error)
            await asyncio.sleep(RECONNECT_S)

    # What an attendance needs of its worker.

    @property
    def job(self) -> LoadedJob:
        """What is trained."""
        return self._job

    @property
    def encode(self) -> Callable[[Vector, int], Buffer] | None:
        """Bytes of a part of a gradient that begins at an element of the flat vector; None: as it is."""
        if self._feedback is not None:
            return self._feedback.encode
        return None if self._job.codec.plain else self._job.codec.encode

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
        self._computing += 1
        # The call goes on in its thread even if whoever waits for it is cancelled.
        future = asyncio.get_running_loop().run_in_executor(self._pool, partial(call, self.computer, *args))
        future.add_done_callback(self._computed)
        return await asyncio.shield(future)

    def _computed(self, future: "asyncio.Future[Any]") -> None:
        self._computing -= 1
        if not future.cancelled():
            future.exception()  # somebody has asked for it, even if nobody waits any more

    @property
    def computer(self) -> LeaseComputer:
        """What computes; only ever one call at a time."""
        if self._computer is None:
            raise RuntimeError("the worker is not prepared")
        return self._computer

    @property
    def is_computing(self) -> bool:
        """Whether the computing thread uses the parameters."""
        return self._computing > 0

    @property
    def way(self) -> str:
        """How tensors are to travel (executor.shared_memory)."""
        return self._way
