"""Where the workers' time goes, for `mesograd run --verbose`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from proto import control_pb2
from scheduler.outcome import Outcome

INTERVAL_S = 5.0
PHASES = ("data", "compute", "push", "wait", "pull")  #: see control.proto, WorkerTimes

logger = logging.getLogger(__name__)


def mean_seconds(times: Iterable[control_pb2.WorkerTimes]) -> dict[str, float]:
    """Of each phase, over the workers; empty if there are none."""
    known = list(times)
    return {phase: sum(getattr(t, phase) for t in known) / len(known) for phase in PHASES} if known else {}


class StepTimes:
    """Logs a line for each worker every few seconds: milliseconds of each phase per step, on average."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next_s = clock() + INTERVAL_S
        self._times: dict[str, list[control_pb2.WorkerTimes]] = {}

    def progress(self, progress: control_pb2.Progress) -> None:
        for step in progress.steps:
            for worker, times in step.times.items():
                self._times.setdefault(worker, []).append(times)
        if self._clock() >= self._next_s:
            self.flush()

    def note(self, text: str) -> None:
        pass

    def flush(self) -> None:
        self._next_s = self._clock() + INTERVAL_S
        for worker, times in sorted(self._times.items()):
            shown = ", ".join(f"{phase} {1e3 * s:.1f}" for phase, s in mean_seconds(times).items())
            logger.info("%s: ms per step: %s", worker, shown)
        self._times = {}

    def finish(self, outcome: Outcome) -> None:
        self.flush()
