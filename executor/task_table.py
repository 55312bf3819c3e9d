"""What the Mesos executor does about its tasks, as a state machine without I/O and without a clock.

`TaskTable.handle(event, now)` returns the actions to be carried out in their order. Times are seconds of one
monotonic clock; when `next_deadline()` is reached, `Tick` is due.
"""

import signal
from dataclasses import dataclass, field
from typing import Any, Literal

STARTING, RUNNING, KILLING = "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING"
FINISHED, FAILED, KILLED = "TASK_FINISHED", "TASK_FAILED", "TASK_KILLED"

DEFAULT_GRACE_S = 5.0  # between SIGTERM and SIGKILL
IDLE_S = 3600.0  # without a task, before an executor ends: nobody may be left who would end it

Phase = Literal["starting", "running", "terminating", "killing"]


# --- events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Launch:
    """The agent asks for a task. `request` is handed through to StartChild; `grace_s` is that of its kill policy."""

    task_id: str
    request: Any = None
    grace_s: float | None = None


@dataclass(frozen=True)
class Started:
    """The child of a task runs."""

    task_id: str


@dataclass(frozen=True)
class StartFailed:
    """A task has no child and will get none."""

    task_id: str
    reason: str


@dataclass(frozen=True)
class Exited:
    """The child of a task ended: with an exit code or, if `signal_number` is set, by that signal."""

    task_id: str
    exit_code: int | None
    signal_number: int | None = None
    last_words: str = ""
    for_memory: bool = False  #: the kernel killed it because its cgroup's memory was used up


@dataclass(frozen=True)
class Kill:
    """The agent asks for the end of a task; `grace_s` overrides that of the launch."""

    task_id: str
    grace_s: float | None = None


@dataclass(frozen=True)
class Shutdown:
    """All tasks are to end within `grace_s`, and no more will be taken."""

    grace_s: float
    reason: str = ""


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


Event = Launch | Started | StartFailed | Exited | Kill | Shutdown | Tick


# --- actions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StartChild:
    """Start the child; answer with Started or StartFailed."""

    task_id: str
    request: Any


@dataclass(frozen=True)
class Terminate:
    """Send SIGTERM to the child."""

    task_id: str


@dataclass(frozen=True)
class KillSession:
    """Send SIGKILL to the child and to all that it started."""

    task_id: str


@dataclass(frozen=True)
class Report:
    """Send a status update. `labels` tell machines how the child ended: {"exit_code": "1"} or {"signal": "SIGKILL"}."""

    task_id: str
    state: str
    message: str = ""
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Finish:
    """Nothing is left to do: have the last updates taken and exit."""


Action = StartChild | Terminate | KillSession | Report | Finish


# --- the machine ----------------------------------------------------------------------------------------------------


@dataclass
class _Task:
    phase: Phase
    grace_s: float
    terminated_at: float | None = None  # when SIGTERM was sent
    deadline: float | None = None  # of the grace period
    reason: str = ""  # why it is being killed


