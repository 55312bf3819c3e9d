"""Between the framework's events and actions and pymesos' callbacks and calls.

Calls are blocking HTTP: one thread makes them, in the order of the actions. Callbacks come from the thread of the
mended pymesos driver (proto/mesos.py) and are posted as events.
"""

from __future__ import annotations

import base64
import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from proto.mesos import MesosError, Scheduler, SchedulerDriver
from proto.mesos_http import basic_credential
from scheduler import actions as act
from scheduler import events as ev
from scheduler.master_questions import HTTP_TIMEOUT_S, MasterQuestions
from scheduler.placement import AgentOffer
from scheduler.resources import ResourceError, Resources

logger = logging.getLogger(__name__)

TEARDOWN_RETRY_S = 0.2

Json = dict[str, Any]
Post = Callable[[ev.Event], None]


def parse_offer(offer: Json) -> AgentOffer:
    """From Mesos' JSON. Raises ResourceError for one that cannot be understood."""
    try:
        address = offer.get("url", {}).get("address", {})
        return AgentOffer(
            agent_id=offer["agent_id"]["value"],
            hostname=offer["hostname"],
            address=address.get("ip") or address.get("hostname") or offer["hostname"],
            offer_ids=(offer["id"]["value"],),
            resources=Resources.parse(offer.get("resources", ())),
            attributes=_attributes(offer),
            maintenance_in_s=_begins_in_s(offer["unavailability"]) if "unavailability" in offer else None,
        )
    except KeyError as error:
        raise ResourceError(f"offer without {error}") from error


def _attributes(offer: Json) -> dict[str, str]:
    """What constraints can name: attributes in Mesos' own text form, hostname and fault domain."""
    fields = {"hostname": str(offer["hostname"])}
    domain = offer.get("domain", {}).get("fault_domain", {})
    for name in ("region", "zone"):
        if name in domain:
            fields[f"@{name}"] = str(domain[name].get("name", ""))
    for attribute in offer.get("attributes", ()):
        fields.setdefault(attribute["name"], _text(attribute))
    return fields


def _text(attribute: Mapping[str, Any]) -> str:
    match attribute.get("type"):
        case "SCALAR":
            return f"{float(attribute['scalar']['value']):g}"
        case "RANGES":
            return f"[{','.join('{begin}-{end}'.format(**span) for span in attribute['ranges'].get('range', ()))}]"
        case _:
            return str(attribute.get("text", {}).get("value", ""))


def _begins_in_s(unavailability: Json) -> float:
    """Seconds until it begins; Mesos gives it in nanoseconds since 1970."""
    return int(unavailability["start"]["nanoseconds"]) / 1e9 - time.time()


def parse_inverse_offer(offer: Json) -> ev.InverseOffer:
    """From Mesos' JSON."""
    unavailability = offer["unavailability"]
    duration = unavailability.get("duration")
    return ev.InverseOffer(
        offer["id"]["value"],
        offer.get("agent_id", {}).get("value", ""),
        _begins_in_s(unavailability),
        None if duration is None else int(duration["nanoseconds"]) / 1e9,
    )


def parse_status(status: Json) -> ev.StatusUpdate:
    """From Mesos' JSON."""
    return ev.StatusUpdate(
        task_id=status["task_id"]["value"],
        state=status["state"],
        agent_id=status.get("agent_id", {}).get("value", ""),
        message=status.get("message", ""),
        reason=status.get("reason", ""),
        raw=status,
    )


class _Callbacks(Scheduler):
    """pymesos' callback interface; every callback becomes an event."""

    def __init__(self, post: Post) -> None:
        self._post = post

    def registered(self, driver: object, framework_id: Json, master_info: Json) -> None:
        self._post(ev.Subscribed(framework_id["value"]))

    def reregistered(self, driver: object, master_info: Json) -> None:
        self._post(ev.Reregistered())

    def disconnected(self, driver: object) -> None:
        self._post(ev.Disconnected())

    def resourceOffers(self, driver: Any, offers: Sequence[Json]) -> None:
        parsed = []
        for offer in offers:
            try:
                parsed.append(parse_offer(offer))
            except ResourceError as error:
                logger.warning("an offer of Mesos is left aside: %s", error)
        self._post(ev.Offers(tuple(parsed)))

    def inverseOffers(self, driver: object, offers: Sequence[Json]) -> None:
        self._post(ev.InverseOffers(tuple(parse_inverse_offer(offer) for offer in offers)))

    def offerRescinded(self, driver: object, offer_id: Json) -> None:
        self._post(ev.Rescinded(offer_id["value"]))

    def statusUpdate(self, driver: object, status: Json) -> None:
        self._post(parse_status(status))

    def slaveLost(self, driver: object, agent_id: Json) -> None:
        self._post(ev.AgentLost(agent_id.get("value", "")))

    def executorLost(self, driver: object, executor_id: Json, agent_id: Json, status: int | None) -> None:
        self._post(ev.ExecutorLost(executor_id["value"], agent_id.get("value", "")))

    def error(self, driver: object, message: str) -> None:
        self._post(ev.MesosError(message))


