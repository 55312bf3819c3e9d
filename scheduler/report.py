"""Who is told how the job gets on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from proto import control_pb2
from scheduler.outcome import Outcome


class Reporter(Protocol):
    """Told of progress and faults while a job runs, and once of its end. Calls must be quick: the driver waits."""

    def progress(self, progress: control_pb2.Progress) -> None:
        """Steps, epochs, validations, checkpoints; after a replay some come a second time."""

    def note(self, text: str) -> None:
        """A line for the user: a fault, or what is being waited for."""

    def flush(self) -> None:
        """What was told so far survives the death of this process."""

    def finish(self, outcome: Outcome) -> None:
        """Nothing more will come."""


class Reports:
    """Several reporters as one."""

    def __init__(self, reporters: Sequence[Reporter]) -> None:
        self._reporters = reporters

    def progress(self, progress: control_pb2.Progress) -> None:
        for reporter in self._reporters:
            reporter.progress(progress)

    def note(self, text: str) -> None:
        for reporter in self._reporters:
            reporter.note(text)

    def flush(self) -> None:
        for reporter in self._reporters:
            reporter.flush()

    def finish(self, outcome: Outcome) -> None:
        for reporter in self._reporters:
            reporter.finish(outcome)
