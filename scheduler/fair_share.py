"""What part of the cluster a job may keep while other frameworks wait for resources. Pure.

Mesos' allocator is fair with what is free (dominant resource fairness: Ghodsi et al., NSDI 2011), but it takes nothing
back: whoever came first to a full cluster keeps it. So every job looks, now and then, at what all frameworks hold and
which of them ask for more, works out the shares that DRF would have come to, and gives up what it has beyond its own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from scheduler.plan import JobPlan, Patience
from scheduler.resources import Need

_ROUNDS = 50  #: of bisection
_EPSILON = 1e-6
EXPECTED_S = 15.0  #: for a framework to take what was given up for it
SETTLE_S = 5.0  #: for all of them to do so, before more is given up


@dataclass(frozen=True)
class Party:
    """One framework in one role."""

    framework_id: str
    role: str
    cpus: float  #: allocated
    mem_mb: float
    hungry: bool  #: takes offers: it is active and has not suppressed them


@dataclass(frozen=True)
class RoleTerms:
    """What the operator has set for a role."""

    weight: float = 1.0
    guarantee: Need = field(default_factory=lambda: Need(0, 0))
    full: bool = False  #: it has reached the limit of its quota


@dataclass(frozen=True)
class ClusterShares:
    """Who has what of the cluster. Totals in cores and MB."""

    cpus: float
    mem_mb: float
    parties: tuple[Party, ...]
    roles: Mapping[str, RoleTerms] = field(default_factory=dict)
    #: by agent id; pieces on two agents are no room for one task. Empty: not known.
    free: Mapping[str, Need] = field(default_factory=dict)

    def has_room(self, need: Need) -> bool:
        """Whether some agent has that much free."""
        pieces = self.free.values() or (
            Need(
                self.cpus - sum(party.cpus for party in self.parties),
                self.mem_mb - sum(party.mem_mb for party in self.parties),
            ),
        )
        return any(piece.cpus >= need.cpus - _EPSILON and piece.mem_mb >= need.mem_mb - _EPSILON for piece in pieces)

    def without_scraps(self, need: Need) -> ClusterShares:
        """Without what is free but too small for a task of that size: it is nobody's, and not to be shared.

        On each agent only of what it has least: that is what keeps another task away.
        """
        cpus, mem_mb = self.cpus, self.mem_mb
        for piece in self.free.values():
            by_cpus, by_mem = piece.cpus / need.cpus + _EPSILON, piece.mem_mb / need.mem_mb + _EPSILON
            if by_cpus <= by_mem:
                cpus -= max(0.0, piece.cpus - int(by_cpus) * need.cpus)
            else:
                mem_mb -= max(0.0, piece.mem_mb - int(by_mem) * need.mem_mb)
        return replace(self, cpus=cpus, mem_mb=mem_mb)


@dataclass(frozen=True)
class _Claim:
    """What one party gets at most (`demand`), at least (`floor`), and of what kind."""

    weight: float
    floor: float  #: dominant share
    demand: float
    cpus: float  #: per unit of dominant share, as parts of the cluster
    mem: float


def fill(claims: Sequence[_Claim]) -> list[float]:
    """Dominant shares, as large as the cluster allows, equal by weight but for floors and demands (DRF by filling)."""

    def at(level: float) -> list[float]:
        return [min(claim.demand, max(claim.floor, level * claim.weight)) for claim in claims]

    def possible(shares: Sequence[float]) -> bool:
        cpus = sum(share * claim.cpus for share, claim in zip(shares, claims, strict=True))
        mem = sum(share * claim.mem for share, claim in zip(shares, claims, strict=True))
        return max(cpus, mem) <= 1.0

    low, high = 0.0, 1.0 / min((claim.weight for claim in claims), default=1.0)
    if possible(at(high)):
        return at(high)
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if possible(at(middle)) else (low, middle)
    return at(low)


class FairShare:
    """Remembers for whom something was given up, so that who does not take it is not waited for."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._expected: dict[tuple[str, str], float] = {}  #: (framework, role) -> share when something was given up
        self._expected_until = 0.0
        self._kept = 0  #: workers that were not given up then
        self._settled_at = 0.0
        self._refused: dict[tuple[str, str], tuple[float, float]] = {}  #: -> (until when, share then)

    def workers(
        self, cluster: ClusterShares, framework_id: str, plan: JobPlan, base: Need, have: int, now: float
    ) -> int | None:
        """How many workers the job may have; None if nobody else is owed anything.

        Args:
            cluster: the present.
            framework_id: of the job.
            plan: the job.
            base: what the job holds for servers and executors.
            have: workers it has and keeps for now.
            now: seconds.
        """
        need, whole = plan.worker_need, cluster
        cluster = cluster.without_scraps(need)
        if cluster.cpus <= 0 or cluster.mem_mb <= 0:
            return None
        mine = Party(
            framework_id, plan.role, base.cpus + have * need.cpus, base.mem_mb + have * need.mem_mb, hungry=True
        )
        others = [party for party in cluster.parties if party.framework_id != framework_id]
        shares = {_key(party): _dominant(party, cluster) for party in others}
        held = {_key(party): _dominant(party, whole) for party in others}  # which does not change with the scraps
        self._update(held, cluster.has_room(need + plan.executor_need), now)
        hungry = [
            party.hungry and _key(party) not in self._refused and not _terms(cluster, party).full for party in others
        ]
        if not any(hungry):
            return None
        parties = [mine, *others]
        members = Counter(party.role for party in parties)
        my_kind = _kind(mine, cluster) or (1.0, 1.0)
        claims = []
        for party, wants in zip(parties, [True, *hungry], strict=True):
            cpus, mem = _kind(party, cluster) or my_kind
            terms = _terms(cluster, party)
            demand = 1.0 if wants else _dominant(party, cluster)
            guarantee = max(terms.guarantee.cpus / cluster.cpus, terms.guarantee.mem_mb / cluster.mem_mb)
            count = members[party.role]
            claims.append(_Claim(terms.weight / count, min(demand, guarantee / count), demand, cpus, mem))
        fair = fill(claims)
        allowed = min(
            (fair[0] * cluster.cpus - base.cpus) / need.cpus, (fair[0] * cluster.mem_mb - base.mem_mb) / need.mem_mb
        )
        keep = max(0, math.ceil(allowed - _EPSILON))
        worker = max(need.cpus / cluster.cpus, need.mem_mb / cluster.mem_mb)
        after = (_dominant(mine, cluster) - worker / 2) / max(fair[0], _EPSILON)
        owed = {
            _key(party): share
            for party, share, wants in zip(others, fair[1:], hungry, strict=True)
            if wants and _lacks(shares[_key(party)], share, worker, after)
        }  # to whom, and how much in all
        settled = not self._expected and now >= self._settled_at
        rounded = keep >= have and allowed < have and settled
        if rounded and any((shares[key] + worker) / share <= after for key, share in owed.items()):
            # With one of our workers somebody would have no more of what is fair for him than we of ours, but for the
            # half of a worker, since executors and servers never add up evenly.
            keep = have - 1
        if keep < have and not owed:
            return have
        if keep < have and have > plan.min_workers and settled:
            self._expected = {key: held[key] for key in owed}
            self._expected_until, self._settled_at = now + EXPECTED_S, now + SETTLE_S
            self._kept = keep
        return min(keep, self._kept) if self._expected else keep  # what others are to take is not taken back meanwhile

    def _update(self, shares: Mapping[tuple[str, str], float], room: bool, now: float) -> None:
        """`shares`: what others hold, as parts of the cluster; `room`: what was given up is still free."""
        for key, (until, share) in list(self._refused.items()):
            if now >= until or abs(shares.get(key, -1.0) - share) > _EPSILON:
                del self._refused[key]
        for key, share in list(self._expected.items()):
            if key not in shares or shares[key] > share + _EPSILON:
                del self._expected[key]
            elif now >= self._expected_until:
                if room:  # else somebody else has taken it, or it lies in pieces
                    self._refused[key] = (now + self._patience.refused_s, shares[key])
                del self._expected[key]


def _lacks(has: float, fair: float, worker: float, after: float) -> bool:
    """Less than its share by a whole worker, or by less but still no better off with one than who would give it up."""
    return has < fair - _EPSILON and (has + worker <= fair + _EPSILON or (has + worker) / fair <= after)


def _key(party: Party) -> tuple[str, str]:
    return party.framework_id, party.role


def _terms(cluster: ClusterShares, party: Party) -> RoleTerms:
    return cluster.roles.get(party.role, RoleTerms())


def _dominant(party: Party, cluster: ClusterShares) -> float:
    return max(party.cpus / cluster.cpus, party.mem_mb / cluster.mem_mb)


def _kind(party: Party, cluster: ClusterShares) -> tuple[float, float] | None:
    """Parts of the cluster's cpus and memory that one unit of dominant share holds; None if it holds nothing."""
    dominant = _dominant(party, cluster)
    if dominant <= 0:
        return None
    return party.cpus / cluster.cpus / dominant, party.mem_mb / cluster.mem_mb / dominant
