"""Progress for people: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import IO, Any

from tqdm import tqdm

from proto import control_pb2
from scheduler.outcome import Outcome
from scheduler.progress_marks import ProgressMarks

LINE_INTERVAL_S = 5.0
WINDOW_STEPS = 50  #: steps over which images/s is averaged
NOTHING_TOLD = ProgressMarks()
_NAMES = {"Top1Accuracy": "test accuracy"}


def display(metrics: Mapping[str, float]) -> list[str]:
    """One "name: value" per metric."""
    return [f"{_NAMES.get(name, name)}: {value:.4f}" for name, value in sorted(metrics.items())]


class _Pace:
    """What bar and lines both show; knows new steps from replayed ones."""

    def __init__(self, samples_per_epoch: int, batch_size: int, told: ProgressMarks) -> None:
        self.steps_per_epoch = max(1, math.ceil(samples_per_epoch / batch_size))
        self.last = control_pb2.StepReport()
        self._window: deque[tuple[int, float]] = deque(maxlen=WINDOW_STEPS)
        self._told = {"epoch": told.epoch_done, "validation": told.validation, "checkpoint": told.checkpoint}

    def add(self, step: control_pb2.StepReport) -> None:
        self.last = step
        self._window.append((step.samples, step.seconds))

    @property
    def images_per_s(self) -> float:
        seconds = sum(seconds for _, seconds in self._window)
        return sum(samples for samples, _ in self._window) / seconds if seconds > 0 else 0.0

    @property
    def step_in_epoch(self) -> int:
        return max(0, self.last.step - max(0, self.last.epoch - 1) * self.steps_per_epoch)

    def milestones(self, progress: control_pb2.Progress) -> list[str]:
        """A line for each epoch, validation and checkpoint not yet told."""
        lines = []
        for epoch in progress.epochs:
            if self._is_new("epoch", epoch.epoch):
                exact = "each sample once" if epoch.exact else "NOT EVERY SAMPLE COUNTED ONCE"
                lines.append(f"epoch {epoch.epoch} done at step {epoch.step}: {epoch.samples} samples, {exact}")
        for validation in progress.validations:
            if self._is_new("validation", validation.step):
                lines.append(f"validation at step {validation.step}: {', '.join(display(dict(validation.metrics)))}")
        for checkpoint in progress.checkpoints:
            if self._is_new("checkpoint", checkpoint.step):
                lines.append(f"checkpoint at step {checkpoint.step}: {checkpoint.path}")
        return lines

    def _is_new(self, kind: str, number: int) -> bool:
        new = number > self._told[kind]
        self._told[kind] = max(number, self._told[kind])
        return new


class LineProgress:
    """Plain lines, at most one per LINE_INTERVAL_S besides the milestones."""

    def __init__(
        self,
        out: IO[str],
        samples_per_epoch: int,
        batch_size: int,
        clock: Callable[[], float] = time.monotonic,
        told: ProgressMarks = NOTHING_TOLD,
    ) -> None:
        self._out = out
        self._pace = _Pace(samples_per_epoch, batch_size, told)
        self._clock = clock
        self._next_s = -math.inf

    def progress(self, progress: control_pb2.Progress) -> None:
        for step in progress.steps:
            self._pace.add(step)
            if self._clock() >= self._next_s:
                self._next_s = self._clock() + LINE_INTERVAL_S
                pace = self._pace
                self._print(
                    f"epoch {step.epoch}  step {pace.step_in_epoch}/{pace.steps_per_epoch}  loss {step.loss:.4f}  "
                    f"{pace.images_per_s:.0f} images/s  {step.workers} workers"
                )
        for line in self._pace.milestones(progress):
            self._print(line)

    def note(self, text: str) -> None:
        self._print(text)

    def flush(self) -> None:
        pass  # every line is flushed

    def finish(self, outcome: Outcome) -> None:
        print_results(self._out, outcome)

    def _print(self, line: str) -> None:
        print(line, file=self._out, flush=True)


class BarProgress:
    """A progress bar per epoch on a terminal; everything else scrolls above it."""

    def __init__(
        self,
        out: IO[str],
        bar_out: IO[str],
        samples_per_epoch: int,
        batch_size: int,
        told: ProgressMarks = NOTHING_TOLD,
    ) -> None:
        tqdm.monitor_interval = 0  # no thread to watch over a bar that is refreshed at every step
        self._out = out
        self._bar_out = bar_out
        self._pace = _Pace(samples_per_epoch, batch_size, told)
        self._bar: tqdm[Any] | None = None
        self._epoch = 0

    def progress(self, progress: control_pb2.Progress) -> None:
        for step in progress.steps:
            self._pace.add(step)
        if progress.steps:
            self._show()
        for line in self._pace.milestones(progress):
            self.note(line)

    def _show(self) -> None:
        step = self._pace.last
        postfix = f"loss {step.loss:.4f}, {self._pace.images_per_s:.0f} images/s, {step.workers} workers"
        if self._bar is None or step.epoch != self._epoch:
            self._close()
            self._epoch = step.epoch
            self._bar = tqdm(
                total=self._pace.steps_per_epoch,
                initial=self._pace.step_in_epoch,
                file=self._bar_out,
                desc=f"epoch {step.epoch}",
                postfix=postfix,
                leave=False,
                dynamic_ncols=True,
                bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
            )
        self._bar.set_postfix_str(postfix, refresh=False)
        self._bar.update(self._pace.step_in_epoch - self._bar.n)

    def note(self, text: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        print(text, file=self._out, flush=True)
        if self._bar is not None:
            self._bar.refresh()

    def flush(self) -> None:
        pass

    def finish(self, outcome: Outcome) -> None:
        self._close()
        print_results(self._out, outcome)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def print_results(out: IO[str], outcome: Outcome) -> None:
    """The last lines of a job that reached its end."""
    if outcome.error:
        return
    for line in display(outcome.metrics):
        print(line, file=out)
    of = f" (of this run; others differ, since {outcome.caveat})" if outcome.caveat else ""
    print(f"weights sha256: {outcome.weights_sha256}{of}", file=out, flush=True)
