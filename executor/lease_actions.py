"""What the lease book wants done; the server of index 0 does it (book_keeper.py)."""

from dataclasses import dataclass

from proto import control_pb2 as control
from proto.exchange_pb2 import Grant


@dataclass(frozen=True)
class GiveLease:
    """Send this grant to this worker."""

    worker: str
    grant: Grant


@dataclass(frozen=True)
class RevokeLease:
    """Tell this worker that what it computes for this step is not needed any more."""

    worker: str
    step: int


@dataclass(frozen=True)
class CommitStep:
    """Tell every server that the step is final, and to write a checkpoint of it if asked."""

    step: int
    checkpoint: bool


@dataclass(frozen=True)
class TellRates:
    """Tell every server the learning rates of the step that begins, in the order of the optimizers."""

    step: int
    rates: list[float]


@dataclass(frozen=True)
class Report:
    """Tell the driver."""

    message: control.Progress


@dataclass(frozen=True)
class Finish:
    """The job is over; all checkpoints are written."""

    reason: control.Finished.Reason


@dataclass(frozen=True)
class Paused:
    """Tell the driver that nothing goes on until there is another attempt."""


@dataclass(frozen=True)
class Fail:
    """The job cannot go on."""

    kind: control.Failure.Kind
    summary: str


Action = GiveLease | RevokeLease | CommitStep | TellRates | Report | Finish | Paused | Fail
