"""The Mesos executor: one per agent and job, a child process for each of its tasks.

This is the thin shell around TaskTable: it turns what the agent says and what happens to children into events, and
carries out the actions. The driver's thread only queues events; everything else happens in the main thread, which
sleeps until something happens.
"""

import base64
import binascii
import json
import logging
import os
import queue
import selectors
import signal
import socket
import sys
import time
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

from executor.child import Child
from executor.memory_kills import MemoryKills
from executor.sandbox import SandboxPaths, tail
from executor.task_request import child_environment, grace_period_s, parse_task_request
from executor.task_table import (
    Action,
    Event,
    Exited,
    Finish,
    Kill,
    KillSession,
    Launch,
    Report,
    Shutdown,
    StartChild,
    Started,
    StartFailed,
    TaskTable,
    Terminate,
    Tick,
)
from proto.mesos import Executor, ExecutorDriver

logger = logging.getLogger(__name__)

TASK_COMMAND = (sys.executable, "-m", "executor.task")
LAST_UPDATES_S = 2.0  # of the shutdown grace period are kept for the updates that follow the tasks' end


class MesosExecutor(Executor):
    """Runs tasks until the agent shuts it down. run() must be called in the main thread, which signals need.

    Args:
        command: of every task's child.
        environ: with the agent's MESOS_* variables; children inherit it.
        sandbox: directory for the output of tasks and their working directory.

    Raises:
        ValueError: if the environment is not that of an executor.
    """

    def __init__(
        self,
        command: Sequence[str] = TASK_COMMAND,
        environ: MutableMapping[str, str] = os.environ,
        sandbox: Path | None = None,
    ) -> None:
        self._command = tuple(command)
        self._environ = environ
        self._paths = SandboxPaths(sandbox or Path(environ.get("MESOS_SANDBOX") or os.getcwd()))
        self._driver = ExecutorDriver(self, environ=environ)
        self._table = TaskTable()
        self._children: dict[str, Child] = {}
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()  # for all tasks
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._wakeup_writer = socket.socketpair()
        self._finish = False
        self._memory_kills = MemoryKills()

    # --- callbacks, made by the driver's thread -------------------------------------------------------------------

    def registered(self, driver: Any, executor_info: Any, framework_info: Any, agent_info: Any) -> None:
        """The agent knows this executor."""
        capabilities = {capability.get("type") for capability in framework_info.get("capabilities", [])}
        self._table.reports_killing = "TASK_KILLING_STATE" in capabilities
        logger.info("registered with the agent on %s", agent_info.get("hostname"))

    def reregistered(self, driver: Any, agent_info: Any) -> None:
        """The agent is back."""
        logger.info("registered again with the agent on %s", agent_info.get("hostname"))

    def disconnected(self, driver: Any) -> None:
        """The agent is gone; tasks run on."""
        logger.warning("the agent is gone")

    def launchTask(self, driver: Any, task: Any) -> None:
        """A task is to be started."""
        self._post(Launch(task["task_id"]["value"], task, grace_period_s(task.get("kill_policy"))))

    def launchTaskGroup(self, driver: Any, task_infos: Any) -> None:
        """Tasks are to be started; nothing else connects them here."""
        for task in task_infos:
            self.launchTask(driver, task)

    def killTask(self, driver: Any, task_id: Any, kill_policy: Any = None) -> None:
        """A task is to be ended."""
        self._post(Kill(task_id["value"], grace_period_s(kill_policy)))

    def frameworkMessage(self, driver: Any, data: Any) -> None:
        """A driver that was restarted says where its control channel is; every task is told."""
        try:
            message = json.loads(base64.b64decode(data, validate=True))
            line = json.dumps({"control": str(message["control"])}).encode() + b"\n"
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            logger.warning("a message of the framework is not understood: %r", error)
            return
        self._lines.put(line)
        self._wake()

    def shutdown(self, driver: Any) -> None:
        """The agent asks for the end, or has been gone for too long."""
        self._post_shutdown("the executor was shut down")

    def error(self, driver: Any, message: str) -> None:
        """The driver cannot go on."""
        logger.error("%s", message)
        self._post_shutdown("the executor lost its agent")

    def _post_shutdown(self, reason: str) -> None:
        grace_s = self._driver.grace_shutdown_period
        self._post(Shutdown(grace_s - min(LAST_UPDATES_S, grace_s / 2), reason))

    def _post(self, event: Event) -> None:
        self._events.put(event)
        self._wake()

    def _wake(self) -> None:
        try:
            self._wakeup_writer.send(b"\0")
        except BlockingIOError:  # the buffer is full of wakeups: one is enough
            pass

    # --- the main thread -------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serves the agent; returns when it has been shut down."""
        for end in (self._wakeup, self._wakeup_writer):
            end.setblocking(False)
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        # A signal writes a byte to the socket, so that no signal falls between a look at the children and the sleep.
        old_wakeup = signal.set_wakeup_fd(self._wakeup_writer.fileno(), warn_on_full_buffer=False)
        old_handlers = {
            signal.SIGCHLD: signal.signal(signal.SIGCHLD, lambda number, frame: None),
            signal.SIGTERM: signal.signal(
                signal.SIGTERM, lambda number, frame: self._post_shutdown("the executor got SIGTERM")
            ),
        }
        self._driver.start()
        self._handle(Tick())  # from now on it is idle
        try:
            while not self._finish:
                self._wait()
                self._handle_posted()
                self._pass_on()
                self._reap()
                self._handle(Tick())
            # The grace period is nearly over; what the agent has not taken by then is lost with this executor.
            if not self._driver.wait_acknowledged(min(LAST_UPDATES_S, self._driver.grace_shutdown_period / 2)):
                logger.warning("the agent has not acknowledged %d updates", len(self._driver.updates))
        finally:
            for child in self._children.values():
                child.kill_session()
            self._driver.stop()
            self._driver.join(LAST_UPDATES_S)
            signal.set_wakeup_fd(old_wakeup)
            for number, handler in old_handlers.items():
                signal.signal(number, handler)
            self._selector.close()
            self._wakeup.close()
            self._wakeup_writer.close()

    def _wait(self) -> None:
        deadline = self._table.next_deadline()
        timeout_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        for key, _ in self._selector.select(timeout_s):
            if isinstance(key.data, Child):
                self._feed(key.data)
            else:
                self._drain()

    def _drain(self) -> None:
        try:
            while self._wakeup.recv(4096):
                pass
        except BlockingIOError:
            pass

    def _handle_posted(self) -> None:
        while True:
            try:
                event = self._events.get_nowait()
            except queue.Empty:
                return
            self._handle(event)

    def _pass_on(self) -> None:
        while not self._lines.empty():
            line = self._lines.get_nowait()
            for child in self._children.values():
                if child.tell(line):
                    self._start_feeding(child)

    def _start_feeding(self, child: Child) -> None:
        if child.fileno() not in self._selector.get_map():
            self._selector.register(child, selectors.EVENT_WRITE, child)

    def _reap(self) -> None:
        for task_id, child in list(self._children.items()):
            if child.has_exited():
                self._stop_feeding(child)
                code = child.reap()
                del self._children[task_id]
                words = tail(self._paths.stderr(task_id))
                logger.info("task %s ended with return code %d", task_id, code)
                if code < 0:
                    for_memory = -code == signal.SIGKILL and self._memory_kills.more()
                    self._handle(Exited(task_id, None, -code, words, for_memory))
                else:
                    self._handle(Exited(task_id, code, None, words))

    def _handle(self, event: Event) -> None:
        for action in self._table.handle(event, time.monotonic()):
            self._carry_out(action)

    def _carry_out(self, action: Action) -> None:
        match action:
            case StartChild(task_id, task):
                self._handle(self._start_child(task_id, task))
            case Terminate(task_id):
                self._children[task_id].terminate()
            case KillSession(task_id):
                self._children[task_id].kill_session()
            case Report():
                self._report(action)
            case Finish():
                self._finish = True

    def _start_child(self, task_id: str, task: Any) -> Event:
        try:
            request = parse_task_request(task)
            child = Child.start(
                (*self._command, task_id),  # so that `ps` shows which task it is
                request.line,
                child_environment(self._environ, request),
                self._paths.root,
                self._paths.stdout(task_id),
                self._paths.stderr(task_id),
            )
        except (OSError, ValueError) as error:  # TaskRequestError is a ValueError
            return StartFailed(task_id, str(error))
        self._children[task_id] = child
        logger.info("task %s started as process %d", task_id, child.pid)
        if child.feed():
            self._start_feeding(child)
        return Started(task_id)

    def _feed(self, child: Child) -> None:
        if not child.feed():
            self._stop_feeding(child)

    def _stop_feeding(self, child: Child) -> None:
        if child.fileno() in self._selector.get_map():
            self._selector.unregister(child)

    def _report(self, report: Report) -> None:
        status: dict[str, Any] = {"task_id": {"value": report.task_id}, "state": report.state}
        if report.message:
            status["message"] = report.message
        if report.labels:
            status["labels"] = {"labels": [{"key": key, "value": value} for key, value in report.labels.items()]}
        self._driver.sendStatusUpdate(status)


def main(command: Sequence[str] = TASK_COMMAND) -> int:
    """Runs the executor that an agent has started; returns its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        executor = MesosExecutor(command)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    executor.run()
    return 0
