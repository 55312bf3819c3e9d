"""What the framework remembers of agents beyond its tasks: planned maintenance, and who fails tasks again and again."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.plan import Patience

_ONE_EVENT_S = 1.0  #: failures of one agent within that time have one cause: an executor that died with all its tasks
_KEPT = 1000  #: agents without failures that are remembered, for comparison


@dataclass
class _Record:
    failures: int = 0
    failed_at: float = 0.0
    avoided_until: float = 0.0


@dataclass(frozen=True)
class Maintenance:
    """`begins`: on the framework's clock; `until`: likewise, infinite if it has no planned end."""

    begins: float
    until: float


class Agents:
    """Which agents get no task at the moment."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._records: dict[str, _Record] = {}  #: of agents that failed a task
        self._good: dict[str, None] = {}  #: some of those that did not
        self.maintenance: dict[str, Maintenance] = {}

    def offers(self, agent_id: str, maintenance_in_s: float | None, now: float) -> None:
        """It makes an offer, which says when its maintenance begins, if any is planned."""
        self._seen(agent_id)
        if maintenance_in_s is None:
            self.maintenance.pop(agent_id, None)
        elif agent_id not in self.maintenance:
            self.plan_maintenance(agent_id, now + maintenance_in_s, None)

    def _seen(self, agent_id: str) -> None:
        if len(self._good) < _KEPT and agent_id not in self._records:
            self._good[agent_id] = None

    def failed(self, agent_id: str, now: float) -> float:
        """A task failed on it. Returns for how long the agent is avoided: 0 unless others do better."""
        record = self._records.setdefault(agent_id, _Record())
        self._good.pop(agent_id, None)
        if record.failures and now - record.failed_at < _ONE_EVENT_S:
            return 0.0
        record.failures += 1
        record.failed_at = now
        beyond = record.failures - self._patience.agent_failures
        if beyond < 0 or not self._others_do_better(agent_id, record.failures):
            return 0.0
        avoid_s: float = min(self._patience.avoid_first_s * 2**beyond, self._patience.avoid_max_s)
        record.avoided_until = now + avoid_s
        return avoid_s

    def _others_do_better(self, agent_id: str, failures: int) -> bool:
        """Where every agent fails tasks the fault is the job's."""
        return bool(self._good) or any(
            record.failures < failures for other, record in self._records.items() if other != agent_id
        )

    def failing(self) -> list[str]:
        """Ids of those that failed a task and have not helped since."""
        return list(self._records)

    def worked(self, agent_id: str) -> None:
        """A task on it helped the job on: what failed there before does not count any more."""
        if self._records.pop(agent_id, None) is not None:
            self._seen(agent_id)

    def gone(self, agent_id: str) -> None:
        """The master has removed it; it will not come back under this id."""
        self._records.pop(agent_id, None)
        self._good.pop(agent_id, None)
        self.maintenance.pop(agent_id, None)

    def plan_maintenance(self, agent_id: str, begins: float, duration_s: float | None) -> None:
        """The operator has said when it will be gone."""
        until = float("inf") if duration_s is None else begins + duration_s
        self.maintenance[agent_id] = Maintenance(begins, until)

    def draining(self, agent_id: str, now: float) -> bool:
        """Its maintenance is so near that its tasks move away."""
        planned = self.maintenance.get(agent_id)
        return planned is not None and planned.begins - self._patience.drain_s <= now < planned.until

    def avoided_s(self, agent_id: str, now: float) -> float:
        """Seconds for which it is to get no task; 0 if it may."""
        record = self._records.get(agent_id)
        left_s = max(0.0, record.avoided_until - now) if record else 0.0
        if self.draining(agent_id, now):
            left_s = max(left_s, self._patience.refuse_idle_s)
        return left_s
