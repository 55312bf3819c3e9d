"""A job's slots: each wants one live task at any time; tasks come and go under new ids.

waiting --launch--> launched --status--> running --terminal status--> waiting (after a back-off)
                               `-- hello (control channel) --> joined
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from proto import control_pb2
from scheduler.placement import Want
from scheduler.plan import JobPlan, Patience


@dataclass
class Task:
    """One incarnation of a slot."""

    task_id: str
    agent_id: str
    hostname: str
    executor_id: str
    launched_at: float
    state: str = ""  #: last Mesos state, empty before the first status
    changed_at: float = 0.0  #: when `state` last changed
    hello: control_pb2.Hello | None = None
    attached: bool = False  #: has an open control stream
    silent_since: float = 0.0  #: when the stream was lost; meaningless while attached
    doubtful_since: float | None = None  #: since when the master has lost sight of it
    asked_at: float | None = None  #: when the master was last asked about it
    killed_at: float | None = None
    failure: str = ""  #: why it ended, as it said itself on the control channel, or why we killed it
    failure_detail: str = ""  #: the traceback it sent along


@dataclass
class Slot:
    """A place in the job: "worker 2", "server 0", "replica 0"."""

    role: str
    index: int
    incarnation: int = 0  #: of the current or last task, from 1
    task: Task | None = None
    failures: int = 0  #: in a row, without progress of the job in between
    not_before: float = 0.0  #: back-off: no launch earlier
    announced: bool = False  #: the master has been asked for offers since it became empty

    @property
    def name(self) -> str:
        return f"{self.role} {self.index}"

    def next_task_id(self, plan: JobPlan) -> str:
        self.incarnation += 1
        return f"{plan.job_id}.{self.role}-{self.index}.{self.incarnation}"

    def joined(self) -> bool:
        """It has a live task that has said hello (whose stream may be broken at the moment)."""
        return self.task is not None and self.task.hello is not None


@dataclass
class Slots:
    """All slots of a job, and the tasks it once had. Lookup by task id."""

    plan: JobPlan
    all: list[Slot] = field(default_factory=list)
    retired: set[str] = field(default_factory=set)  #: ids of tasks given up; if one shows up again it is killed
    _touched: dict[tuple[str, int], Slot] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for role in ("server", "replica", "worker"):
            self.all += [Slot(role, index) for index in range(self.plan.count(role))]

    def of(self, role: str) -> list[Slot]:
        return [slot for slot in self.all if slot.role == role]

    def seats(self) -> list[Slot]:
        """Those of servers and replicas."""
        return [slot for slot in self.all if slot.role != "worker"]

    def tasks(self) -> Iterator[tuple[Slot, Task]]:
        """Slots with a live task."""
        for slot in self.all:
            if slot.task is not None:
                yield slot, slot.task

    def find(self, task_id: str) -> tuple[Slot, Task] | None:
        """The slot whose live task this is."""
        for slot, task in self.tasks():
            if task.task_id == task_id:
                return slot, task
        return None

    def wants(self, now: float) -> list[Want]:
        """Empty slots whose back-off is over."""
        return [
            Want(slot.role, slot.index, self.plan.need(slot.role), self._other_host(slot))
            for slot in self.all
            if slot.task is None and slot.not_before <= now
        ]

    def _other_host(self, slot: Slot) -> str:
        """Where the other one of a server and its replica runs."""
        others = (other for other in self.all if slot.role != "worker" != other.role and other.index == slot.index)
        return next((other.task.hostname for other in others if other is not slot and other.task), "")

    def slot(self, role: str, index: int) -> Slot:
        return next(slot for slot in self.all if slot.role == role and slot.index == index)

    def ensure(self, role: str, index: int) -> Slot:
        """The slot, made if the plan does not know it: the job had another size when it was written down."""
        found = [slot for slot in self.all if slot.role == role and slot.index == index]
        if not found:
            found = [Slot(role, index)]
            self.all += found
        return found[0]

    def touch(self, slot: Slot) -> None:
        """What a restarted driver must know of the slot has changed: to be written down before anything is done."""
        self._touched[slot.role, slot.index] = slot

    def take_touched(self) -> list[Slot]:
        """Slots touched since the last call."""
        touched, self._touched = self._touched, {}
        return list(touched.values())

    def vacate(self, slot: Slot, now: float, patience: Patience, counts: bool) -> None:
        """The slot's task is gone. `counts`: as a failure, with growing back-off; else it is relaunched soon."""
        if slot.task is not None:
            self.retired.add(slot.task.task_id)
        slot.task = None
        slot.announced = False
        self.touch(slot)
        if counts:
            slot.failures += 1
        if slot.failures >= 2:
            delay_s = patience.backoff_first_s * 2 ** (slot.failures - 2)
        else:  # the first failure is made good at once; what is nobody's fault could otherwise repeat without end
            delay_s = 0.0 if counts else patience.backoff_first_s
        slot.not_before = now + min(delay_s, patience.backoff_max_s)

    def progressed(self) -> None:
        """The job got further: what failed before has been overcome."""
        for slot in self.all:
            if slot.failures:
                slot.failures = 0
                self.touch(slot)
