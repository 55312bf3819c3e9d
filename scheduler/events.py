"""What can happen to a job's framework. Each event is a plain value; `Framework.handle` takes one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proto import control_pb2
from scheduler.fair_share import ClusterShares
from scheduler.placement import AgentOffer
from scheduler.resources import Resources

#: Mesos task states after which a task never runs again. TASK_LOST is not one for partition-aware frameworks in theory;
#: masters still send it for tasks they know to be dead when the framework is not partition-aware.
TERMINAL_STATES = frozenset(
    {"TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_DROPPED", "TASK_GONE", "TASK_GONE_BY_OPERATOR"}
)
#: The master has lost sight of the task; it may live on and come back.
DOUBTFUL_STATES = frozenset({"TASK_UNREACHABLE", "TASK_UNKNOWN", "TASK_LOST"})


@dataclass(frozen=True)
class Subscribed:
    """Registered for the first time."""

    framework_id: str


@dataclass(frozen=True)
class Reregistered:
    """Subscribed again with the known FrameworkID, maybe at another master."""


@dataclass(frozen=True)
class Disconnected:
    pass


@dataclass(frozen=True)
class Offers:
    offers: tuple[AgentOffer, ...]


@dataclass(frozen=True)
class InverseOffer:
    """The master asks to leave an agent by a certain time."""

    offer_id: str
    agent_id: str  #: empty: the master does not say
    begins_in_s: float
    duration_s: float | None = None  #: None: for good


@dataclass(frozen=True)
class InverseOffers:
    offers: tuple[InverseOffer, ...]


@dataclass(frozen=True)
class Rescinded:
    offer_id: str


@dataclass(frozen=True)
class StatusUpdate:
    task_id: str
    state: str
    agent_id: str = ""
    message: str = ""
    reason: str = ""
    #: the whole status, for the acknowledgement; without "uuid" there is nothing to acknowledge
    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> str:
        """Of the task's process, as our executor labels it; empty where it does not say."""
        labels = (self.raw.get("labels") or {}).get("labels") or []
        return next((str(label.get("value", "")) for label in labels if label.get("key") == "exit_code"), "")

    @property
    def killed_for_memory(self) -> bool:
        """Our executor says that the kernel killed the task because its memory was used up."""
        labels = (self.raw.get("labels") or {}).get("labels") or []
        return any(label.get("key") == "killed_for" and label.get("value") == "memory" for label in labels)


@dataclass(frozen=True)
class AgentLost:
    agent_id: str


@dataclass(frozen=True)
class ExecutorLost:
    executor_id: str
    agent_id: str


@dataclass(frozen=True)
class MesosError:
    """The master's ERROR event: the subscription is over for good."""

    message: str


@dataclass(frozen=True)
class Superseded:
    """Another driver has taken the job over."""

    by: str = ""  #: process and host, if known


@dataclass(frozen=True)
class LaunchFailed:
    """An ACCEPT call did not reach the master, or was refused: none of its tasks will run, as far as we know."""

    task_ids: tuple[str, ...]
    message: str


@dataclass(frozen=True)
class AgentTotals:
    """All resources of every agent the master knows (the answer to AskTotals), used or not."""

    agents: tuple[Resources, ...]
    #: quota limits of the job's role, "cpus" in cores and "mem" in MB, where there are any
    limits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Shares:
    """Who has what of the cluster (the answer to AskShares)."""

    cluster: ClusterShares


@dataclass(frozen=True)
class ScaleRequested:
    """The user wants that many workers, or servers; to be answered by AnswerScale."""

    request: int
    workers: int = 0  #: 0: as before
    servers: int = 0  #: likewise
    colocated: bool = False  #: as many servers as agents have workers


@dataclass(frozen=True)
class TornDown:
    """The master has confirmed that the framework is gone."""


@dataclass(frozen=True)
class HelloReceived:
    hello: control_pb2.Hello


@dataclass(frozen=True)
class StreamLost:
    task_id: str


@dataclass(frozen=True)
class ProgressReceived:
    task_id: str
    progress: control_pb2.Progress
    sequence: int = 0  #: what is to be acknowledged


@dataclass(frozen=True)
class ReplicatedReceived:
    """A server's replica has all that the server has."""

    task_id: str
    replica: str


@dataclass(frozen=True)
class PausedReceived:
    """Between workers and servers nothing goes on; all servers hold the same version."""

    task_id: str
    attempt: int


@dataclass(frozen=True)
class FailureReceived:
    task_id: str
    failure: control_pb2.Failure


@dataclass(frozen=True)
class FinishedReceived:
    task_id: str
    finished: control_pb2.Finished


@dataclass(frozen=True)
class Tick:
    """Some time has passed. Sent about once a second."""


@dataclass(frozen=True)
class StopRequested:
    """SIGINT or SIGTERM: end in order. A second one: end now."""

    signal: int


Event = (
    Subscribed
    | Reregistered
    | Disconnected
    | Offers
    | InverseOffers
    | Rescinded
    | StatusUpdate
    | AgentLost
    | ExecutorLost
    | MesosError
    | Superseded
    | LaunchFailed
    | AgentTotals
    | Shares
    | ScaleRequested
    | TornDown
    | HelloReceived
    | StreamLost
    | ProgressReceived
    | ReplicatedReceived
    | PausedReceived
    | FailureReceived
    | FinishedReceived
    | Tick
    | StopRequested
)
