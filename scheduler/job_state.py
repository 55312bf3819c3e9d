"""What the parts of the framework's state machine share."""

from __future__ import annotations

from dataclasses import dataclass, field

from scheduler import actions as act
from scheduler.agents import Agents
from scheduler.executors import Executors
from scheduler.membership import Members
from scheduler.plan import JobPlan, Patience
from scheduler.progress_marks import Marks
from scheduler.reconciliation import Reconciliation
from scheduler.slots import Slots


@dataclass
class Size:
    """How many workers and servers the user wants, which `mesograd scale` changes."""

    target: int  #: workers
    minimum: int
    started: bool = False  #: enough of them have been there once for the training to begin
    servers: int = 1  #: wanted
    serving: int = 1  #: of the present set
    colocated: bool = False  #: as many servers as agents have workers
    pausing: int = 0  #: the attempt whose lease book was told to pause


def initial_size(plan: JobPlan) -> Size:
    """That of a job before it is scaled."""
    return Size(plan.workers, plan.min_workers, servers=plan.servers, serving=plan.servers, colocated=plan.colocated)


@dataclass
class JobState:
    """One job's present. Changed only while `Framework.handle` runs."""

    plan: JobPlan
    patience: Patience
    framework_id: str = ""
    connected: bool = False  #: subscribed at a master
    slots: Slots = field(init=False)
    executors: Executors = field(init=False)
    reconciliation: Reconciliation = field(init=False)
    agents: Agents = field(init=False)
    members: Members = field(default_factory=Members)
    size: Size = field(init=False)
    marks: Marks = field(default_factory=Marks)
    step: int = 0  #: highest step reported
    epoch: int = 0  #: that of `step`
    out: list[act.Action] = field(default_factory=list)  #: actions of the event being handled
    _marked: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.size = initial_size(self.plan)
        self.slots = Slots(self.plan)
        self.executors = Executors(self.plan.job_id)
        self.reconciliation = Reconciliation(self.patience)
        self.agents = Agents(self.patience)

    def do(self, action: act.Action) -> None:
        self.out.append(action)

    def note(self, text: str) -> None:
        self.do(act.Note(text))

    def marked(self, phase: str) -> bool:
        """It has been reached."""
        return phase in self._marked

    def mark(self, phase: str) -> None:
        """Reports that a start-up phase has been reached; only its first time counts."""
        if phase not in self._marked:
            self._marked.add(phase)
            self.do(act.Mark(phase))

    def kill(self, task_id: str, agent_id: str) -> None:
        self.do(act.Kill(task_id, agent_id, self.patience.kill_grace_s))
