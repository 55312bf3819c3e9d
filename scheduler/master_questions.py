"""What the driver asks the leading master besides the scheduler API: agents' sizes, who has what of the cluster.

Answers come as events. A thread of its own asks, so that a master that is slow with its operator API delays no launch.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from proto.mesos_tls import Tls, http_connection
from scheduler import actions as act
from scheduler import events as ev
from scheduler.fair_share import ClusterShares, Party, RoleTerms
from scheduler.resources import Need, Resources

logger = logging.getLogger(__name__)

HTTP_TIMEOUT_S = 5.0
_JSON = {"Accept": "application/json", "Content-Type": "application/json"}


class MasterQuestions:
    """Asks the master that `address` names at the moment.

    Args:
        role: the framework's.
        address: "host:port" of the leading master, None while none is known. Called from this object's thread.
        post: takes events; called from this object's thread.
        credential: value of the Authorization header, if the master asks for one.
    """

    def __init__(
        self,
        role: str,
        address: Callable[[], str | None],
        post: Callable[[ev.Event], None],
        credential: str | None = None,
    ) -> None:
        self._role = role
        self._address = address
        self._post = post
        self._headers = {**_JSON, **({"Authorization": credential} if credential else {})}
        self._questions: queue.SimpleQueue[act.AskTotals | act.AskShares | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="master-questions", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ask(self, question: act.AskTotals | act.AskShares) -> None:
        """Queues a question; without an answer from the master there will be none here."""
        self._questions.put(question)

    def close(self) -> None:
        """Ends the thread. Blocks for at most some calls' timeout."""
        self._questions.put(None)
        self._thread.join(2 * HTTP_TIMEOUT_S)

    def _run(self) -> None:
        while (question := self._questions.get()) is not None:
            if isinstance(question, act.AskTotals):
                answer = self.get("/slaves")
                if answer is not None:
                    self._post(ev.AgentTotals(agent_totals(answer), quota_limits(self.get("/roles"), self._role)))
            else:
                self._ask_shares()

    def _ask_shares(self) -> None:
        frameworks = self._request("POST", "/api/v1", json.dumps({"type": "GET_FRAMEWORKS"}))
        metrics = self.get("/metrics/snapshot")
        roles = self.get("/roles")
        if frameworks is None or metrics is None or roles is None:
            return
        shares = cluster_shares(frameworks, metrics, roles)
        if sum(party.hungry for party in shares.parties) > 1:  # else nothing will be given up, and agents may be many
            shares = replace(shares, free=free_pieces(self.get("/slaves") or {}))
        self._post(ev.Shares(shares))

    def get(self, path: str) -> Any:
        """JSON from the leading master, or None if it does not answer so."""
        return self._request("GET", path)

    def _request(self, method: str, path: str, body: str | None = None) -> Any:
        address = self._address()
        if address is None:
            return None
        connection = http_connection(address, HTTP_TIMEOUT_S, Tls.of(os.environ))
        try:
            connection.request(method, path, body, self._headers)
            response = connection.getresponse()
            return json.loads(response.read()) if response.status == http.client.OK else None
        except (OSError, http.client.HTTPException, ValueError) as error:
            logger.info("%s %s%s: %s", method, address, path, error)
            return None
        finally:
            connection.close()


def agent_totals(answer: Mapping[str, Any]) -> tuple[Resources, ...]:
    """All resources of every active agent, from the master's /slaves."""
    return tuple(
        Resources.parse(
            {"name": name, "type": "SCALAR", "scalar": {"value": float(value)}}
            if name in ("cpus", "mem")
            else {"name": name, "type": "RANGES", "ranges": {"range": _spans(str(value))}}
            for name, value in agent.get("resources", {}).items()
            if name in ("cpus", "mem", "ports")
        )
        for agent in answer.get("slaves", ())
        if agent.get("active")
    )


