"""Asking Mesos daemons over HTTP whether they serve, who leads, and which agents are registered."""

import http.client
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

REQUEST_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class RegisteredAgent:
    """An agent as the leading master knows it."""

    id: str
    host: str
    port: int
    active: bool
    resources: dict[str, Any]  # cpus, mem, disk in Mesos's units (mem, disk: MB), ports as text
    used: dict[str, Any]


def mesos_serves(host: str, port: int) -> bool:
    """True if a master or an agent answers HTTP requests at `host:port`."""
    return _get(host, port, "/health") is not None


def votes(host: str, port: int) -> bool:
    """True once the master at `host:port` has its replica of the registry's log, so that it counts for a quorum."""
    body = _get(host, port, "/metrics/snapshot?timeout=1secs")
    return body is not None and json.loads(body).get("registrar/log/recovered") == 1


def registered_agents(host: str, port: int) -> list[RegisteredAgent] | None:
    """Agents registered with the master at `host:port`, or None unless it answers and leads."""
    body = _get(host, port, "/slaves")  # 307: another master leads; 503: none does
    if body is None:
        return None
    document = json.loads(body)
    agents = []
    for entry in document.get("slaves", ()):
        address = entry["pid"].rpartition("@")[2]  # slave(1)@127.0.0.1:5051
        agent_host, _, agent_port = address.rpartition(":")
        agents.append(
            RegisteredAgent(
                id=entry["id"],
                host=agent_host,
                port=int(agent_port),
                active=bool(entry["active"]),
                resources=dict(entry.get("resources", {})),
                used=dict(entry.get("used_resources", {})),
            )
        )
    return agents


def leading(host: str, ports: Iterable[int]) -> tuple[int, list[RegisteredAgent]] | None:
    """Port of the leading master and its agents, or None while none leads."""
    for port in ports:
        agents = registered_agents(host, port)
        if agents is not None:
            return port, agents
    return None


def _get(host: str, port: int, path: str) -> bytes | None:
    """Body of a response of status 200, None for any other and for none."""
    connection = http.client.HTTPConnection(host, port, timeout=REQUEST_TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        return body if response.status == http.client.OK else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