class MesosLink:
    """One framework's connection with its master.

    Args:
        framework: FrameworkInfo.
        master: "host:port" or "zk://...".
        post: takes events; called from other threads.
        secret: for the principal, if the master asks for authentication.
    """

    def __init__(self, framework: Json, master: str, post: Post, secret: str | None = None) -> None:
        self._post = post
        self._role: str = framework["roles"][0]
        self._headers = {"Authorization": basic_credential(framework["principal"], secret)} if secret else {}
        self._driver = SchedulerDriver(
            _Callbacks(post),
            framework,
            master,
            implicit_acknowledgements=False,
            principal=framework["principal"] if secret else None,
            secret=secret,
        )
        self._calls: queue.SimpleQueue[act.Action | None] = queue.SimpleQueue()
        credential = basic_credential(framework["principal"], secret) if secret else None
        self._questions = MasterQuestions(framework["roles"][0], lambda: self._driver.master, post, credential)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mesos-calls", daemon=True)

    def start(self) -> None:
        self._driver.start()
        self._questions.start()
        self._thread.start()

    def submit(self, action: act.Action) -> None:
        """Queues a call."""
        if isinstance(action, act.AskTotals | act.AskShares):
            self._questions.ask(action)
        else:
            self._calls.put(action)

    def close(self) -> None:
        """Ends connection and threads; says nothing to the master. Blocks for at most a call's timeout."""
        self._closing.set()
        self._calls.put(None)
        self._questions.close()
        self._driver.stop()
        self._driver.join(HTTP_TIMEOUT_S)
        if self._thread.is_alive():
            self._thread.join(2 * HTTP_TIMEOUT_S)

    def _run(self) -> None:
        while (action := self._calls.get()) is not None:
            try:
                self._call(action)
            except MesosError as error:
                logger.info("%s: %s", type(action).__name__, error)
                if isinstance(action, act.Accept):
                    task_ids = tuple(task["task_id"]["value"] for task in action.tasks)
                    self._post(ev.LaunchFailed(task_ids, f"the launch did not reach the master: {error}"))

    def _call(self, action: act.Action) -> None:
        driver = self._driver
        match action:
            case act.Accept():
                launch = {"type": "LAUNCH", "launch": {"task_infos": list(action.tasks)}}
                offers = [{"value": offer_id} for offer_id in action.offer_ids]
                driver.acceptOffers(offers, [launch], filters={"refuse_seconds": action.refuse_s})
            case act.Decline():
                offers = [{"value": offer_id} for offer_id in action.offer_ids]
                driver.declineOffer(offers, filters={"refuse_seconds": action.refuse_s})
            case act.AcceptInverseOffers():
                driver.acceptInverseOffers([{"value": offer_id} for offer_id in action.offer_ids])
            case act.Acknowledge():
                driver.acknowledgeStatusUpdate(dict(action.status))
            case act.Kill():
                grace = {"grace_period": {"nanoseconds": int(action.grace_s * 1e9)}}
                driver.killTask({"value": action.task_id}, grace, {"value": action.agent_id})
            case act.Reconcile():
                tasks = [{"task_id": {"value": task}, "agent_id": {"value": agent}} for task, agent in action.tasks]
                driver.reconcileTasks(tasks)
            case act.Suppress():
                driver.suppressOffers()
            case act.Revive():
                driver.reviveOffers()
            case act.ShutdownExecutor():
                driver.shutdownExecutor({"value": action.executor_id}, {"value": action.agent_id})
            case act.TellExecutor():
                data = base64.b64encode(json.dumps({"control": action.control}).encode()).decode()
                driver.sendFrameworkMessage({"value": action.executor_id}, {"value": action.agent_id}, data)
            case act.Teardown():
                self._tear_down()

    def _tear_down(self) -> None:
        """Tries until the master has confirmed, or `close` ends it."""
        framework_id = self._driver.framework_id or ""
        while not self._closing.is_set():
            try:
                self._driver.teardown()
            except MesosError as error:
                logger.info("teardown: %s", error)
            deadline = time.monotonic() + 10 * TEARDOWN_RETRY_S
            while time.monotonic() < deadline and not self._closing.is_set():
                if self._is_gone(framework_id):
                    self._post(ev.TornDown())
                    return
                self._closing.wait(TEARDOWN_RETRY_S / 10)
            self._closing.wait(TEARDOWN_RETRY_S)

    def _is_gone(self, framework_id: str) -> bool:
        """The master knows the framework no longer, or as a completed one."""
        answer = self._questions.get(f"/frameworks?framework_id={framework_id}")
        if answer is None:
            return False
        return not any(item.get("id") == framework_id for item in answer.get("frameworks", ()))
