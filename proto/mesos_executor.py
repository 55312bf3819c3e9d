"""An executor driver that can be trusted: pymesos' MesosExecutorDriver with its defects mended.

What differs from pymesos:

- A status update is kept until the agent acknowledges it, and sent again with every resubscription, so that none is
  lost while the agent is away. Sending never blocks and never raises.
- A checkpointed executor outlives its agent for MESOS_RECOVERY_TIMEOUT, coming back at least every
  MESOS_SUBSCRIPTION_BACKOFF_MAX; any other ends with it.
- KILL hands on its kill policy; a LAUNCH that comes twice is carried out once; the authentication token is used, then
  removed from the environment.
- Shutting down is left to the executor: the driver runs on, so that last updates are sent, until it is stopped.
"""

import contextlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Mapping, MutableMapping
from typing import Any

from addict import Dict

from proto.backoff import Backoff
from proto.mesos_errors import CallRefused, MesosError, StreamFailed
from proto.mesos_http import Json, subscribe_request
from proto.mesos_import import pymesos
from proto.mesos_loop import CALL_TIMEOUT_S, Session, SubscriptionLoop
from proto.mesos_tls import Tls

logger = logging.getLogger(__name__)

DEFAULT_RECOVERY_TIMEOUT_S = 15 * 60.0
DEFAULT_BACKOFF_MAX_S = 2.0
DEFAULT_SHUTDOWN_GRACE_S = 5.0
FIRST_BACKOFF_S = 0.1
TOKEN_VARIABLE = "MESOS_EXECUTOR_AUTHENTICATION_TOKEN"


class Executor(pymesos.Executor):  # type: ignore[misc]  # pymesos is untyped
    """Callbacks of pymesos.Executor, where killTask gets the KillPolicy too. All are made by one thread."""

    def killTask(self, driver: "ExecutorDriver", task_id: Any, kill_policy: Any = None) -> None:
        """A task is to be killed; `kill_policy` is None unless the KILL call had one."""

    def shutdown(self, driver: "ExecutorDriver") -> None:
        """The agent asked for it, or has been gone for too long. End all tasks, then stop the driver."""


