"""A scheduler driver that can be trusted: pymesos' MesosSchedulerDriver with its defects mended.

What differs from pymesos:

- Only teardown() tears the framework down; neither stop() nor an exception in a callback does.
- Calls end after 10 s, hold no lock, follow redirects, and raise instead of being dropped (see proto.mesos_errors).
- Five missed heartbeats end a subscription, and so does a call that the master refuses for not knowing it any more;
  failed attempts back off up to 15 s; ERROR and refusals abort the driver.
- Acknowledgements are explicit unless asked otherwise; GPU_RESOURCES is only asked for by the caller's FrameworkInfo.
"""

import copy
import http.client
import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

from addict import Dict

from proto.backoff import Backoff
from proto.mesos_address import format_address, parse_address
from proto.mesos_detector import MasterDetector, is_zookeeper_url, parse_zookeeper_url
from proto.mesos_errors import CallRefused, MesosError, NotConnected
from proto.mesos_http import Json, basic_credential, subscribe_request
from proto.mesos_import import pymesos
from proto.mesos_loop import CALL_TIMEOUT_S, SubscriptionLoop
from proto.mesos_tls import Tls

logger = logging.getLogger(__name__)

DEFAULT_MASTER_PORT = 5050
DEFAULT_FAILOVER_TIMEOUT_S = 7 * 24 * 3600.0
DEFAULT_HEARTBEAT_S = 15.0
MISSED_HEARTBEATS = 5
MAX_BACKOFF_S = 15.0
# In refusals of a master that was restarted behind a connection whose end got lost. (That another stream is the
# framework's is not among them: a driver that took over must not be fought.)
FORGOTTEN = ("Framework cannot be found", "Framework is not subscribed", "Master has not finished recovery")


class Scheduler(pymesos.Scheduler):  # type: ignore[misc]  # pymesos is untyped
    """Callbacks of pymesos.Scheduler, and two more. All are made by one thread, one at a time."""

    def connectionFailed(self, driver: "SchedulerDriver", message: str) -> None:
        """No master could be reached or found, or the subscription broke; the driver goes on trying."""

    def callbackFailed(self, driver: "SchedulerDriver", callback: str, error: Exception) -> None:
        """The callback for an event of type `callback` raised. The driver goes on; by default this is an error()."""
        self.error(driver, f"the callback for {callback} raised {type(error).__name__}: {error}")


