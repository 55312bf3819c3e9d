"""What a job asks of the cluster: how many tasks of which size, and how they are started. Constant for its life."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from scheduler.constraints import Constraint
from scheduler.resources import Need

#: The executor beside its tasks; Mesos wants at least 0.01 cpus and 32 MB.
EXECUTOR_NEED = Need(cpus=0.1, mem_mb=64)
DEFAULT_WORKER_NEED = Need(cpus=1, mem_mb=1024)
DEFAULT_SERVER_NEED = Need(cpus=0.5, mem_mb=512, ports=2)  # for gRPC and for lanes (executor/data_lane.py)

FAILOVER_TIMEOUT_S = 7 * 24 * 3600.0


@dataclass(frozen=True)
class JobPlan:
    """Everything the framework needs to know about the job it runs."""

    job_id: str  #: letters, digits, dots, dashes; at most 100 characters
    workers: int  #: at most, until it is scaled
    servers: int
    control: str  #: "host:port" of the control channel, as agents reach it
    secret: str  #: hex
    python: str  #: interpreter on the agents
    spec: bytes  #: cloudpickle of the TrainingSpec
    sources: Mapping[str, str] = field(default_factory=dict)
    checkpoint_url: str = ""
    resume: bool = False
    worker_need: Need = DEFAULT_WORKER_NEED
    server_need: Need = DEFAULT_SERVER_NEED
    executor_need: Need = EXECUTOR_NEED
    server_replicas: int = 0  #: of each server, which take its place when it is lost; 0 or 1
    executor_environment: Mapping[str, str] = field(default_factory=dict)
    task_environment: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    role: str = "*"
    principal: str = "mesograd"
    min_workers: int = 1  #: training begins with that many, and no more than the rest is given up for others
    pack: bool = False  #: workers on as few agents as possible, in place of as many
    constraints: tuple[Constraint, ...] = ()  #: on agents and how tasks spread over them
    revocable: bool = False  #: workers may run on resources that Mesos can take away
    colocated: bool = False  #: servers run beside workers, one on each agent that has some; `servers` at first
    synchronous: bool = True  #: steps end, so that servers can be added and removed between two of them
    mem_retry: float = 0.0  #: factor for the memory of a task that was killed for want of it; 0: the same again

    def __post_init__(self) -> None:
        if self.workers < 1 or self.servers < 1:
            raise ValueError(f"a job needs a worker and a server: workers={self.workers}, servers={self.servers}")
        if self.server_replicas not in (0, 1):
            raise ValueError(f"a server has one replica or none, not {self.server_replicas}")
        if not 1 <= self.min_workers <= self.workers:
            raise ValueError(f"min_workers={self.min_workers} is not between 1 and workers={self.workers}")
        if len(self.job_id) > 100 or not self.job_id.replace("-", "").replace(".", "").replace("_", "").isalnum():
            raise ValueError(f"job id {self.job_id!r} is too long or holds a character Mesos refuses")

    def need(self, role: str) -> Need:
        return self.worker_need if role == "worker" else self.server_need

    def count(self, role: str) -> int:
        return {"server": self.servers, "replica": self.servers * self.server_replicas, "worker": self.workers}[role]


@dataclass(frozen=True)
class Patience:
    """How long the framework waits for what. All in seconds."""

    alone_s: float = 600  #: without a master and without a single task on the control channel
    launch_s: float = 30  #: from ACCEPT to the first status, before asking the master
    hello_s: float = 60  #: from TASK_RUNNING to hello, before the task counts as hung
    stream_s: float = 60  #: without a control stream, before a running task counts as hung
    doubt_s: float = 60  #: an unreachable task that still talks to us, before it counts as lost
    kill_grace_s: float = 3  #: SIGTERM to SIGKILL
    kill_s: float = 30  #: from KILL to a terminal status, before the task is given up
    stop_s: float = 20  #: from the user's stop to Finished
    leave_s: float = 0.5  #: for tasks of a finished job to end by themselves, before they are killed
    close_s: float = 10  #: for tasks, then again for executors, then for the teardown to be gone
    subscribe_s: float = 60  #: for the master to accept the subscription
    starving_s: float = 15  #: without room to start, before the agents' totals are looked at
    backoff_first_s: float = 1  #: before the second relaunch of a slot; doubles from there
    backoff_max_s: float = 30
    failures: int = 5  #: failures of one slot in a row, without progress of the job, that end it
    agent_failures: int = 2  #: failures of tasks on one agent, more than on another, that have it avoided
    avoid_first_s: float = 30  #: how long; doubles with every further failure
    avoid_max_s: float = 600
    drain_s: float = 60  #: before an agent's maintenance begins, its tasks are moved
    gang_hold_s: float = 40  #: at most, at first, a job that cannot begin holds what it has without finding more
    gang_away_s: float = 10  #: at most, at first, it takes nothing after it has given that back
    gang_max_s: float = 300  #: to which both grow, doubling
    share_s: float = 3  #: between looks at how the cluster is shared
    refused_s: float = 120  #: a framework that did not take what was given up for it is not waited for that long
    idle_executor_s: float = 5  #: without a task, before an executor is ended
    reconcile_first_s: float = 5
    reconcile_max_s: float = 60
    reconcile_all_s: float = 900
    tell_address_s: float = 3  #: between two messages to executors that say where a restarted driver listens
    refuse_idle_s: float = 3600  #: filter on offers while nothing is needed
    refuse_small_s: float = 5  #: filter on offers that are too small
