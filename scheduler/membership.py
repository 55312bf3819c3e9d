"""Who serves: the set of parameter servers all tasks are told about, and their replicas. Other servers: a new attempt.

With `--server-replicas 1` each server has two seats, the slots "server k" and "replica k". Which of their two tasks
serves is decided here and not by the slot: the one that does as long as it lives, then the other, if that has what the
first one had. So a replica takes its server's place where it is, and the task that is started in the empty seat becomes
its replica.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from proto import control_pb2
from scheduler.slots import Slot, Task

Seat = tuple[str, str]
"""Task id and address of a task."""

NOBODY: Seat = ("", "")


@dataclass(frozen=True)
class Members:
    """attempt 0: no set of servers has been complete yet."""

    attempt: int = 0
    servers: tuple[Seat, ...] = ()  #: by index
    replicas: tuple[Seat, ...] = ()  #: by index of their servers; NOBODY where there is none at the moment
    in_step: tuple[str, ...] = ()  #: task ids of replicas that have all that their servers have acknowledged
    former: tuple[Seat, ...] = ()  #: servers of the attempt before, by index, while their slices may be needed

    def renewed(self, slots: Iterable[Slot]) -> Members:
        """What the tasks in these slots, of servers and replicas, make of it; this one where a server is missing.

        The attempt is the next one if other tasks serve than in this one.
        """
        seats: dict[int, list[Slot]] = {}
        for slot in slots:
            seats.setdefault(slot.index, []).append(slot)
        servers, replicas = [], []
        for index in sorted(seats):
            tasks = [slot.task for slot in sorted(seats[index], key=lambda slot: slot.role != "server") if slot.task]
            first = [slot.task for slot in seats[index] if slot.task and slot.role == "server"]
            serving = self._serving(index, tasks if self.attempt else first)
            if serving is None:
                return self
            servers.append(_seat(serving))
            replicas.append(next((_seat(task) for task in tasks if task is not serving and task.hello), NOBODY))
        attempt = self.attempt if tuple(servers) == self.servers else self.attempt + 1
        in_step = tuple(task_id for task_id, _ in replicas if task_id in self.in_step)
        former = self.former if attempt == self.attempt else ()
        return Members(attempt, tuple(servers), tuple(replicas), in_step, former)

    def resized(self, slots: Iterable[Slot]) -> Members:
        """Another number of servers, who are all there: the tasks in these slots. Replicas are behind at first."""
        slots = list(slots)
        count = 1 + max(slot.index for slot in slots)
        renewed = replace(self, servers=self.servers[:count], in_step=()).renewed(slots)
        return replace(renewed, attempt=self.attempt + 1, former=self.servers)

    def _serving(self, index: int, tasks: Sequence[Task]) -> Task | None:
        present = self.servers[index][0] if index < len(self.servers) else ""
        for task in tasks:
            if task.task_id == present:
                return task
        ready = [task for task in tasks if task.hello]
        return next((task for task in ready if task.task_id in self.in_step), ready[0] if ready else None)

    def replicated(self, server: str, replica: str) -> Members:
        """A server says that its replica is in step."""
        index = next((index for index, (task_id, _) in enumerate(self.servers) if task_id == server), None)
        if index is None or not self.replicas or self.replicas[index][0] != replica or replica in self.in_step:
            return self  # of a server or a replica that is no more, or nothing new
        return replace(self, in_step=(*self.in_step, replica))

    def complete(self, slots: Iterable[Slot]) -> bool:
        """All servers of this set live; false for attempt 0, and while a lost server is being replaced."""
        live = {slot.task.task_id for slot in slots if slot.task is not None}
        return self.attempt > 0 and all(task_id in live for task_id, _ in self.servers)

    def serves(self, task_id: str) -> bool:
        """Whether this task is one of the servers. Before there is a set, all are that are to be."""
        return not self.servers or any(server == task_id for server, _ in self.servers)

    def survives(self, server: str) -> bool:
        """Whether a server has a replica that can take its place."""
        pairs = zip(self.servers, self.replicas, strict=False)
        return any(task_id == server and replica in self.in_step for (task_id, _), (replica, _) in pairs)

    def keeps_book(self, task_id: str) -> bool:
        """Whether this task keeps the lease book: what is said to the job as a whole is said to it."""
        return bool(self.servers) and self.servers[0][0] == task_id

    def message(self, workers: int) -> control_pb2.DriverMessage:
        servers = [
            control_pb2.Server(index=index, task_id=task_id, address=address)
            for index, (task_id, address) in enumerate(self.servers)
        ]
        for server, (task_id, address) in zip(servers, self.replicas, strict=False):
            server.replica_task_id, server.replica_address = task_id, address
        former = [
            control_pb2.Server(index=index, task_id=task_id, address=address)
            for index, (task_id, address) in enumerate(self.former)
        ]
        membership = control_pb2.Membership(attempt=self.attempt, servers=servers, workers=workers, former=former)
        return control_pb2.DriverMessage(membership=membership)


def _seat(task: Task) -> Seat:
    return (task.task_id, task.hello.address if task.hello else "")
