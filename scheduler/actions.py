"""What a job's framework wants done. `Framework.handle` returns these; the driver carries them out in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proto import control_pb2
from scheduler.json_values import Json
from scheduler.outcome import Outcome


@dataclass(frozen=True)
class Save:
    """Make these records of the job's state durable (recovery.py) before any other action is carried out."""

    changes: Mapping[str, Json | None]


@dataclass(frozen=True)
class Accept:
    """Launch tasks on one agent, using these offers; what is left of them is declined for `refuse_s`."""

    agent_id: str
    offer_ids: tuple[str, ...]
    tasks: tuple[dict[str, Any], ...]
    refuse_s: float


@dataclass(frozen=True)
class Decline:
    offer_ids: tuple[str, ...]
    refuse_s: float


@dataclass(frozen=True)
class AcceptInverseOffers:
    """Agree to leave agents before their maintenance."""

    offer_ids: tuple[str, ...]


@dataclass(frozen=True)
class Acknowledge:
    status: Mapping[str, Any]


@dataclass(frozen=True)
class Kill:
    task_id: str
    agent_id: str
    grace_s: float


@dataclass(frozen=True)
class Reconcile:
    """Ask the master for the state of these (task id, agent id); of all tasks it knows if empty."""

    tasks: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Suppress:
    pass


@dataclass(frozen=True)
class Revive:
    pass


@dataclass(frozen=True)
class ShutdownExecutor:
    executor_id: str
    agent_id: str


@dataclass(frozen=True)
class TellExecutor:
    """Let the executor's tasks know where the control channel is; may get lost."""

    executor_id: str
    agent_id: str
    control: str  #: "host:port"


@dataclass(frozen=True)
class AskTotals:
    """Ask the master what its agents have in all; answered by the event AgentTotals."""


@dataclass(frozen=True)
class AskShares:
    """Ask the master who has what of the cluster; answered by the event Shares."""


@dataclass(frozen=True)
class AnswerScale:
    """The answer to a ScaleRequested: what is done, or why not."""

    request: int
    text: str
    accepted: bool


@dataclass(frozen=True)
class Teardown:
    """Remove the framework from the master, and confirm with the event TornDown."""


@dataclass(frozen=True)
class Send:
    """Say something to an attached task."""

    task_id: str
    message: control_pb2.DriverMessage


@dataclass(frozen=True)
class Refuse:
    """End the stream of a task that is not (or no longer) one of the job's."""

    task_id: str
    reason: str


@dataclass(frozen=True)
class ReportProgress:
    progress: control_pb2.Progress


@dataclass(frozen=True)
class Note:
    """A line for the user."""

    text: str


@dataclass(frozen=True)
class Mark:
    """A start-up phase has been reached."""

    phase: str


@dataclass(frozen=True)
class Over:
    """The job is over; nothing more will come."""

    outcome: Outcome
    framework_gone: bool = True  #: the master has confirmed that it is


Action = (
    Save
    | Accept
    | Decline
    | AcceptInverseOffers
    | Acknowledge
    | Kill
    | Reconcile
    | Suppress
    | Revive
    | ShutdownExecutor
    | TellExecutor
    | AskTotals
    | AskShares
    | AnswerScale
    | Teardown
    | Send
    | Refuse
    | ReportProgress
    | Note
    | Mark
    | Over
)
