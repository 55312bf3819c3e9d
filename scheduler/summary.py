"""TensorBoard event files of a job: DIR/train with one point per step, DIR/validation with one per validation.

A replayed step is not written twice. A run that begins at step s (1, or where it resumed) marks its files with
SessionLog.START at s, upon which TensorBoard's reader forgets what an earlier run wrote from s on. A driver that
goes on for one that died does the same, behind the last step that is known to be safe.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from proto import control_pb2
from scheduler.outcome import Outcome
from scheduler.progress_marks import ProgressMarks
from scheduler.step_times import mean_seconds

NOTHING_WRITTEN = ProgressMarks()


@contextmanager
def _without_torch() -> Iterator[None]:
    """tensorboardX imports torch where it is installed: 180 MB and two seconds that scalars have no use for."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # makes `import torch` raise ImportError
    try:
        yield
    finally:
        del sys.modules["torch"]


class Summary:
    """Writes a job's progress. `directory` is made when there is something to write; raises OSError if it cannot be.

    Args:
        directory: gets "train" and "validation".
        written: what a driver before this one has written of the same run.
    """

    def __init__(self, directory: Path, written: ProgressMarks = NOTHING_WRITTEN) -> None:
        self._train = _EventFile(directory / "train", written.step)
        self._validation = _EventFile(directory / "validation", written.validation if written.step else 0)
        self._validation_goes_on = written.step > 0

    def progress(self, progress: control_pb2.Progress) -> None:
        for step in progress.steps:
            scalars = {
                "Loss": step.loss,
                "Throughput": step.samples / step.seconds if step.seconds > 0 else 0.0,
                "LearningRate": step.learning_rate,
            }
            for phase, seconds in mean_seconds(step.times.values()).items():
                scalars[f"StepTime/{phase}"] = seconds
            for prefix, rate in step.learning_rates.items():
                if prefix:
                    scalars[f"LearningRate/{prefix}"] = rate
            self._train.add(step.step, scalars)
            if not self._validation_goes_on:
                self._validation.begin(step.step)
        for validation in progress.validations:
            self._validation.add(validation.step, validation.metrics)

    def note(self, text: str) -> None:
        pass

    def flush(self) -> None:
        self._train.flush()
        self._validation.flush()

    def finish(self, outcome: Outcome) -> None:
        self._train.close()
        self._validation.close()


class _EventFile:
    """One event file, begun at the first step it hears of."""

    def __init__(self, directory: Path, last_step: int) -> None:
        self._directory = directory
        self._writer: Any = None
        self._last_step = last_step

    def begin(self, step: int) -> None:
        """Opens the file if it is not open: all points from `step` on are this driver's."""
        if self._writer is not None:
            return
        step = self._last_step + 1 if self._last_step else step
        with _without_torch():
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._directory.mkdir(parents=True, exist_ok=True)
        # Files are read in the order of their names; the library's have whole seconds, which two runs may share.
        self._writer = EventsWriter(str(self._directory / "events"), f".{time.time_ns() % 10**9:09d}")
        start = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(wall_time=time.time(), step=step, session_log=start))
        self._last_step = step - 1

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        if self._last_step and step <= self._last_step:
            return  # replayed
        self.begin(step)
        with _without_torch():
            from tensorboardX.proto.event_pb2 import Event
            from tensorboardX.proto.summary_pb2 import Summary as SummaryMessage

        values = [SummaryMessage.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=SummaryMessage(value=values)))
        self._last_step = step

    def flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
