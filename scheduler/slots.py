"""A job's slots: each wants one live task at any time; tasks come and go under new ids.

waiting --launch--> launched --status--> running --terminal status--> waiting (after a back-off)
                               `-- hello (control channel) --> joined
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice

from proto import control_pb2
from scheduler.placement import Want
from scheduler.plan import JobPlan, Patience
from scheduler.resources import Need


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
    leaving: str = ""  #: why it was asked to go, though nothing is wrong with it
    attributes: Mapping[str, str] = field(default_factory=dict)  #: of its agent, for constraints
    revocable: bool = False  #: runs on resources that Mesos may take away


@dataclass
class Slot:
    """A place in the job: "worker 2", "server 0", "replica 0"."""

    role: str
    index: int
    incarnation: int = 0  #: of the current or last task, from 1
    task: Task | None = None
    failures: int = 0  #: in a row, without progress of the job in between
    not_before: float = 0.0  #: back-off: no launch earlier
    open: bool = True  #: wants a task; a closed slot stays empty, or becomes so
    mem_factor: float = 1.0  #: of the plan's memory, after its task was killed for memory

    @property
    def name(self) -> str:
        return f"{self.role} {self.index}"

    def next_task_id(self, plan: JobPlan) -> str:
        self.incarnation += 1
        return f"{plan.job_id}.{self.role}-{self.index}.{self.incarnation}"

    def joined(self) -> bool:
        """It has a live task that has said hello (whose stream may be broken at the moment)."""
        return self.task is not None and self.task.hello is not None


class Slots:
    """All slots of a job. Lookups by task and by agent cost the same however many there are.

    Slots are only ever added: a slot that is not wanted any more is closed, so that its task ids stay unique.
    """

    def __init__(self, plan: JobPlan) -> None:
        self.plan = plan
        self.all: list[Slot] = []
        self._by_role: dict[str, list[Slot]] = {"server": [], "replica": [], "worker": []}
        self._by_task: dict[str, Slot] = {}
        self._by_agent: dict[str, dict[str, Slot]] = {}  #: agent id -> task id -> slot
        self._empty: dict[tuple[str, int], Slot] = {}  #: open, without a task
        self._asked: Counter[tuple[str, float]] = Counter()  #: roles and memory factors of those
        self._unannounced: dict[tuple[str, int], Slot] = {}  #: those that no offers have been asked for yet
        self._touched: dict[tuple[str, int], Slot] = {}
        self._failed: list[Slot] = []  #: since the job last got further
        for role in ("server", "replica", "worker"):
            for _ in range(plan.count(role)):
                self.add(role)

    def add(self, role: str) -> Slot:
        """A new open slot, with the next index of its role."""
        slot = Slot(role, len(self._by_role[role]))
        self._by_role[role].append(slot)
        self.all.append(slot)
        self._emptied(slot)
        return slot

    def _emptied(self, slot: Slot) -> None:
        self._taken(slot)
        self._asked[slot.role, slot.mem_factor] += 1
        self._empty[slot.role, slot.index] = self._unannounced[slot.role, slot.index] = slot

    def _taken(self, slot: Slot) -> None:
        if self._empty.pop((slot.role, slot.index), None) is not None:
            key = slot.role, slot.mem_factor
            self._asked[key] -= 1
            if not self._asked[key]:
                del self._asked[key]
        self._unannounced.pop((slot.role, slot.index), None)

    def of(self, role: str) -> list[Slot]:
        """By index."""
        return self._by_role[role]

    def slot(self, role: str, index: int) -> Slot:
        return self._by_role[role][index]

    def seats(self) -> list[Slot]:
        """Those of servers and replicas."""
        return [*self._by_role["server"], *self._by_role["replica"]]

    def _other_host(self, slot: Slot) -> str:
        """Where the other one of a server and its replica runs."""
        role = {"server": "replica", "replica": "server"}.get(slot.role, "")
        others = self._by_role[role] if role else []
        other = others[slot.index].task if slot.index < len(others) else None
        return other.hostname if other is not None else ""

    def tasks(self) -> Iterator[tuple[Slot, Task]]:
        """Slots with a live task. May be changed meanwhile."""
        for slot in list(self._by_task.values()):
            if slot.task is not None:
                yield slot, slot.task

    def on_agent(self, agent_id: str) -> list[tuple[Slot, Task]]:
        """Those whose task is on that agent."""
        found = self._by_agent.get(agent_id)
        return [(slot, slot.task) for slot in found.values() if slot.task is not None] if found else []

    def agents(self) -> Iterator[str]:
        """Ids of the agents that have a task."""
        return iter(list(self._by_agent))

    def find(self, task_id: str) -> tuple[Slot, Task] | None:
        """The slot whose live task this is."""
        slot = self._by_task.get(task_id)
        return None if slot is None or slot.task is None else (slot, slot.task)

    def ensure(self, role: str, index: int) -> Slot:
        """The slot, made if the plan does not know it: the job had another size when it was written down."""
        while len(self._by_role[role]) <= index:
            self.add(role)
        return self._by_role[role][index]

    def touch(self, slot: Slot) -> None:
        """What a restarted driver must know of the slot has changed: to be written down before anything is done."""
        self._touched[slot.role, slot.index] = slot

    def take_touched(self) -> list[Slot]:
        """Slots touched since the last call."""
        touched, self._touched = self._touched, {}
        return list(touched.values())

    def fill(self, slot: Slot, task: Task) -> None:
        """The slot has a task from now on."""
        self.touch(slot)
        slot.task = task
        self._by_task[task.task_id] = slot
        self._by_agent.setdefault(task.agent_id, {})[task.task_id] = slot
        self._taken(slot)

    def empty(self) -> Iterator[Slot]:
        """Open slots without a task."""
        return iter(self._empty.values())

    def announce(self, now: float) -> bool:
        """Whether there are empty slots whose back-off is over and that no offers have been asked for; now they are."""
        due = [key for key, slot in self._unannounced.items() if slot.not_before <= now]
        for key in due:
            del self._unannounced[key]
        return bool(due)

    def wanting(self, now: float) -> bool:
        """Whether there are empty slots whose back-off is over."""
        return any(slot.not_before <= now for slot in self._empty.values())

    def wants(self, now: float, most: int | None = None) -> list[Want]:
        """Empty slots whose back-off is over; no more than `most` of them, servers first."""
        slots: Iterator[Slot] = (slot for slot in self._empty.values() if slot.not_before <= now)
        if most is not None and len(self._empty) > most:
            servers = (slot for slot in self.seats() if slot.open and slot.task is None)
            ready = (slot for slot in servers if slot.not_before <= now)
            workers = (slot for slot in slots if slot.role == "worker")
            slots = islice(chain(ready, workers), most)
        return [Want(slot.role, slot.index, self.need(slot), self._other_host(slot)) for slot in slots]

    def give_memory(self, slot: Slot, factor: float) -> None:
        """Its next tasks get so many times the plan's memory."""
        empty = (slot.role, slot.index) in self._empty
        if empty:
            self._taken(slot)
        slot.mem_factor = factor
        if empty:
            self._emptied(slot)

    def need(self, slot: Slot) -> Need:
        """What its next task asks for."""
        return self._need(slot.role, slot.mem_factor)

    def needs(self) -> set[Need]:
        """What the next tasks of empty slots ask for, those that are backing off included: never many."""
        return {self._need(*key) for key in self._asked}

    def _need(self, role: str, mem_factor: float) -> Need:
        need = self.plan.need(role)
        return need if mem_factor == 1.0 else Need(need.cpus, need.mem_mb * mem_factor, need.ports)

    def open(self, slot: Slot) -> None:
        """It is wanted (again)."""
        self.touch(slot)
        slot.open = True
        if slot.task is None:
            self._emptied(slot)

    def close(self, slot: Slot) -> None:
        """It is wanted no more. Its task, if it has one, must be asked to go."""
        self.touch(slot)
        slot.open = False
        slot.failures = 0
        self._taken(slot)

    def vacate(self, slot: Slot, now: float, patience: Patience, counts: bool) -> None:
        """The slot's task is gone. `counts`: as a failure, with growing back-off; else it is relaunched soon."""
        if slot.task is not None:
            del self._by_task[slot.task.task_id]
            neighbours = self._by_agent[slot.task.agent_id]
            del neighbours[slot.task.task_id]
            if not neighbours:
                del self._by_agent[slot.task.agent_id]
        slot.task = None
        self.touch(slot)
        if slot.open:
            self._emptied(slot)
        if counts:
            slot.failures += 1
            self._failed.append(slot)
        if slot.failures >= 2:
            delay_s = patience.backoff_first_s * 2 ** (slot.failures - 2)
        else:  # the first failure is made good at once; what is nobody's fault could otherwise repeat without end
            delay_s = 0.0 if counts else patience.backoff_first_s
        slot.not_before = now + min(delay_s, patience.backoff_max_s)

    def progressed(self) -> None:
        """The job got further: what failed before has been overcome."""
        for slot in self._failed:
            if slot.failures:
                slot.failures = 0
                self.touch(slot)
        self._failed.clear()
