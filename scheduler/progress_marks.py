"""How far a job's progress has been reported for good: what a restarted driver need not, and must not, report again.

A task keeps what it said until it is acknowledged (proto/control.proto), which is done once the reporters have written
it and these marks are safe. So a driver that dies loses no step of the summaries, and doubles none.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from proto import control_pb2

SETTLE_S = 1.0  #: at most so much is reported again to a restarted driver


@dataclass(frozen=True)
class ProgressMarks:
    """The highest of each kind."""

    step: int = 0
    epoch: int = 0  #: that of `step`
    attempt: int = 1
    epoch_done: int = 0
    validation: int = 0  #: its step
    checkpoint: int = 0  #: its step

    def with_progress(self, progress: control_pb2.Progress) -> ProgressMarks:
        """After `progress` has been reported."""
        last = max(progress.steps, key=lambda report: report.step, default=None)
        further = last is not None and last.step > self.step
        return replace(
            self,
            step=last.step if last is not None and further else self.step,
            epoch=last.epoch if last is not None and further else self.epoch,
            attempt=max([self.attempt, *(report.attempt for report in progress.steps)]),
            epoch_done=max([self.epoch_done, *(report.epoch for report in progress.epochs)]),
            validation=max([self.validation, *(report.step for report in progress.validations)]),
            checkpoint=max([self.checkpoint, *(report.step for report in progress.checkpoints)]),
        )


@dataclass
class Marks:
    """Marks of a running job: as reported, and when they are to be made safe."""

    reported: ProgressMarks = field(default_factory=ProgressMarks)
    touched: bool = False  #: to be written
    _unsettled: dict[str, int] = field(default_factory=dict)  #: task id -> sequence number of its last message
    _since: float | None = None  #: when the first of them came
    _urgent: bool = False

    def add(self, task_id: str, sequence: int, progress: control_pb2.Progress, now: float) -> None:
        """`progress` is being reported."""
        self.reported = self.reported.with_progress(progress)
        self._unsettled[task_id] = sequence
        self._since = now if self._since is None else self._since
        self._urgent |= bool(progress.epochs or progress.validations or progress.checkpoints)

    def settle(self, now: float, at_once: bool = False) -> dict[str, int]:
        """What is to be acknowledged now, by task id; the marks are written before it is."""
        due = self._since is not None and (at_once or self._urgent or now - self._since >= SETTLE_S)
        if not due:
            return {}
        settled, self._unsettled = self._unsettled, {}
        self._since, self._urgent, self.touched = None, False, True
        return settled
