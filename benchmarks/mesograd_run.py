"""`mesograd run` of a training script as a user starts it, watched: for benchmarks that compare it with others."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import psutil
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).resolve().parents[1]
PHASES = ("data", "compute", "push", "wait", "pull")
WATCH_S = 0.5


@dataclass
class Run:
    """What came of one run.

    Attributes:
        output: standard output.
        start_up: the line on the start-up's phases.
        throughput: samples/s of each step, by its number.
        phases_s: mean seconds of a worker in each phase of each step (exchange.proto, Times), by phase and step.
        peak_mb: largest resident memory of any process of a kind: driver, executor, server, worker.
    """

    output: str
    start_up: str
    throughput: dict[int, float]
    phases_s: dict[str, dict[int, float]]
    peak_mb: dict[str, float]


def kind_of(process: psutil.Process) -> str:
    """Which of our processes it is; empty: none."""
    command = process.cmdline()
    if "executor.task" in command:
        return "worker" if ".worker-" in command[-1] else "server"
    if command[-2:] == ["-m", "executor"]:
        return "executor"
    return ""


class MemoryWatch(threading.Thread):
    """Peak resident size of each kind of process below a driver, MB, as the kernel keeps it (proc(5), VmHWM)."""

    def __init__(self, driver: int) -> None:
        super().__init__(daemon=True)
        self.peak_mb: dict[str, float] = {}
        self._driver = psutil.Process(driver)
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(WATCH_S):
            try:
                processes = [self._driver, *self._driver.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            for process in processes:
                try:
                    kind = "driver" if process == self._driver else kind_of(process)
                    status = Path(f"/proc/{process.pid}/status").read_text() if kind else ""
                except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                    continue
                if found := re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE):
                    self.peak_mb[kind] = max(self.peak_mb.get(kind, 0.0), int(found[1]) / 1024)

    def stop(self) -> None:
        """Ends the thread."""
        self._ended.set()
        self.join()


def run(arguments: list[str], script: str, script_arguments: list[str], timeout_s: float) -> Run:
    """Runs a script of examples/, which has to know --summary, on an embedded Mesos.

    Args:
        arguments: of `mesograd run`.
        script: path from the checkout's root.
        script_arguments: of the script.
        timeout_s: after which the run has failed.

    Raises:
        SystemExit: with all its output, if the run fails.
    """
    with tempfile.TemporaryDirectory() as summary:
        process = subprocess.Popen(
            [sys.executable, "-m", "scheduler.cli", "run", "--verbose", *arguments, script, *script_arguments,
             "--summary", summary],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        watch = MemoryWatch(process.pid)
        watch.start()
        try:
            output, errors = process.communicate(timeout=timeout_s)
        finally:
            process.terminate()  # after a timeout; the driver then ends the job and its cluster
            watch.stop()
        if process.returncode:
            raise SystemExit(f"mesograd run failed:\n{output}\n{errors}")
        events = EventAccumulator(str(Path(summary) / "train")).Reload()
        throughput = {event.step: event.value for event in events.Scalars("Throughput")}
        phases = {phase: {e.step: e.value for e in events.Scalars(f"StepTime/{phase}")} for phase in PHASES}
    (start_up,) = re.findall(r"^start-up: .*$", output, re.MULTILINE)
    return Run(output, start_up, throughput, phases, watch.peak_mb)


def spread(values: list[float], digits: int = 0) -> str:
    """Median, minimum and maximum."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f})"
