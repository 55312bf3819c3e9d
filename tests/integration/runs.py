"""`mesograd run` as a user runs it: a process, its output, and the processes of its tasks."""

import atexit
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

# All clusters of these tests keep their files below it, which tells their processes from those of other runs.
WORK = Path(tempfile.mkdtemp(prefix="mesograd-test-"))
atexit.register(shutil.rmtree, WORK, ignore_errors=True)

ROOT = Path(__file__).resolve().parents[2]
LENET = str(ROOT / "examples" / "train_lenet.py")
TIMEOUT_S = 120.0


CLI = ("-m", "scheduler.cli")
STATE = WORK / "jobs"


def environment() -> dict[str, str]:
    """Of every command that these tests start."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(WORK), "MESOGRAD_STATE": str(STATE)}


def command(*arguments: str) -> str:
    """Standard output of another command of mesograd, which must succeed."""
    done = subprocess.run(
        [sys.executable, *CLI, *arguments], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass
class Run:
    """One `mesograd run`, started by `start`."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._news: queue.Queue[str | None] = queue.Queue()
        self._readers: list[threading.Thread] = []

    @classmethod
    def start(cls, *arguments: str, cwd: Path | None = None, program: Sequence[str] = CLI) -> "Run":
        """Starts `mesograd run` with these arguments, in a process group of its own, as a shell does."""
        process = subprocess.Popen(
            [sys.executable, *program, "run", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd or ROOT,
            process_group=0, env=environment(),
        )  # fmt: skip
        run = cls(process)
        run._readers = [
            threading.Thread(target=run._read, args=(process.stdout, run.lines, run._news), daemon=True),
            threading.Thread(target=run._read, args=(process.stderr, run.errors, queue.Queue()), daemon=True),
        ]
        for reader in run._readers:
            reader.start()
        return run

    @staticmethod
    def _read(stream: IO[str], lines: list[str], news: "queue.Queue[str | None]") -> None:
        with stream:
            for line in stream:
                lines.append(line.rstrip("\n"))
                news.put(lines[-1])
        news.put(None)

    def until(self, pattern: str, timeout_s: float = TIMEOUT_S) -> str:
        """Waits for a line of standard output that matches."""
        deadline = time.monotonic() + timeout_s
        while True:
            line = self._news.get(timeout=max(deadline - time.monotonic(), 0.01))
            if line is None:
                raise AssertionError(f"ended without a line like {pattern!r}:\n{self.output}")
            if re.search(pattern, line):
                return line

    def finish(self, timeout_s: float = TIMEOUT_S, kill: bool = True) -> int:
        """Exit code. A run that does not end in time is killed (if `kill`) and an AssertionError."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            if kill:
                self.process.kill()
                self.process.wait()
            raise AssertionError(f"did not end within {timeout_s:g} s:\n{self.output}") from None
        for reader in self._readers:
            reader.join(10)
        return code

    def weights(self, timeout_s: float = TIMEOUT_S) -> str:
        """The digest it prints at its successful end."""
        code = self.finish(timeout_s)
        assert code == 0, self.output
        (digest,) = (line.split()[-1] for line in self.lines if line.startswith("weights sha256: "))
        return digest

    @property
    def output(self) -> str:
        return "\n".join([*self.lines, "--- standard error", *self.errors])

    def interrupt(self) -> None:
        """Ctrl-C: SIGINT to the whole foreground process group."""
        os.killpg(self.process.pid, signal.SIGINT)


def processes() -> dict[int, tuple[psutil.Process, list[str]]]:
    """Every process that these tests have started, with its command line, by pid."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        try:
            command = process.info["cmdline"] or []
            where = [*command, process.environ().get("MESOS_DIRECTORY", "")]
            if process.status() != psutil.STATUS_ZOMBIE and any(str(WORK) in part for part in where):
                found[process.pid] = (process, command)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    found.pop(os.getpid(), None)
    return found


def tasks(role: str = "") -> dict[str, psutil.Process]:
    """Task id -> process, of all tasks that run now."""
    return {
        command[-1]: process
        for process, command in processes().values()
        if "executor.task" in command and role in command[-1]
    }


def leftovers() -> list[str]:
    """Command lines of executors, tasks and Mesos daemons that run now."""
    parts = ("executor", "executor.task")
    return [
        " ".join(command)
        for _, command in processes().values()
        if any(part in command for part in parts) or "mesos-" in "".join(command[:1])
    ]


def run_to_end(arguments: Sequence[str]) -> Run:
    """Runs it and waits; the caller looks at the code and the output."""
    run = Run.start(*arguments)
    run.finish()
    return run