class ExecutorDriver(SubscriptionLoop, pymesos.MesosExecutorDriver):  # type: ignore[misc]  # pymesos is untyped
    """Connects an executor to its agent. Constructing it only reads the environment.

    Args:
        executor: receives the callbacks of pymesos.Executor, killTask with a third argument (see Executor).
        use_addict: whether callbacks get addict.Dict instead of dict.
        environ: where the agent left MESOS_*; the token is removed from it by start().
        call_timeout_s: deadline of each step of a call.

    Raises:
        ValueError: if the environment is not that of an executor.
    """

    path = "/api/v1/executor"

    def __init__(
        self,
        executor: Any,
        use_addict: bool = False,
        environ: MutableMapping[str, str] | None = None,
        call_timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        self._environ = os.environ if environ is None else environ
        backoff_max_s = self._duration_s("MESOS_SUBSCRIPTION_BACKOFF_MAX", DEFAULT_BACKOFF_MAX_S)
        self._init_loop(Backoff(first_s=FIRST_BACKOFF_S, max_s=backoff_max_s), call_timeout_s, Tls.of(self._environ))
        self.executor = executor
        self.framework_id = {"value": self._required("MESOS_FRAMEWORK_ID")}
        self.executor_id = {"value": self._required("MESOS_EXECUTOR_ID")}
        self.checkpoint = self._environ.get("MESOS_CHECKPOINT") == "1"
        self.local = bool(self._environ.get("MESOS_LOCAL"))
        self.grace_shutdown_period = self._duration_s("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", DEFAULT_SHUTDOWN_GRACE_S)
        self.recovery_timeout_s = (
            self._duration_s("MESOS_RECOVERY_TIMEOUT", DEFAULT_RECOVERY_TIMEOUT_S) if self.checkpoint else 0.0
        )
        self.framework_info: Json | None = None
        self.executor_info: Json | None = None
        self.agent_info: Json | None = None
        self.tasks: dict[str, Json] = {}  # TaskInfo by task id, until an update of the task is acknowledged
        self.updates: dict[str, Json] = {}  # Call.Update by uuid in base64, until acknowledged, in order of their birth
        self._launched: set[str] = set()  # ids of all tasks there ever were
        self._unsent: list[str] = []  # uuids of updates that this subscription has not seen
        self._acknowledged = threading.Condition(self._lock)
        self._dict_cls = Dict if use_addict else dict
        self._authorization: str | None = None
        self._agent_lost_at: float | None = None
        self._is_shutdown = False
        self.change_master(self._required("MESOS_AGENT_ENDPOINT"))

    def _required(self, name: str) -> str:
        value = self._environ.get(name)
        if not value:
            raise ValueError(f"{name} is not set: an executor is started by a Mesos agent, not by hand")
        return value

    def _duration_s(self, name: str, default_s: float) -> float:
        text = self._environ.get(name)
        if not text:
            return default_s
        try:
            return float(pymesos.utils.parse_duration(text))
        except (AssertionError, ValueError):
            raise ValueError(f"{name} is not a duration as Mesos writes them, like 15mins: {text!r}") from None

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Takes the token out of the environment, so that no task inherits it, and begins to subscribe."""
        token = self._environ.pop(TOKEN_VARIABLE, None)
        if token is not None:
            self._authorization = f"Bearer {token}"
        if self._agent_lost_at is None:
            self._agent_lost_at = time.monotonic()
        super().start()

    def wait_acknowledged(self, timeout_s: float) -> bool:
        """Waits until the agent has acknowledged all updates, or the driver ended; returns whether it has."""
        with self._acknowledged:
            self._acknowledged.wait_for(lambda: not self.updates or not self._started, timeout_s)
            return not self.updates

    def stop(self) -> None:
        """Ends the subscription. Updates that are not acknowledged by now are lost: see wait_acknowledged()."""
        super().stop()
        with self._acknowledged:
            self._acknowledged.notify_all()

    # --- calls --------------------------------------------------------------------------------------------------------

    def sendStatusUpdate(self, status: Mapping[str, Any]) -> Json:
        """Keeps the update and has it sent, now or when the agent is back; returns it as it will be sent.

        Each update gets a uuid of its own, and a timestamp (seconds since 1970) if it has none.
        """
        identifier = pymesos.encode_data(uuid.uuid4().bytes)
        sent = {"timestamp": time.time(), **status, "uuid": identifier, "source": "SOURCE_EXECUTOR"}
        sent["executor_id"] = self.executor_id
        with self._lock:
            self.updates[identifier] = {"status": sent}
            self._unsent.append(identifier)
        self._notify()
        return sent

    def sendFrameworkMessage(self, data: str) -> None:
        """Sends base64 data to the scheduler. It may get lost.

        Raises:
            MesosError: see proto.mesos_errors.
        """
        self._call(self._require_session(), "MESSAGE", {"data": data})

    def _call(self, session: Session, kind: str, payload: Json) -> None:
        body = {"type": kind, "framework_id": self.framework_id, "executor_id": self.executor_id, kind.lower(): payload}
        self._calls.post(session.address, self.path, body, session.headers(self._authorization))

    def subscribe_call(self) -> Json:
        """The SUBSCRIBE call as it is sent, with all that the agent may not know."""
        with self._lock:
            self._unsent.clear()  # they travel with this call
            subscribe = {
                "unacknowledged_tasks": list(self.tasks.values()),
                "unacknowledged_updates": list(self.updates.values()),
            }
        return {
            "type": "SUBSCRIBE",
            "framework_id": self.framework_id,
            "executor_id": self.executor_id,
            "subscribe": subscribe,
        }

    def gen_request(self) -> bytes:
        """The SUBSCRIBE call in HTTP."""
        return subscribe_request(self.master or "", self.path, self.subscribe_call(), self._authorization)

    # --- events -------------------------------------------------------------------------------------------------------

    def on_event(self, event: Json) -> None:
        """Dispatches an event to the on_... method of its type."""
        super(SubscriptionLoop, self).on_event(event)

    def on_subscribed(self, info: Json) -> None:
        """The agent knows us (again)."""
        self._agent_lost_at = None
        known = self.executor_info is not None
        self.executor_info, self.framework_info = info["executor_info"], info["framework_info"]
        self.agent_info = info["agent_info"]
        agent_info = self._dict_cls(self.agent_info)
        if known:
            self.executor.reregistered(self, agent_info)
        else:
            framework_info = self._dict_cls(self.framework_info)
            self.executor.registered(self, self._dict_cls(self.executor_info), framework_info, agent_info)

    def on_launch(self, event: Json) -> None:
        """A task is to be started; an agent that restarts may ask for it twice."""
        if self._is_new(event["task"]):
            self.executor.launchTask(self, self._dict_cls(event["task"]))

    def on_launch_group(self, event: Json) -> None:
        """Tasks are to be started together."""
        tasks = [self._dict_cls(task) for task in event["task_group"]["tasks"] if self._is_new(task)]
        if tasks:
            self.executor.launchTaskGroup(self, tasks)

    def _is_new(self, task: Json) -> bool:
        task_id = task["task_id"]["value"]
        with self._lock:
            if task_id in self._launched:
                logger.warning("task %s is to be launched a second time: ignored", task_id)
                return False
            self._launched.add(task_id)
            self.tasks[task_id] = task
        return True

    def on_kill(self, event: Json) -> None:
        """A task is to be killed."""
        policy = event.get("kill_policy")
        task_id = self._dict_cls(event["task_id"])
        self.executor.killTask(self, task_id, None if policy is None else self._dict_cls(policy))

    def on_acknowledged(self, event: Json) -> None:
        """The agent has taken over an update: it, and the task it tells of, need not be told again."""
        with self._acknowledged:
            self.updates.pop(event["uuid"], None)
            self.tasks.pop(event["task_id"]["value"], None)
            self._acknowledged.notify_all()

    def on_error(self, event: Json) -> None:
        """The agent will have nothing more to do with this executor."""
        self.stop()
        self.executor.error(self, event.get("message", "Mesos reported an error without a message"))

    def on_shutdown(self) -> None:
        """All is to end. The driver runs on until the executor has sent its last updates and stops it."""
        if not self._is_shutdown:
            self._is_shutdown = True
            self.executor.shutdown(self)

    def on_close(self) -> None:
        """The agent is gone, for a while or for good."""
        self._agent_lost_at = time.monotonic()
        self.executor.disconnected(self)

    # --- for the loop -------------------------------------------------------------------------------------------------

    def _on_wakeup(self, session: Session) -> None:
        """Sends the updates that are waiting, in their order."""
        while True:
            with self._lock:
                if not self._unsent:
                    return
                identifier = self._unsent[0]
                update = self.updates[identifier]
            try:
                self._call(session, "UPDATE", update)
            except MesosError as error:
                # Whether it arrived is open. Subscribing anew tells the agent all that it may have missed.
                raise StreamFailed(f"an update was not taken: {error}") from error
            with self._lock, contextlib.suppress(ValueError):
                self._unsent.remove(identifier)

    def _on_attempt_failed(self, message: str, delay_s: float) -> None:
        """Gives up when the agent has been away for longer than a checkpointed executor may wait for it."""
        lost_at = self._agent_lost_at
        if lost_at is not None and time.monotonic() + delay_s - lost_at > self.recovery_timeout_s:
            logger.error("the agent has been gone for too long (%s): shutting down", message)
            self.on_shutdown()
            self._give_up()

    def _give_up(self) -> None:
        """Nobody is there to take the last updates: whoever waits for that need not wait."""
        with self._acknowledged:
            self._started = False
            self._acknowledged.notify_all()

    def _on_refused(self, error: CallRefused) -> None:
        message = f"the agent at {self.master} refused the executor: {error}"
        self._guarded("error", self.executor.error, self, message)
        self._guarded("shutdown", self.on_shutdown)
        self._give_up()

    def _report_callback(self, name: str, error: Exception) -> None:
        try:
            self.executor.error(self, f"the callback for {name} raised {type(error).__name__}: {error}")
        except Exception:  # the executor's code, as in SubscriptionLoop._guarded
            logger.exception("the callback for errors failed")