class SchedulerDriver(SubscriptionLoop, pymesos.MesosSchedulerDriver):  # type: ignore[misc]  # pymesos is untyped
    """Connects a scheduler to the leading master. Constructing it does nothing but check its arguments.

    Args:
        sched: receives the callbacks of pymesos.Scheduler.
        framework: FrameworkInfo; copied. A failover_timeout is added if there is none: one week.
        master_uri: "HOST:PORT", "HOST" or "zk://[USER:PASSWORD@]HOST:PORT,.../PATH".
        use_addict: whether callbacks get addict.Dict instead of dict.
        implicit_acknowledgements: whether returning from statusUpdate acknowledges the update.
        principal, secret: for HTTP basic authentication; the principal is also put in the FrameworkInfo.
        suppressed_roles: roles that get no offers until reviveOffers(); kept up to date across resubscriptions.
        offer_constraints: OfferConstraints, or None.
        call_timeout_s: deadline of each step of a call.
        backoff: delays between attempts to subscribe.

    Raises:
        ValueError: if `master_uri` cannot be understood, or TLS not be set up (proto/mesos_tls.py).
    """

    path = "/api/v1/scheduler"

    def __init__(
        self,
        sched: Any,
        framework: Mapping[str, Any],
        master_uri: str,
        use_addict: bool = False,
        implicit_acknowledgements: bool = False,
        principal: str | None = None,
        secret: str | None = None,
        suppressed_roles: Iterable[str] = (),
        offer_constraints: Mapping[str, Any] | None = None,
        call_timeout_s: float = CALL_TIMEOUT_S,
        backoff: Backoff | None = None,
    ) -> None:
        self._init_loop(backoff or Backoff(max_s=MAX_BACKOFF_S), call_timeout_s, Tls.of(os.environ))
        self.sched = sched
        self.master_uri = master_uri
        self.implicit_acknowledgements = implicit_acknowledgements
        self.version: str | None = None  # of the master
        self.detector: MasterDetector | None = None
        self._framework: Json = copy.deepcopy(dict(framework))
        self._framework.setdefault("failover_timeout", DEFAULT_FAILOVER_TIMEOUT_S)
        self._dict_cls = Dict if use_addict else dict
        self._credential: str | None = None
        if principal is not None:
            self._framework.setdefault("principal", principal)
            self._credential = basic_credential(principal, secret) if secret is not None else None
        self._suppressed_roles = set(suppressed_roles)
        self._torn_down = False
        self._offer_constraints = offer_constraints
        self._heartbeat_s = DEFAULT_HEARTBEAT_S
        self._zookeeper = parse_zookeeper_url(master_uri) if is_zookeeper_url(master_uri) else None
        self._fixed_master = (
            None if self._zookeeper else format_address(*parse_address(master_uri, DEFAULT_MASTER_PORT))
        )

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins to look for the master and to subscribe."""
        super().start()
        if self._zookeeper is None:
            self.change_master(self._fixed_master)
            return
        with self._lock:
            if self.detector is None:
                self.detector = MasterDetector(self._zookeeper, self.change_master, self._on_detection_failure)
                self.detector.start()

    def stop(self, failover: bool = True) -> None:
        """Ends the subscription, and no more: tasks run on, for `failover_timeout`, and wait for the next driver.

        `failover` is ignored; pymesos' False meant what teardown() does.
        """
        with self._lock:
            detector, self.detector = self.detector, None
        if detector is not None:
            detector.stop()
        super().stop()

    def teardown(self) -> None:
        """Ends the framework with all its tasks and executors for good, then stops the driver.

        Raises:
            MesosError: if the master was not told; the driver runs on, and this may be called again.
        """
        session = self._require_session()
        with self._lock:
            self._ending = True  # the master closes the subscription before it answers
        try:
            self._call("TEARDOWN", session=session)
            self._torn_down = True
        finally:
            with self._lock:
                self._ending = False
        self.stop()

    # --- what the master is told of the framework ---------------------------------------------------------------------

    @property
    def framework(self) -> Json:
        """The FrameworkInfo as it is sent."""
        return copy.deepcopy(self._framework)

    @property
    def framework_id(self) -> str | None:
        """The FrameworkID's value, once there is one."""
        identifier = self._framework.get("id")
        return identifier["value"] if identifier else None

    @framework_id.setter
    def framework_id(self, value: str) -> None:
        self._framework["id"] = {"value": value}

    @property
    def suppressed_roles(self) -> frozenset[str]:
        """Roles that get no offers."""
        with self._lock:
            return frozenset(self._suppressed_roles)

    def subscribe_call(self) -> Json:
        """The SUBSCRIBE call as it is sent."""
        subscribe: Json = {"framework_info": self.framework, "suppressed_roles": sorted(self.suppressed_roles)}
        if self._offer_constraints is not None:
            subscribe["offer_constraints"] = self._offer_constraints
        call: Json = {"type": "SUBSCRIBE", "subscribe": subscribe}
        if self.framework_id is not None:
            call["framework_id"] = {"value": self.framework_id}
        return call

    def gen_request(self) -> bytes:
        """The SUBSCRIBE call in HTTP."""
        return subscribe_request(self.master or "", self.path, self.subscribe_call(), self._credential)

    def _roles(self) -> set[str]:
        return set(self._framework.get("roles") or [self._framework.get("role", "*")])

    # --- calls --------------------------------------------------------------------------------------------------------
    # Each raises NotConnected, CallFailed or CallRefused (proto.mesos_errors); none is repeated by the driver.

    def _call(self, kind: str, payload: Any = None, session: Any = None) -> None:
        session = session or self._require_session()
        if self.framework_id is None:
            raise NotConnected("not registered yet")
        body: Json = {"type": kind, "framework_id": {"value": self.framework_id}}
        if payload is not None:
            body[kind.lower()] = payload
        try:
            self._calls.post(session.address, self.path, body, session.headers(self._credential))
        except CallRefused as error:
            if kind != "TEARDOWN" and (self._ending or self._torn_down):
                raise NotConnected(f"the framework is being torn down: {error}") from None
            if any(words in str(error) for words in FORGOTTEN):
                self._resubscribe(session)
                raise NotConnected(f"the master knows this subscription no longer: {error}") from None
            raise

    def acceptOffers(self, offer_ids: Any, operations: Any, filters: Any = None) -> None:
        """Uses offers of one agent; without operations, declines them."""
        if not operations:
            self.declineOffer(offer_ids, filters)
        else:
            self._call("ACCEPT", _filtered({"offer_ids": _listed(offer_ids), "operations": operations}, filters))

    def launchTasks(self, offer_ids: Any, tasks: Any, filters: Any = None) -> None:
        """Accepts offers to launch TaskInfos; without tasks, declines them."""
        operations = [{"type": "LAUNCH", "launch": {"task_infos": list(tasks)}}] if tasks else []
        self.acceptOffers(offer_ids, operations, filters)

    def declineOffer(self, offer_ids: Any, filters: Any = None) -> None:
        """Gives offers back."""
        self._call("DECLINE", _filtered({"offer_ids": _listed(offer_ids)}, filters))

    def acceptInverseOffers(self, offer_ids: Any, filters: Any = None) -> None:
        """Agrees to leave an agent before its maintenance."""
        self._call("ACCEPT_INVERSE_OFFERS", _filtered({"inverse_offer_ids": _listed(offer_ids)}, filters))

    def declineInverseOffer(self, offer_ids: Any, filters: Any = None) -> None:
        """Says that the agent cannot be left in time."""
        self._call("DECLINE_INVERSE_OFFERS", _filtered({"inverse_offer_ids": _listed(offer_ids)}, filters))

    def reviveOffers(self, roles: Iterable[str] = ()) -> None:
        """Asks for offers again, dropping all filters; of all the framework's roles if none is named."""
        chosen = set(roles)
        with self._lock:
            self._suppressed_roles -= chosen or self._roles()
        self._call("REVIVE", {"roles": sorted(chosen)} if chosen else None)

    def suppressOffers(self, roles: Iterable[str] = ()) -> None:
        """Asks for no more offers until reviveOffers(); for all the framework's roles if none is named."""
        chosen = set(roles)
        with self._lock:
            self._suppressed_roles |= chosen or self._roles()
        self._call("SUPPRESS", {"roles": sorted(chosen)} if chosen else None)

    def killTask(self, task_id: Any, kill_policy: Any = None, agent_id: Any = None) -> None:
        """Kills a task; a KillPolicy here overrides that of its TaskInfo."""
        self._call("KILL", _present(task_id=task_id, agent_id=agent_id, kill_policy=kill_policy))

    def shutdownExecutor(self, executor_id: Any, agent_id: Any) -> None:
        """Ends an executor with all its tasks."""
        self._call("SHUTDOWN", {"executor_id": executor_id, "agent_id": agent_id})

    def acknowledgeStatusUpdate(self, status: Any) -> None:
        """Acknowledges an update that was dealt with; does nothing if it wants no acknowledgement (it has no uuid)."""
        if "uuid" in status:
            self._call("ACKNOWLEDGE", {key: status[key] for key in ("agent_id", "task_id", "uuid")})

    def acknowledgeOperationStatusUpdate(self, status: Any) -> None:
        """As acknowledgeStatusUpdate, for offer operations."""
        if "uuid" in status and "operation_id" in status:
            keys = ("agent_id", "resource_provider_id", "uuid", "operation_id")
            self._call("ACKNOWLEDGE_OPERATION_STATUS", {key: status[key] for key in keys if key in status})

    def reconcileTasks(self, tasks: Iterable[Any]) -> None:
        """Asks for the state of tasks (each with task_id and, if known, agent_id); of all of them if none is given."""
        wanted = [_present(task_id=task["task_id"], agent_id=task.get("agent_id")) for task in tasks]
        self._call("RECONCILE", {"tasks": wanted})

    def reconcileOperations(self, operations: Iterable[Any]) -> None:
        """Asks for the state of offer operations."""
        keys = ("operation_id", "agent_id", "resource_provider_id")
        wanted = [{key: operation[key] for key in keys if key in operation} for operation in operations]
        self._call("RECONCILE_OPERATIONS", {"operations": wanted})

    def sendFrameworkMessage(self, executor_id: Any, agent_id: Any, data: str) -> None:
        """Sends base64 data to an executor. It may get lost."""
        self._call("MESSAGE", {"executor_id": executor_id, "agent_id": agent_id, "data": data})

    def requestResources(self, requests: Any) -> None:
        """Asks the allocator for resources; Mesos' own takes no notice."""
        self._call("REQUEST", {"requests": list(requests)})

    def updateFramework(self, framework: Mapping[str, Any]) -> None:
        """Changes the FrameworkInfo; what Mesos holds immutable must stay as it was."""
        updated = copy.deepcopy(dict(framework)) | {"id": {"value": self.framework_id}}
        updated.setdefault("failover_timeout", DEFAULT_FAILOVER_TIMEOUT_S)
        payload: Json = {"framework_info": updated, "suppressed_roles": sorted(self.suppressed_roles)}
        if self._offer_constraints is not None:
            payload["offer_constraints"] = self._offer_constraints
        self._call("UPDATE_FRAMEWORK", payload)
        self._framework = updated

    # --- events -------------------------------------------------------------------------------------------------------

    def on_subscribed(self, info: Json) -> None:
        """Remembers the FrameworkID before anything else is done with it."""
        known = self.framework_id is not None
        self.framework_id = info["framework_id"]["value"]
        self._heartbeat_s = float(info.get("heartbeat_interval_seconds") or DEFAULT_HEARTBEAT_S)
        hostname, port = parse_address(self.master or "")
        master_info = {**info.get("master_info", {}), "hostname": hostname, "port": port}
        self.version = master_info.get("version")
        if known:
            self.sched.reregistered(self, self._dict_cls(master_info))
        else:
            self.sched.registered(self, self._dict_cls(value=self.framework_id), self._dict_cls(master_info))

    def on_offers(self, event: Json) -> None:
        """Offers; masters before 1.0 put inverse offers into the same event."""
        offers = event.get("offers", [])
        if offers:
            self.sched.resourceOffers(self, [self._dict_cls(offer) for offer in offers])
        self.on_inverse_offers(event)

    def on_failure(self, failure: Json) -> None:
        """An agent was removed or, if one is named, an executor ended. Which fields there are depends on Mesos."""
        agent_id = self._dict_cls(failure.get("agent_id", {}))
        if "executor_id" in failure:
            executor_id = self._dict_cls(failure["executor_id"])
            self.sched.executorLost(self, executor_id, agent_id, failure.get("status"))
        else:
            self.sched.slaveLost(self, agent_id)

    def on_error(self, event: Json) -> None:
        """The master will have nothing more to do with this driver: resubscribing would only be refused again."""
        self.stop()
        self.sched.error(self, event.get("message", "Mesos reported an error without a message"))

    def on_close(self) -> None:
        """The subscription ended."""
        self.sched.disconnected(self)

    def on_event(self, event: Json) -> None:
        """Dispatches an event to the on_... method of its type."""
        super(SubscriptionLoop, self).on_event(event)

    # --- for the loop -------------------------------------------------------------------------------------------------

    def _silence_limit_s(self) -> float:
        return MISSED_HEARTBEATS * self._heartbeat_s

    def _on_attempt_failed(self, message: str, delay_s: float) -> None:
        self._tell("connectionFailed", message)

    def _on_detection_failure(self, message: str) -> None:
        self.last_error = message
        self._guarded("connectionFailed", self._tell, "connectionFailed", message)

    def _on_refused(self, error: CallRefused) -> None:
        self.stop()
        message = f"the master at {self.master} refused the framework: {error}"
        if error.status == http.client.UNAUTHORIZED:
            given = "does not accept the secret given for" if self._credential else "demands the secret of"
            principal = self._framework.get("principal", "")
            message = f"the master at {self.master} {given} principal {principal!r} (HTTP 401)"
        self._guarded("error", self.sched.error, self, message)

    def _report_callback(self, name: str, error: Exception) -> None:
        if isinstance(error, MesosError) and not isinstance(error, CallRefused):
            return  # a call met a broken connection: `disconnected` and reconciliation take care of that
        try:
            if not self._tell("callbackFailed", name, error):
                self.sched.error(self, f"the callback for {name} raised {type(error).__name__}: {error}")
        except Exception:  # the user's code, as in SubscriptionLoop._guarded
            logger.exception("the callback for errors failed")

    def _tell(self, callback: str, *args: Any) -> bool:
        """Makes a callback that pymesos does not know; returns whether the scheduler has it."""
        method = getattr(self.sched, callback, None)
        if method is None:
            return False
        method(self, *args)
        return True


def _listed(ids: Any) -> list[Any]:
    return [ids] if isinstance(ids, Mapping) else list(ids)


def _filtered(payload: Json, filters: Any) -> Json:
    return payload if filters is None else {**payload, "filters": filters}


def _present(**fields: Any) -> Json:
    return {key: value for key, value in fields.items() if value is not None}
