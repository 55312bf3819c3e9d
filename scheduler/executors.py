"""The executors of a job: one per agent, each with the resources it was launched with.

Where workers run on revocable cpus there is a second one for them: Mesos lets no executor have both kinds.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Executor:
    executor_id: str
    agent_id: str
    info: dict[str, Any]  #: ExecutorInfo as launched; later tasks must repeat it to the letter
    confirmed: bool = False  #: a task of it has been seen alive
    revocable: bool = False
    idle_since: float | None = field(default=None, init=False)  #: since when it has been seen without a task
    certain: bool = field(default=True, init=False)  #: not if a driver died that may not have launched it after all


@dataclass
class Executors:
    """Ids are numbered through, so that a new executor never meets the remains of one before it."""

    job_id: str
    launched: int = 0
    _by_place: dict[tuple[str, bool], Executor] = field(default_factory=dict)
    _touched: set[tuple[str, bool]] = field(default_factory=set)

    def touch(self, agent_id: str, revocable: bool) -> None:
        """The agent's executor has changed: to be written down before anything is done."""
        self._touched.add((agent_id, revocable))

    def take_touched(self) -> set[tuple[str, bool]]:
        """Agents and kinds touched since the last call."""
        touched, self._touched = self._touched, set()
        return touched

    def all(self) -> Collection[Executor]:
        """Those that run, as far as is known. A copy."""
        return list(self._by_place.values())

    def at(self, agent_id: str, revocable: bool = False) -> Executor | None:
        """The one on that agent."""
        return self._by_place.get((agent_id, revocable))

    def next_id(self) -> str:
        self.launched += 1
        return f"{self.job_id}.executor-{self.launched}"

    def add(self, agent_id: str, executor_id: str, info: dict[str, Any], revocable: bool = False) -> Executor:
        executor = Executor(executor_id, agent_id, info, revocable=revocable)
        self.restore(executor)
        return executor

    def restore(self, executor: Executor) -> None:
        """It runs, as was written down."""
        self._by_place[executor.agent_id, executor.revocable] = executor
        self.touch(executor.agent_id, executor.revocable)

    def find(self, agent_id: str, executor_id: str) -> Executor | None:
        for revocable in (False, True):
            executor = self._by_place.get((agent_id, revocable))
            if executor is not None and executor.executor_id == executor_id:
                return executor
        return None

    def confirm(self, agent_id: str, executor_id: str) -> None:
        executor = self.find(agent_id, executor_id)
        if executor is not None and not executor.confirmed:
            executor.confirmed = executor.certain = True
            self.touch(agent_id, executor.revocable)

    def forget(self, agent_id: str, executor_id: str) -> None:
        """It is gone: the next task on this agent brings a new one, with resources of its own."""
        executor = self.find(agent_id, executor_id)
        if executor is not None:
            del self._by_place[agent_id, executor.revocable]
            self.touch(agent_id, executor.revocable)