def free_pieces(answer: Mapping[str, Any]) -> dict[str, Need]:
    """What no task and no executor uses on each active agent, from the master's /slaves. Offers count as free."""
    pieces = {}
    for agent in answer.get("slaves", ()):
        if agent.get("active"):
            total, used = agent.get("resources", {}), agent.get("used_resources", {})
            cpus, mem_mb = (max(0.0, float(total.get(n, 0)) - float(used.get(n, 0))) for n in ("cpus", "mem"))
            pieces[str(agent["id"])] = Need(cpus, mem_mb)
    return pieces


def _spans(text: str) -> list[dict[str, int]]:
    """ "[31000-32000, 40000-40001]" as Mesos prints ranges."""
    parts = [part.split("-") for part in text.strip("[] ").split(",") if "-" in part]
    return [{"begin": int(begin), "end": int(end)} for begin, end in parts]


def quota_limits(answer: Mapping[str, Any] | None, role: str) -> dict[str, float]:
    """The limits on cpus and mem that the master's /roles shows for a role or one above it, the lowest of each."""
    limits: dict[str, float] = {}
    for entry in (answer or {}).get("roles", ()):
        if role == entry["name"] or role.startswith(f"{entry['name']}/"):
            for name, value in ((entry.get("quota") or {}).get("limit") or {}).items():
                if name in ("cpus", "mem"):
                    limits[name] = min(float(value), limits.get(name, float("inf")))
    return limits


def cluster_shares(
    frameworks: Mapping[str, Any], metrics: Mapping[str, float], roles: Mapping[str, Any]
) -> ClusterShares:
    """Who has what of the cluster.

    Args:
        frameworks: the operator API's answer to GET_FRAMEWORKS.
        metrics: the master's /metrics/snapshot; that per framework tells who has suppressed offers. Where the operator
            has turned it off (--publish_per_framework_metrics), nobody counts as waiting.
        roles: the master's /roles.
    """
    waiting = {}
    for name, value in metrics.items():
        if name.startswith("master/frameworks/") and name.endswith("/suppressed"):
            framework_id, _, role = name.split("/", 3)[3].removesuffix("/suppressed").partition("/roles/")
            waiting[framework_id, unquote(role)] = not value
    parties = []
    for framework in frameworks.get("get_frameworks", {}).get("frameworks", ()):
        info = framework["framework_info"]
        framework_id = info["id"]["value"]
        allocated = framework.get("allocated_resources", ())
        names = set(info.get("roles") or [info.get("role", "*")]) | {_role(item) for item in allocated}
        active = bool(framework.get("active"))
        for role in sorted(names):
            mine = [item for item in allocated if _role(item) == role]
            hungry = active and waiting.get((framework_id, role), False)
            parties.append(Party(framework_id, role, _sum(mine, "cpus"), _sum(mine, "mem"), hungry))
    terms = {role["name"]: _terms(role) for role in roles.get("roles", ())}
    return ClusterShares(
        float(metrics.get("master/cpus_total", 0)), float(metrics.get("master/mem_total", 0)), tuple(parties), terms
    )


def _role(item: Mapping[str, Any]) -> str:
    return str(item.get("allocation_info", {}).get("role", "*"))


def _sum(items: Iterable[Mapping[str, Any]], name: str) -> float:
    return sum(float(item["scalar"]["value"]) for item in items if item.get("name") == name and "revocable" not in item)


def _terms(role: Mapping[str, Any]) -> RoleTerms:
    quota = role.get("quota") or {}
    guarantee, limit, consumed = (quota.get(name) or {} for name in ("guarantee", "limit", "consumed"))
    full = any(float(consumed.get(name, 0)) >= float(limit[name]) for name in ("cpus", "mem") if name in limit)
    need = Need(float(guarantee.get("cpus", 0)), float(guarantee.get("mem", 0)))
    return RoleTerms(float(role.get("weight", 1.0)), need, full)
