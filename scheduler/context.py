"""Options of `mesograd run` on their way to `TrainingJob.run` in the script that it executes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field

from scheduler.constraints import Constraint
from scheduler.outcome import UsageError
from scheduler.phases import Phases
from scheduler.plan import DEFAULT_WORKER_NEED


@dataclass(frozen=True)
class ProfileOptions:
    """What the command line says about a profile."""

    threads: int = 1
    batch_size: int | None = None  #: samples of a pass; default: a micro-batch of the job
    steps: int = 10
    rows: int = 40


@dataclass(frozen=True)
class RunOptions:
    """What the command line says about where and how a job runs. The defaults serve a plain `python script.py`."""

    master: str = "local[1]"
    workers: int | None = None  #: default: one per agent of local[N], else 1
    min_workers: int | None = None  #: default: as many as `workers`, or 1 if there is `max_workers`
    max_workers: int | None = None
    servers: int = 1
    colocated: bool = False
    server_replicas: int = 0
    cpus_per_worker: float = DEFAULT_WORKER_NEED.cpus
    mem_per_worker_mb: float = DEFAULT_WORKER_NEED.mem_mb
    resume: bool = False
    python: str = field(default_factory=lambda: sys.executable)
    driver_host: str = ""
    engine: str = ""  #: empty: as the job says
    precision: str = ""  #: likewise
    sync: str = ""  #: likewise
    compression: str = ""  #: likewise
    parameter_compression: str = ""  #: likewise
    exchange: str = "auto"  #: how tensors travel between processes of one host: auto, tcp or shm
    role: str = "*"
    user: str = ""  #: empty: the user running the driver
    principal: str = "mesograd"
    principal_secret: str | None = None
    pack: bool = False
    constraints: tuple[Constraint, ...] = ()
    revocable: bool = False
    mem_retry: float = 0.0
    environment: Mapping[str, str] = field(default_factory=dict)  #: of tasks
    state: str = ""  #: where the job's state is kept; empty: $MESOGRAD_HOME/jobs
    verbose: bool = False
    profile: ProfileOptions | None = None  #: instead of running the job, look at a step of it

    def worker_range(self, default: int) -> tuple[int, int]:
        """(least, most) workers; `default`: how many where nothing is said. Raises UsageError."""
        if self.workers is not None and (self.min_workers is not None or self.max_workers is not None):
            raise UsageError("--workers N is short for --min-workers N --max-workers N: give either")
        least = self.workers or self.min_workers or (1 if self.max_workers else default)
        most = self.workers or self.max_workers or max(least, default)
        if least > most:
            raise UsageError(f"--min-workers {least} is more than --max-workers {most}")
        return least, most


@dataclass
class RunContext:
    """One execution of a script. `jobs` counts those it has run."""

    options: RunOptions = field(default_factory=RunOptions)
    phases: Phases = field(default_factory=Phases)
    jobs: int = 0


_current: ContextVar[RunContext | None] = ContextVar("mesograd_run", default=None)


@contextlib.contextmanager
def running(context: RunContext) -> Iterator[RunContext]:
    """Makes `context` the current one."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)


def current() -> RunContext:
    """The context of `mesograd run`, or a new one with the defaults."""
    return _current.get() or RunContext()
