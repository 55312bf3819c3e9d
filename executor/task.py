"""Entry point of a task's process: `python -m executor.task TASK_ID`, its description as JSON on standard input.

The argument is for people who look at the list of processes; all that counts is in the description.

Standard input stays open as long as the executor lives; when it ends, the executor is gone and so is this process. What
comes on it later is {"control": "host:port"}: the driver was restarted and is to be found there.
Exit codes: 0 done or told to stop, 1 failure that may be tried again, 2 failure that ends the job.
"""

import asyncio
import contextlib
import json
import logging
import os
import platform
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

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
    bind_lanes: str

    @classmethod
    def parse(cls, line: str) -> "TaskDescription":
        """From JSON.

        Raises:
            InputError: it is not what the scheduler writes.
        """
        try:
            fields = json.loads(line)
            description = cls(
                role=str(fields["role"]),
                task_id=str(fields["task_id"]),
                job_id=str(fields["job_id"]),
                control=str(fields["control"]),
                secret=str(fields["secret"]),
                threads=int(fields["threads"]),
                bind=str(fields.get("bind", "")),
                bind_lanes=str(fields.get("bind_lanes", "")),
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
            if not client.done():  # a restarted driver may say Stop before it has heard Finished
                await self._client.close(CLOSE_TIMEOUT_S)
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

    def driver_moved(self, address: str) -> None:
        """The driver's control channel is at another address."""
        self._client.move(address)

    def _heard(self, message: control.DriverMessage) -> None:
        match message.WhichOneof("body"):
            case "job" if self._loading is None:
                self._sources = list(message.job.sources)
                self._loading = asyncio.create_task(self._load(message.job))
            case "membership":
                self._membership = message.membership
                if self._part is not None:
                    self._part.joined(message.membership)
            case "pause" if isinstance(self._part, ParameterServer):
                self._part.pause(message.pause)
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
            tell, unacknowledged = self._client.send, self._client.unacknowledged
            server = ParameterServer(job, description.task_id, description.secret, tell, unacknowledged)
            self._part = server
            running = asyncio.create_task(server.run(description.bind, description.bind_lanes))
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

    async def run() -> int:
        task, loop = Task(description), asyncio.get_running_loop()

        def heard(address: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it all interest
                loop.call_soon_threadsafe(task.driver_moved, address)

        threading.Thread(target=_listen, args=(sys.stdin, heard), daemon=True, name="executor watch").start()
        return await task.run()

    code = asyncio.run(run())
    logging.shutdown()
    os._exit(code)  # a computing thread may still be busy


def _listen(stdin: IO[str], driver_moved: Callable[[str], None]) -> None:
    """Passes on where the driver is, and ends the process with its executor."""
    while line := stdin.readline():
        try:
            address: Any = json.loads(line)["control"]
        except (ValueError, KeyError, TypeError):
            logger.warning("the executor says what this task does not understand: %s", line.strip())
            continue
        driver_moved(str(address))
    os._exit(EXIT_RETRY)


if __name__ == "__main__":
    main()
