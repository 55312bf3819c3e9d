"""What is said of a job at its end, by whichever driver saw it, and what its progress is told to."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

from scheduler.job_record import JobRecord
from scheduler.outcome import JobFailed, JobResult, Outcome
from scheduler.progress import BarProgress, LineProgress
from scheduler.progress_marks import ProgressMarks
from scheduler.report import Reporter, Reports
from scheduler.step_times import StepTimes
from scheduler.summary import Summary


def reporter(record: JobRecord, told: ProgressMarks) -> Reporter:
    """Terminal and TensorBoard files, behind what has been told already."""
    reporters: list[Reporter] = [_console(sys.stdout, sys.stderr, record.samples_per_epoch, record.batch_size, told)]
    reporters.append(StepTimes())
    if record.summary_directory:
        reporters.append(Summary(Path(record.summary_directory), told))
    return Reports(reporters)


def _console(out: IO[str], error: IO[str], samples_per_epoch: int, batch_size: int, told: ProgressMarks) -> Reporter:
    if error.isatty() and out.isatty():
        return BarProgress(out, error, samples_per_epoch, batch_size, told=told)
    return LineProgress(out, samples_per_epoch, batch_size, told=told)


def result(outcome: Outcome, checkpoint_url: str) -> JobResult:
    """Of a job that reached its end.

    Raises:
        JobFailed: it did not; it has been said why.
    """
    if outcome.signal and not outcome.superseded:
        raise failed(interruption(outcome, checkpoint_url), outcome.exit_code)
    if outcome.error:
        raise failed(outcome.error, outcome.exit_code, outcome.detail)
    return JobResult(outcome.step, outcome.epoch, outcome.metrics, outcome.weights_sha256)


def interruption(outcome: Outcome, checkpoint_url: str) -> str:
    """How a signal ended the job, and how to go on."""
    name = signal.Signals(outcome.signal).name
    where = f"stopped by {name} after step {outcome.step}" if outcome.step else f"stopped by {name} before step 1"
    if not checkpoint_url:
        return f"{where}; there is no checkpoint to continue from (see job.checkpoint)"
    if outcome.checkpointed:
        return f"{where}; a checkpoint was written to {checkpoint_url}, continue with --resume"
    return f"{where}; continue from the last checkpoint in {checkpoint_url}, if there is one, with --resume"


def failed(message: str, code: int, detail: str = "", out: Callable[[str], object] | None = None) -> JobFailed:
    """Says why, and returns what to raise."""
    write = out or sys.stderr.write
    if detail:
        write(detail.rstrip("\n") + "\n")
    write(f"mesograd: {' '.join(message.split())}\n")
    sys.stderr.flush()
    return JobFailed(message, code)


def set_up_logging(verbose: bool) -> None:
    """Our modules' warnings are told by the reporter in their own words; --verbose shows all there is."""
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(relativeCreated)8.0f ms %(name)s: %(message)s")
    else:
        for name in ("proto", "scheduler", "pymesos", "kazoo"):
            logging.getLogger(name).addHandler(logging.NullHandler())
            logging.getLogger(name).propagate = False