class TaskTable:
    """Tasks of one executor that have not ended.

    Args:
        reports_killing: whether the framework wants TASK_KILLING.
        idle_s: seconds without a task after which it finishes.
    """

    def __init__(self, reports_killing: bool = False, idle_s: float = IDLE_S) -> None:
        self.reports_killing = reports_killing
        self._idle_s = idle_s
        self._idle_since: float | None = None
        self._tasks: dict[str, _Task] = {}
        self._shutting_down = False
        self._finished = False

    def __len__(self) -> int:
        return len(self._tasks)

    def next_deadline(self) -> float | None:
        """When Tick is due; None: not before another event."""
        if self._idle_since is not None:
            return None if self._shutting_down else self._idle_since + self._idle_s
        return min((task.deadline for task in self._tasks.values() if task.deadline is not None), default=None)

    def handle(self, event: Event, now: float) -> list[Action]:
        """Takes notice of an event; events that concern no task known here change nothing."""
        match event:
            case Launch():
                actions = self._launch(event)
            case Started():
                actions = self._started(event)
            case StartFailed():
                actions = self._start_failed(event)
            case Exited():
                actions = self._exited(event)
            case Kill():
                actions = self._kill(event, now)
            case Shutdown():
                actions = self._shutdown(event, now)
            case Tick():
                actions = self._tick(now)
        if self._tasks:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since >= self._idle_s:
            self._shutting_down = True
        if self._shutting_down and not self._tasks and not self._finished:
            self._finished = True
            actions.append(Finish())
        return actions

    def _launch(self, event: Launch) -> list[Action]:
        if event.task_id in self._tasks:
            return []
        if self._shutting_down:
            return [Report(event.task_id, KILLED, "the executor is shutting down")]
        grace_s = DEFAULT_GRACE_S if event.grace_s is None else event.grace_s
        self._tasks[event.task_id] = _Task("starting", grace_s)
        return [Report(event.task_id, STARTING), StartChild(event.task_id, event.request)]

    def _started(self, event: Started) -> list[Action]:
        task = self._tasks.get(event.task_id)
        if task is None or task.phase != "starting":
            return []
        task.phase = "running"
        return [Report(event.task_id, RUNNING)]

    def _start_failed(self, event: StartFailed) -> list[Action]:
        if self._tasks.pop(event.task_id, None) is None:
            return []
        return [Report(event.task_id, FAILED, f"could not be started: {event.reason}")]

    def _exited(self, event: Exited) -> list[Action]:
        task = self._tasks.pop(event.task_id, None)
        if task is None:
            return []
        if event.signal_number is not None:
            name = _signal_name(event.signal_number)
            how, labels = f"ended by {name}", {"signal": name}
            if event.for_memory:
                labels["killed_for"] = "memory"
        else:
            how, labels = f"exit code {event.exit_code}", {"exit_code": str(event.exit_code)}
        if task.phase in ("terminating", "killing"):
            return [Report(event.task_id, KILLED, f"{task.reason}: {how}", labels)]
        if event.exit_code == 0:
            return [Report(event.task_id, FINISHED, how, labels)]
        message = f"{how}; last words:\n{event.last_words}" if event.last_words else how
        return [Report(event.task_id, FAILED, message, labels)]

    def _kill(self, event: Kill, now: float) -> list[Action]:
        task = self._tasks.get(event.task_id)
        if task is None:
            return []
        if event.grace_s is not None:
            task.grace_s = event.grace_s
        return self._terminate(event.task_id, task, now, task.grace_s, "killed on request")

    def _terminate(self, task_id: str, task: _Task, now: float, grace_s: float, reason: str) -> list[Action]:
        """Begins to end a task or, if that has begun, moves its deadline to what the new grace period makes it."""
        if task.phase == "killing":
            return []
        actions: list[Action] = []
        if task.terminated_at is None:
            task.terminated_at = now
            task.phase = "terminating"
            task.reason = reason
            if self.reports_killing:
                actions.append(Report(task_id, KILLING, reason))
            actions.append(Terminate(task_id))
        task.deadline = task.terminated_at + grace_s
        return actions + self._expire(task_id, task, now)

    def _shutdown(self, event: Shutdown, now: float) -> list[Action]:
        self._shutting_down = True
        actions: list[Action] = []
        for task_id, task in self._tasks.items():
            grace_s = event.grace_s
            if task.terminated_at is not None and task.deadline is not None:
                grace_s = min(task.deadline, now + event.grace_s) - task.terminated_at
            actions += self._terminate(task_id, task, now, grace_s, event.reason or "the executor is shutting down")
        return actions

    def _tick(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for task_id, task in self._tasks.items():
            actions += self._expire(task_id, task, now)
        return actions

    def _expire(self, task_id: str, task: _Task, now: float) -> list[Action]:
        if task.deadline is None or now < task.deadline:
            return []
        task.phase = "killing"
        task.deadline = None
        task.reason += f" (SIGKILL, for SIGTERM did not end it within {now - (task.terminated_at or now):.1f} s)"
        return [KillSession(task_id)]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
