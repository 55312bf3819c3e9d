"""Who serves: the set of parameter servers all tasks are told about. A new set is a new attempt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proto import control_pb2
from scheduler.slots import Slot


@dataclass(frozen=True)
class Members:
    """attempt 0: no set of servers has been complete yet."""

    attempt: int = 0
    servers: tuple[tuple[str, str], ...] = ()  #: (task id, address) by index

    def renewed(self, slots: Sequence[Slot]) -> Members:
        """The next attempt, if all server slots have said hello and differ from this set; else this one."""
        servers: list[tuple[str, str]] = []
        for slot in sorted(slots, key=lambda slot: slot.index):
            if slot.task is None or slot.task.hello is None:
                return self
            servers.append((slot.task.task_id, slot.task.hello.address))
        current = tuple(servers)
        return self if current == self.servers else Members(self.attempt + 1, current)

    def complete(self, slots: Sequence[Slot]) -> bool:
        """All of this set live; false for attempt 0, and while a lost server is being replaced."""
        live = {slot.task.task_id for slot in slots if slot.task is not None}
        return self.attempt > 0 and all(task_id in live for task_id, _ in self.servers)

    def message(self, workers: int) -> control_pb2.DriverMessage:
        servers = [
            control_pb2.Server(index=index, task_id=task_id, address=address)
            for index, (task_id, address) in enumerate(self.servers)
        ]
        membership = control_pb2.Membership(attempt=self.attempt, servers=servers, workers=workers)
        return control_pb2.DriverMessage(membership=membership)
