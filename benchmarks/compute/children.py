"""Processes that run training steps when they are told to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
KEEPING_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


class Child:
    """A process that runs steps when told to."""

    def __init__(self, arguments: list[str], environment: dict[str, str], threads: int) -> None:
        self.name = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.compute.child", *arguments],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": str(threads), **environment},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.losses: list[float] = []
        self.peak_mb = 0.0

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self.process.stderr.read()[-2000:])
        return dict(json.loads(line))

    def _tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def ready(self) -> None:
        """Waits until the first two steps are done."""
        self.losses = self._answer()["losses"]

    def begin(self, steps: int) -> None:
        """Has it run some more steps."""
        self._tell(f"run {steps}")

    def finish(self) -> list[float]:
        """Seconds of each of the steps that `begin` asked for."""
        answer = self._answer()
        self.peak_mb = answer["peak_mb"]
        return list(answer["seconds"])

    def run(self, steps: int) -> list[float]:
        """Seconds of each of some more steps."""
        self.begin(steps)
        return self.finish()

    def roofline(self) -> dict[str, float]:
        """The parts of Mesograd's limit, see `roofline.Roofline`, and `limit_s`."""
        self._tell("roofline")
        return dict(self._answer())

    def end(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.communicate()
