"""A scripted driver on the real control channel, and real task processes; Mesos and the scheduler are left out.

It plays what scheduler/ does with memberships: a first attempt once all servers said hello, another after each server
that was replaced, be it by its replica. tests/integration shows that the real one agrees.
"""

import asyncio
import itertools
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle
import grpc
import grpc.aio

from compute import TrainingSpec
from proto import control_pb2 as control
from proto.frames import grpc_options

ATTACH = "/mesograd.Control/Attach"
TIMEOUT_S = 90.0

_first_port = random.randrange(20_000, 32_000)
_ports = itertools.cycle([*range(_first_port, 32_000), *range(20_000, _first_port)])


def free_port() -> int:
    """A port that was free a moment ago, of those that are given to nobody who does not name one (Linux' default).

    No port twice: whoever got it may not listen yet.
    """
    while True:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", next(_ports)))
            except OSError:
                continue
            return int(probe.getsockname()[1])


@dataclass
class TaskProcess:
    """One running task."""

    task_id: str
    role: int
    index: int
    process: subprocess.Popen[bytes]
    address: str = ""
    log: Path = Path()
    lanes: str = ""  # address

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(10)


@dataclass
class ScriptedDriver:
    """See the module."""

    spec: TrainingSpec
    directory: Path
    checkpoint_url: str = ""
    resume: bool = False
    sources: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, TaskProcess] = field(default_factory=dict)
    servers: list[TaskProcess] = field(default_factory=list)
    replicas: dict[int, TaskProcess] = field(default_factory=dict)  # by index of their server
    module: str = "executor.task"  # what runs as a task
    environment: dict[str, str] = field(default_factory=dict)
    attempt: int = 0
    steps: dict[int, list[control.StepReport]] = field(default_factory=dict)
    told: list[control.Progress] = field(default_factory=list)  # all progress, as it came
    epochs: list[control.EpochReport] = field(default_factory=list)
    validations: list[control.ValidationReport] = field(default_factory=list)
    checkpoints: list[control.CheckpointReport] = field(default_factory=list)
    failures: list[control.Failure] = field(default_factory=list)
    finished: control.Finished | None = None

    def __post_init__(self) -> None:
        self._secret = secrets.token_hex(16)
        self._outboxes: dict[str, asyncio.Queue[control.DriverMessage]] = {}
        self._said_hello: set[str] = set()
        self.away = False  # it answers nobody, and hears of nothing
        self.in_step: set[str] = set()  # replicas that hold what their servers hold
        self.paused: set[int] = set()  # attempts
        self._former: list[TaskProcess] = []
        self._news = asyncio.Condition()
        self._count = 0
        self._launched = asyncio.Event()
        self._port = 0

    # --- processes --------------------------------------------------------------------------------------------------

    def launch(self, role: str, index: int, address: str = "") -> TaskProcess:
        """Starts a task's process, of a server at this address if one is given."""
        self._count += 1
        task_id = f"{role}-{index}.{self._count}"
        description: dict[str, Any] = {
            "role": "worker" if role == "worker" else "server", "task_id": task_id, "job_id": "job",
            "control": f"127.0.0.1:{self._port}",
            "secret": self._secret, "threads": 1,
        }  # fmt: skip
        if role != "worker":
            description["bind"] = address or f"127.0.0.1:{free_port()}"
            description["bind_lanes"] = f"127.0.0.1:{free_port()}"
        log = self.directory / f"{task_id}.log"
        with open(log, "wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", self.module, task_id], stdin=subprocess.PIPE, stdout=out, stderr=out,
                env={**os.environ, "OMP_NUM_THREADS": "1", "KMP_BLOCKTIME": "0", **self.environment},
            )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(json.dumps(description).encode() + b"\n")
        process.stdin.flush()
        number = control.WORKER if role == "worker" else control.SERVER
        task = TaskProcess(
            task_id, number, index, process, description.get("bind", ""), log, description.get("bind_lanes", "")
        )
        self.tasks[task_id] = task
        self._launched.set()
        return task

    def add_worker(self) -> TaskProcess:
        return self.launch("worker", sum(t.role == control.WORKER for t in self.tasks.values()))

    async def replace_server(self, index: int) -> TaskProcess:
        """Launches a new server in the place of one that died; the next attempt begins when it says hello."""
        task = self.launch("server", index)
        self.servers[index] = task
        return task

    def add_replica(self, index: int) -> TaskProcess:
        """Launches a replica; its server hears of it when it says hello."""
        task = self.replicas[index] = self.launch("replica", index)
        return task

    @asynccontextmanager
    async def care(self) -> AsyncIterator[None]:
        """As long as this lasts, what a driver does about lost servers and replicas is done."""
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self) -> None:
        watches: dict[asyncio.Task[int], str] = {}
        while True:
            for task in [*self.servers, *self.replicas.values()]:
                if task.task_id not in watches.values():
                    watches[asyncio.create_task(asyncio.to_thread(task.process.wait))] = task.task_id
            live = [watch for watch in watches if not watch.done()]
            changed = asyncio.create_task(self._launched.wait())
            await asyncio.wait([*live, changed], return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            self._launched.clear()
            self.replace_lost()

    async def resize(self, servers: int, replicas: bool = False) -> None:
        """Another number of servers, as `mesograd scale JOB --servers N` has it, up to the new attempt.

        Workers are stopped until the servers know, or a small job would end before.
        """
        for worker in self.workers():
            worker.signal(signal.SIGSTOP)
        added = [self.launch("server", index) for index in range(len(self.servers), servers)]
        await self.until(lambda: all(task.task_id in self._said_hello for task in added))
        await self.pause()
        self._former, self.servers = self.servers, [*self.servers[:servers], *added]
        for index in [index for index in self.replicas if index >= servers]:
            self.replicas.pop(index).kill()
        self.attend()
        for task in added if replicas else ():
            self.add_replica(task.index)

    async def pause(self) -> None:
        """Has the servers stop between two steps."""
        attempt = self.attempt
        pause = control.DriverMessage(pause=control.Pause(attempt=attempt))
        self._outboxes[self.servers[0].task_id].put_nowait(pause)
        for worker in self.workers():
            worker.signal(signal.SIGCONT)
        await self.until(lambda: attempt in self.paused)

    def promote(self, index: int) -> None:
        """Gives a server up and has its replica take its place."""
        self.servers[index] = self.replicas.pop(index)
        self.attend()

    def replace_lost(self) -> list[str]:
        """Does what the driver does about servers and replicas that have ended; the ids of those tasks."""
        lost = [task for task in [*self.servers, *self.replicas.values()] if task.process.poll() is not None]
        for task in lost:
            index = task.index
            if task is self.servers[index]:
                replica = self.replicas.get(index)
                if replica is not None and replica.task_id in self.in_step and replica.process.poll() is None:
                    self.promote(index)
                else:
                    self.servers[index] = self.launch("server", index)
                    continue
            if index not in self.replicas or self.replicas[index].process.poll() is not None:
                self.add_replica(index)
        if lost:
            self.attend()
            self._tell_all()
        return [task.task_id for task in lost]

    def workers(self) -> list[TaskProcess]:
        return [t for t in self.tasks.values() if t.role == control.WORKER]

    # --- the control channel ----------------------------------------------------------------------------------------

    async def _attach(self, requests: Any, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        if metadata.get("mesograd-secret") != self._secret:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "secret")
        task_id = ""
        async for message in requests:
            if self.away:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
            body = message.WhichOneof("body")
            if body == "hello":
                task_id = message.hello.task_id
                outbox = self._outboxes[task_id] = asyncio.Queue()
                writer = asyncio.create_task(self._write(context, outbox))
                context.add_done_callback(lambda _, writer=writer: writer.cancel())
                outbox.put_nowait(control.DriverMessage(job=self._job()))
                self._said_hello.add(task_id)
                if self.attempt and message.hello.role == control.WORKER:
                    outbox.put_nowait(control.DriverMessage(membership=self._membership()))
                self.attend()
                if any(task.task_id == task_id for task in self.replicas.values()):
                    self._tell_all()
            async with self._news:
                self._take(message)
                self._news.notify_all()

    def _take(self, message: control.TaskMessage) -> None:
        if message.HasField("progress"):
            self.told.append(message.progress)
            for step in message.progress.steps:
                self.steps.setdefault(step.step, []).append(step)
            self.epochs.extend(message.progress.epochs)
            self.validations.extend(message.progress.validations)
            self.checkpoints.extend(message.progress.checkpoints)
        elif message.HasField("failure"):
            self.failures.append(message.failure)
        elif message.HasField("replicated"):
            self.in_step.add(message.replicated.replica)
        elif message.HasField("paused"):
            self.paused.add(message.paused.attempt)
        elif message.HasField("finished"):
            self.finished = message.finished

    def _job(self) -> control.Job:
        return control.Job(
            job_id="job", spec=cloudpickle.dumps(self.spec), sources=self.sources, checkpoint_url=self.checkpoint_url,
            resume=self.resume,
        )  # fmt: skip

    def _membership(self) -> control.Membership:
        servers = [control.Server(index=s.index, task_id=s.task_id, address=s.address) for s in self.servers]
        for server in servers:
            replica = self.replicas.get(server.index)
            if replica is not None and replica.task_id in self._said_hello and replica.process.poll() is None:
                server.replica_task_id, server.replica_address = replica.task_id, replica.address
        former = [control.Server(index=s.index, task_id=s.task_id, address=s.address) for s in self._former]
        return control.Membership(attempt=self.attempt, servers=servers, workers=len(self.workers()), former=former)

    async def _write(self, context: Any, outbox: "asyncio.Queue[control.DriverMessage]") -> None:
        while True:
            await context.write(await outbox.get())

    def attend(self) -> None:
        """Begins a new attempt if all servers are there and they are others than before."""
        ids = tuple(s.task_id for s in self.servers)
        if all(i in self._said_hello for i in ids) and ids != getattr(self, "_served", ()):
            if len(ids) == len(getattr(self, "_served", ())):
                self._former = []
            self._served = ids
            self.attempt += 1
            self._tell_all()

    def _tell_all(self) -> None:
        """As a driver does, only of attempts whose servers are all there."""
        if tuple(s.task_id for s in self.servers) != getattr(self, "_served", ()):
            return
        for outbox in self._outboxes.values():
            outbox.put_nowait(control.DriverMessage(membership=self._membership()))

    def stop(self, checkpoint: bool) -> None:
        """Asks for an end in good order."""
        book = self.servers[0].task_id
        self._outboxes[book].put_nowait(control.DriverMessage(stop=control.Stop(checkpoint=checkpoint)))

    async def until(self, condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
        """Waits for what the tasks report to fulfil the condition."""

        def met() -> bool:
            return condition() or bool(self.failures)

        async with asyncio.timeout(timeout_s), self._news:
            await self._news.wait_for(met)
        if not condition():
            raise AssertionError(f"failed: {self.failures}")

    async def until_step(self, step: int) -> None:
        await self.until(lambda: any(s >= step for s in self.steps))

    async def until_finished(self) -> control.Finished:
        await self.until(lambda: self.finished is not None)
        assert self.finished is not None
        return self.finished


@asynccontextmanager
async def training(
    spec: TrainingSpec, directory: Path, workers: int = 2, servers: int = 2, replicas: bool = False, **options: Any
) -> AsyncIterator[ScriptedDriver]:
    """Starts a job's tasks; on leaving, none of them is left."""
    directory.mkdir(parents=True, exist_ok=True)
    driver = ScriptedDriver(spec, directory, **options)
    server = grpc.aio.server(options=grpc_options())
    method = grpc.stream_stream_rpc_method_handler(
        driver._attach,
        request_deserializer=control.TaskMessage.FromString,
        response_serializer=control.DriverMessage.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler("mesograd.Control", {"Attach": method})
    server.add_generic_rpc_handlers((handler,))
    driver._port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        driver.servers = [driver.launch("server", index) for index in range(servers)]
        for index in range(servers if replicas else 0):
            driver.add_replica(index)
        for _ in range(workers):
            driver.add_worker()
        yield driver
    finally:
        for task in driver.tasks.values():
            if task.process.poll() is None:
                task.signal(signal.SIGCONT)
                task.kill()
            if task.process.stdin:
                task.process.stdin.close()
        await server.stop(None)
