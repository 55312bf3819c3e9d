"""The executors of a job: one per agent, each with the resources it was launched with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Executor:
    executor_id: str
    agent_id: str
    info: dict[str, Any]  #: ExecutorInfo as launched; later tasks must repeat it to the letter
    confirmed: bool = False  #: a task of it has been seen alive
    certain: bool = field(default=True, init=False)  #: not if a driver died that may not have launched it after all


@dataclass
class Executors:
    """By agent id. Ids are numbered through, so that a new executor never meets the remains of one before it."""

    job_id: str
    by_agent: dict[str, Executor] = field(default_factory=dict)
    launched: int = 0
    _touched: set[str] = field(default_factory=set)

    def touch(self, agent_id: str) -> None:
        """The agent's executor has changed: to be written down before anything is done."""
        self._touched.add(agent_id)

    def take_touched(self) -> set[str]:
        """Agents touched since the last call."""
        touched, self._touched = self._touched, set()
        return touched

    def next_id(self) -> str:
        self.launched += 1
        return f"{self.job_id}.executor-{self.launched}"

    def add(self, agent_id: str, executor_id: str, info: dict[str, Any]) -> Executor:
        executor = Executor(executor_id, agent_id, info)
        self.by_agent[agent_id] = executor
        self.touch(agent_id)
        return executor

    def confirm(self, agent_id: str, executor_id: str) -> None:
        executor = self.by_agent.get(agent_id)
        if executor is not None and executor.executor_id == executor_id and not executor.confirmed:
            executor.confirmed = executor.certain = True
            self.touch(agent_id)

    def forget(self, agent_id: str, executor_id: str) -> None:
        """It is gone: the next task on this agent brings a new one, with resources of its own."""
        executor = self.by_agent.get(agent_id)
        if executor is not None and executor.executor_id == executor_id:
            del self.by_agent[agent_id]
            self.touch(agent_id)
