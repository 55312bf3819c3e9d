"""Which task goes to which agent: offers and needs in, launches out. Pure.

Servers first, because without all of them nothing trains, and spread over hosts, because a lost host should take as
little state as possible. Then their replicas, each on another host than its server if there is one. Then workers:
spread, each to the agent of the fewest workers, so that they share the cores; or packed, each to the agent that has
most of the job already, so that others find whole agents. Servers that are to be colocated come after the workers, to
agents that have some, each of which keeps room for one. To an agent that is to go into maintenance only if there is
no room elsewhere.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from scheduler.constraints import Census
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
    attributes: Mapping[str, str] = field(default_factory=dict)  #: what constraints can name, `hostname` included
    maintenance_in_s: float | None = None  #: seconds until the agent's planned maintenance begins, if there is one


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
    revocable: bool = False  #: its cpus are; its executor is the revocable one


@dataclass
class Placement:
    """What to launch on one agent. An executor is None where it is not needed or runs already."""

    offer: AgentOffer
    left: Resources
    executor: Resources | None = None
    revocable_executor: Resources | None = None  #: of tasks with revocable cpus, which must not share one with others
    launches: list[Launch] = field(default_factory=list)


@dataclass(frozen=True)
class Occupancy:
    """What of the job runs on an agent already."""

    hostname: str
    servers: int = 0  #: and replicas
    workers: int = 0
    executor: bool = False
    revocable_executor: bool = False


@dataclass
class _Site:
    """An offer while it is being used up."""

    placement: Placement
    servers: int
    workers: int
    executors: set[bool]  #: which there are; True: the revocable one

    @property
    def offer(self) -> AgentOffer:
        return self.placement.offer

    def need(self, want: Want, executor_need: Need, revocable: bool) -> Need:
        return want.need if revocable in self.executors else want.need + executor_need

    def put(self, want: Want, executor_need: Need, revocable: bool) -> None:
        placement = self.placement
        if revocable not in self.executors:
            taken, placement.left = _take(placement.left, executor_need, revocable)
            if revocable:
                placement.revocable_executor = taken
            else:
                placement.executor = taken
            self.executors.add(revocable)
        taken, placement.left = _take(placement.left, want.need, revocable)
        placement.launches.append(Launch(want, taken, revocable))
        self.servers += want.role != "worker"
        self.workers += want.role == "worker"


def place(
    wants: Sequence[Want],
    offers: Sequence[AgentOffer],
    executor_need: Need,
    running: Mapping[str, Occupancy],
    census: Census | None = None,
    pack: bool = False,
    revocable: bool = False,
    colocated: Need | None = None,
) -> list[Placement]:
    """Fits as many wants as possible, in the order servers, replicas, workers, each by index.

    Args:
        wants: slots to fill.
        offers: one per agent.
        executor_need: taken once on each agent that has no executor of the job yet.
        running: what of the job runs, by agent id, of all agents that make an offer or have a server.
        census: the constraints and the tasks they count; those placed here are added to it.
        pack: workers on few agents, not on many.
        revocable: workers may run on revocable cpus, and do so where there are any.
        colocated: what a server needs that is to run beside workers; None: servers go anywhere, and first.

    Returns:
        One Placement per agent that gets at least one task. For each: what the executors, the launches and `left` hold
        is together what the agent offered.
    """
    return _Placer(offers, executor_need, running, census or Census(()), pack, revocable, colocated).place(wants)


class _Placer:
    def __init__(
        self,
        offers: Sequence[AgentOffer],
        executor_need: Need,
        running: Mapping[str, Occupancy],
        census: Census,
        pack: bool,
        revocable: bool,
        colocated: Need | None,
    ) -> None:
        self._executor_need = executor_need
        self._census = census
        self._pack = pack
        self._revocable = revocable
        self._colocated = colocated
        self._order = _ORDER if colocated is None else {**_ORDER, "worker": -1}
        self._sites = []
        for offer in offers:
            known = running.get(offer.agent_id) or Occupancy(offer.hostname)
            executors = {kind for kind, there in ((False, known.executor), (True, known.revocable_executor)) if there}
            self._sites.append(_Site(Placement(offer, offer.resources), known.servers, known.workers, executors))
        self._hosts: dict[int, str] = {}  # index of a server -> where it or its replica was placed
        self._servers_on_host: dict[str, int] = {}
        for occupancy in running.values():
            if occupancy.servers:
                count = self._servers_on_host.get(occupancy.hostname, 0) + occupancy.servers
                self._servers_on_host[occupancy.hostname] = count

    def place(self, wants: Sequence[Want]) -> list[Placement]:
        def kind(want: Want) -> tuple[str, Need]:
            return want.role, want.need

        # Of wants that are alike, one that finds no room shows that the others will not either.
        for (role, _), alike in groupby(sorted(wants, key=lambda want: (self._order[want.role], want.index)), key=kind):
            if role == "worker" and not self._census.concerns(role):
                self._place_workers(alike)
            else:
                self._place_one_by_one(alike)
        return [site.placement for site in self._sites if site.placement.launches]

    def _place_workers(self, wants: Iterator[Want]) -> None:
        """The best site, again and again, from a heap: no constraint changes which sites are good."""
        want = next(wants)
        candidates = self._candidates(want)
        heap = [(self._worker_key(*candidate), number) for number, candidate in enumerate(candidates)]
        heapq.heapify(heap)
        following: Want | None = want
        while heap and following is not None:
            _, number = heap[0]
            site, revocable = candidates[number]
            if not self._fits(site, want, revocable):
                heapq.heappop(heap)
                continue
            site.put(following, self._executor_need, revocable)
            heapq.heapreplace(heap, (self._worker_key(site, revocable), number))
            following = next(wants, None)

    def _place_one_by_one(self, wants: Iterator[Want]) -> None:
        for want in wants:
            candidates = [
                candidate
                for candidate in self._candidates(want)
                if self._census.allows(want.role, candidate[0].offer.attributes)
            ]
            if not candidates:
                return
            if want.role != "worker":
                apart_from = want.apart_from or self._hosts.get(want.index, "")
                site, revocable = min(candidates, key=lambda candidate: self._server_key(candidate[0], apart_from))
                host = self._hosts[want.index] = site.offer.hostname
                self._servers_on_host[host] = self._servers_on_host.get(host, 0) + 1
            else:
                site, revocable = min(candidates, key=lambda candidate: self._worker_key(*candidate))
            site.put(want, self._executor_need, revocable)
            self._census.add(want.role, site.offer.attributes)

    def _candidates(self, want: Want) -> list[tuple[_Site, bool]]:
        kinds = (True, False) if self._revocable and want.role == "worker" else (False,)
        return [(site, kind) for site in self._sites for kind in kinds if self._fits(site, want, kind)]

    def _fits(self, site: _Site, want: Want, revocable: bool) -> bool:
        need = site.need(want, self._executor_need, revocable)
        if self._colocated is not None and want.role == "server" and not site.workers:
            return False
        if self._colocated is not None and want.role == "worker" and not site.servers and not revocable:
            need = need + self._colocated
        return site.placement.left.fits(need, revocable)

    def _server_key(self, site: _Site, apart_from: str) -> tuple[Any, ...]:
        on_host = self._servers_on_host.get(site.offer.hostname, 0)
        shared = site.offer.hostname == apart_from
        return (_planned(site), shared, on_host, site.servers, -site.placement.left.cpus, site.offer.agent_id)

    def _worker_key(self, site: _Site, revocable: bool) -> tuple[Any, ...]:
        left, agent_id = site.placement.left.cpus, site.offer.agent_id
        crowd = self._census.crowd("worker", site.offer.attributes)
        if self._pack:
            return (_planned(site), not revocable, crowd, -site.workers - site.servers, left, agent_id)
        return (_planned(site), not revocable, crowd, site.workers, site.servers, -left, agent_id)


def _planned(site: _Site) -> bool:
    return site.offer.maintenance_in_s is not None


def _take(resources: Resources, need: Need, revocable: bool) -> tuple[Resources, Resources]:
    result = resources.take(need, revocable)
    if result is None:
        raise ValueError(f"{need} does not fit into {resources}")
    return result


def merge_offers(offers: Sequence[AgentOffer]) -> list[AgentOffer]:
    """One AgentOffer per agent, in the order of their first appearance."""
    merged: dict[str, AgentOffer] = {}
    for offer in offers:
        known = merged.get(offer.agent_id)
        if known is None:
            merged[offer.agent_id] = offer
            continue
        ids, resources = known.offer_ids + offer.offer_ids, known.resources + offer.resources
        merged[offer.agent_id] = replace(known, offer_ids=ids, resources=resources)
    return list(merged.values())


def largest(resources: Sequence[Resources]) -> Resources:
    """The largest of several agents' resources: by cpus, then memory. NOTHING if there is none."""
    return max(resources, key=lambda r: (r.cpus, r.mem_mb), default=NOTHING)
