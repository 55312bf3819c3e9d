"""Entry point of a task's process: `python -m executor.task TASK_ID`, its description as JSON on standard input.

The argument is for people who look at the list of processes; all that counts is in the description.

Standard input stays open as long as the executor lives; when it ends, the executor is gone and so is this process.
Exit codes: 0 done or told to stop, 1 failure that may be tried again, 2 failure that ends the job.
"""

import asyncio
import json
import logging
import os
import platform
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from typing import IO

from compute import InputError
from executor.control_client import ControlClient, Dismissed
from executor.job import LoadedJob, failure, load
from executor.server import ParameterServer
from executor.worker import Worker
from proto import control_pb2 as control

EXIT_DONE = 0
EXIT_RETRY = 1
EXIT_FATAL = 2

CLOSE_TIMEOUT_S = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskDescription:
    """What the scheduler put into the TaskInfo (docs/architecture.md, "Processes")."""

    role: str
    task_id: str
    job_id: str
    control: str
    secret: str
    threads: int
    bind: str

    @classmethod
    def parse(cls, line: str) -> "TaskDescription":
        """From JSON.

        Raises:
            InputError: it is not what the scheduler writes.
        """
        try:
            fields = json.loads(line)
            description = cls(
                role=str(fields["role"]), task_id=str(fields["task_id"]), job_id=str(fields["job_id"]),
                control=str(fields["control"]), secret=str(fields["secret"]), threads=int(fields["threads"]),
                bind=str(fields.get("bind", "")),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"standard input does not hold a task description ({error!r})") from None
        if description.role not in ("worker", "server") or (description.role == "server" and not description.bind):
            raise InputError(f"cannot be a {description.role!r} bound to {description.bind!r}")
        return description


class Task:
    """A worker or a server, from hello to the end."""

    def __init__(self, description: TaskDescription) -> None:
        self._description = description
        server = description.role == "server"
        hello = control.Hello(
            task_id=description.task_id,
            role=control.SERVER if server else control.WORKER,
            address=description.bind,
            host=socket.gethostname(),
            pid=os.getpid(),
            python_version=".".join(platform.python_version_tuple()[:2]),
        )
        self._client = ControlClient(description.control, description.secret, hello, self._heard)
        self._job: asyncio.Future[LoadedJob] = asyncio.get_running_loop().create_future()
        self._loading: asyncio.Task[None] | None = None
        self._part: Worker | ParameterServer | None = None
        self._membership: control.Membership | None = None
        self._sources: list[str] = []
        self._dismissed = asyncio.Event()

    async def run(self) -> int:
        """Exit code, once there is nothing more to do."""
        work = asyncio.create_task(self._work())
        client = asyncio.create_task(self._client.run())
        dismissed = asyncio.create_task(self._dismissed.wait())
        try:
            done, _ = await asyncio.wait([work, client, dismissed], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {dismissed}:
                await task
        except Dismissed as error:
            logger.warning("dismissed by the driver: %s", error)
            return EXIT_DONE
        except Exception as error:  # noqa: BLE001 - the process's outermost boundary: whatever it is, the driver is told
            words = failure(error, self._sources, self._description.task_id)
            logger.error("%s\n%s", words.summary, words.detail)
            self._client.send(control.TaskMessage(failure=words))
            await self._client.close(CLOSE_TIMEOUT_S)
            return EXIT_RETRY if words.kind == control.Failure.INTERNAL else EXIT_FATAL
        finally:
            for task in (work, client, dismissed):
                task.cancel()
            await asyncio.gather(work, client, dismissed, return_exceptions=True)
        return EXIT_DONE

    def _heard(self, message: control.DriverMessage) -> None:
        match message.WhichOneof("body"):
            case "job" if self._loading is None:
                self._sources = list(message.job.sources)
                self._loading = asyncio.create_task(self._load(message.job))
            case "membership":
                self._membership = message.membership
                if self._part is not None:
                    self._part.joined(message.membership)
            case "stop" if isinstance(self._part, ParameterServer) and self._part.keeps_book and not self._part.over:
                self._part.stop(message.stop)  # the job ends in good order; its last word is Finished
            case "stop":
                self._dismissed.set()

    async def _load(self, message: control.Job) -> None:
        try:
            self._job.set_result(await asyncio.to_thread(load, message))
        except Exception as error:  # noqa: BLE001 - the user's code runs here; handed on to run()
            self._job.set_exception(error)

    async def _work(self) -> None:
        job, description = await self._job, self._description
        if description.role == "server":
            server = ParameterServer(job, description.task_id, description.secret, self._client.send)
            self._part = server
            running = asyncio.create_task(server.run(description.bind))
        else:
            worker = Worker(job, description.task_id, description.secret, description.threads)
            self._part = worker
            running = asyncio.create_task(worker.run())
        if self._membership is not None:
            self._part.joined(self._membership)
        try:
            await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def main() -> None:
    """Runs the task and exits."""
    logging.basicConfig(
        level=os.environ.get("MESOGRAD_LOG", "INFO"), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        description = TaskDescription.parse(sys.stdin.readline())
    except InputError as error:
        sys.exit(f"executor.task: {error}")
    # The exit must not wait for a gradient that nobody wants any more; a task keeps nothing that could be lost.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(EXIT_DONE))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_executor, args=(sys.stdin,), daemon=True, name="executor watch").start()

    async def run() -> int:
        return await Task(description).run()

    code = asyncio.run(run())
    logging.shutdown()
    os._exit(code)  # a computing thread may still be busy


def _exit_with_executor(stdin: IO[str]) -> None:
    while stdin.readline():
        pass
    os._exit(EXIT_RETRY)


if __name__ == "__main__":
    main()
