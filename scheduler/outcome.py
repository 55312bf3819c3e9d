"""How a job ended, and the exceptions that say so to whoever ran it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

EXIT_FAILED = 1  #: the job failed
EXIT_USAGE = 2  #: options, script or data unusable, be it found before anything is started or by a task
EXIT_SUPERSEDED = 3  #: another driver has taken the job over, which goes on


@dataclass(frozen=True)
class Outcome:
    """How a job ended. `error` is empty if it reached its end trigger."""

    error: str = ""  #: one line
    detail: str = ""  #: traceback of the user's code, if that was the cause
    signal: int = 0  #: the signal that stopped it, or 0
    worn_out: bool = False  #: a task failed again and again, for no fault of the user's code that we know of
    refused: bool = False  #: the master did not take the framework: nothing was started
    checkpointed: bool = False  #: a Stop was obeyed in order, a checkpoint (if the job writes any) was written
    step: int = 0
    epoch: int = 0
    weights_sha256: str = ""
    caveat: str = ""  #: why another run may end with other weights; empty where it does not
    metrics: Mapping[str, float] = field(default_factory=dict)
    superseded: bool = False  #: another driver has taken over; this one has left everything as it is
    unusable: bool = False  #: a task found data, checkpoint or an option that cannot be used

    @property
    def exit_code(self) -> int:
        if self.refused or self.unusable:
            return EXIT_USAGE
        if self.superseded:
            return EXIT_SUPERSEDED
        return 128 + self.signal if self.signal else EXIT_FAILED if self.error else 0


@dataclass(frozen=True)
class JobResult:
    """What `TrainingJob.run` returns.

    `metrics` are those of the last validation, by name; `weights_sha256` is over the flat parameter vector as
    little-endian float32.
    """

    step: int
    epoch: int
    metrics: Mapping[str, float]
    weights_sha256: str


class JobFailed(SystemExit):
    """The job did not reach its end. The user has been told why; `code` is the exit code.

    A SystemExit, so that a plain `python script.py` ends with that code and without a traceback.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(code)
        self.message = message

    def __str__(self) -> str:
        return self.message


class UsageError(Exception):
    """What the user asked for cannot be done; one line with the remedy. Nothing was started."""
