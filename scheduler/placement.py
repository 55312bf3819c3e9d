"""Which task goes to which agent: offers and needs in, launches out. Pure.

Servers first, because without all of them nothing trains, and spread over hosts, because a lost host should take as
little state as possible. Then their replicas, each on another host than its server if there is one. Then workers, each
to the agent of the fewest workers, so that they share the cores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scheduler.resources import NOTHING, Need, Resources

_ORDER = {"server": 0, "replica": 1, "worker": 2}


@dataclass(frozen=True)
class AgentOffer:
    """All that one agent offers at the moment (several Mesos offers merged)."""

    agent_id: str
    hostname: str
    address: str  #: IP address or name where tasks on this agent are reached
    offer_ids: tuple[str, ...]
    resources: Resources


@dataclass(frozen=True)
class Want:
    """A slot that needs a task."""

    role: str  #: "server", "replica" or "worker"
    index: int
    need: Need
    apart_from: str = ""  #: host that is as good as lost if it is the same: that of a replica's server


@dataclass(frozen=True)
class Launch:
    want: Want
    resources: Resources


@dataclass
class Placement:
    """What to launch on one agent. `executor` is None where the job's executor runs already."""

    offer: AgentOffer
    executor: Resources | None
    left: Resources
    launches: list[Launch] = field(default_factory=list)


@dataclass(frozen=True)
class Occupancy:
    """What of the job runs on an agent already."""

    hostname: str
    servers: int = 0  #: and replicas
    workers: int = 0
    executor: bool = False


def place(
    wants: Sequence[Want],
    offers: Sequence[AgentOffer],
    executor_need: Need,
    running: Mapping[str, Occupancy],
) -> list[Placement]:
    """Fits as many wants as possible, in the order servers, replicas, workers, each by index.

    Args:
        wants: slots to fill.
        offers: one per agent.
        executor_need: taken once on each agent that has no executor of the job yet.
        running: what of the job runs, by agent id (agents without an offer count too, for the spreading).

    Returns:
        One Placement per agent that gets at least one task. For each: what the executor, the launches and `left` hold
        is together what the agent offered.
    """
    hosts = {offer.agent_id: offer.hostname for offer in offers}
    hosts.update({agent_id: occupancy.hostname for agent_id, occupancy in running.items()})
    servers = {agent_id: running[agent_id].servers if agent_id in running else 0 for agent_id in hosts}
    workers = {agent_id: running[agent_id].workers if agent_id in running else 0 for agent_id in hosts}
    has_executor = {agent_id for agent_id, occupancy in running.items() if occupancy.executor}
    placements: dict[str, Placement] = {}
    seats: dict[int, str] = {}  # index of a server -> host it or its replica was placed on

    def servers_on_host(offer: AgentOffer) -> int:
        return sum(count for agent_id, count in servers.items() if hosts[agent_id] == offer.hostname)

    for want in sorted(wants, key=lambda want: (_ORDER[want.role], want.index)):
        candidates = []
        for offer in offers:
            placement = placements.get(offer.agent_id)
            left = placement.left if placement else offer.resources
            fresh = placement is None and offer.agent_id not in has_executor
            if left.fits(want.need + executor_need if fresh else want.need):
                candidates.append((offer, left, fresh))
        if not candidates:
            continue
        if want.role != "worker":
            apart_from = want.apart_from or seats.get(want.index, "")
            offer, left, fresh = min(
                candidates,
                key=lambda c: (
                    c[0].hostname == apart_from, servers_on_host(c[0]), servers[c[0].agent_id], -c[1].cpus,
                    c[0].agent_id,
                ),
            )  # fmt: skip
            seats[want.index] = offer.hostname
        else:
            offer, left, fresh = min(
                candidates,
                key=lambda c: (workers[c[0].agent_id], servers[c[0].agent_id], -c[1].cpus, c[0].agent_id),
            )
        if offer.agent_id not in placements:
            executor, left = _take(left, executor_need) if fresh else (None, left)
            placements[offer.agent_id] = Placement(offer, executor, left)
        placement = placements[offer.agent_id]
        taken, placement.left = _take(placement.left, want.need)
        placement.launches.append(Launch(want, taken))
        servers[offer.agent_id] += want.role != "worker"
        workers[offer.agent_id] += want.role == "worker"
    return list(placements.values())


def _take(resources: Resources, need: Need) -> tuple[Resources, Resources]:
    result = resources.take(need)
    if result is None:
        raise ValueError(f"{need} does not fit into {resources}")
    return result


def merge_offers(offers: Sequence[AgentOffer]) -> list[AgentOffer]:
    """One AgentOffer per agent, in the order of their first appearance."""
    merged: dict[str, AgentOffer] = {}
    for offer in offers:
        known = merged.get(offer.agent_id)
        merged[offer.agent_id] = (
            offer
            if known is None
            else AgentOffer(
                known.agent_id,
                known.hostname,
                known.address,
                known.offer_ids + offer.offer_ids,
                known.resources + offer.resources,
            )
        )
    return list(merged.values())


def largest(resources: Sequence[Resources]) -> Resources:
    """The largest of several agents' resources: by cpus, then memory. NOTHING if there is none."""
    return max(resources, key=lambda r: (r.milli("cpus"), r.milli("mem")), default=NOTHING)
