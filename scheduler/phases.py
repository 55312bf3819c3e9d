"""How long each phase of the start took, from the start of this process to the first step."""

from __future__ import annotations

import os
import time

_STAT_STARTTIME = 21  # field 22 of /proc/PID/stat, the name in parentheses removed: clock ticks since boot


def process_age_s() -> float:
    """Seconds since this process was started, on the clock that the kernel stamps processes with; 0 where unknown."""
    try:
        with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        started_s = int(fields[_STAT_STARTTIME - 2]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started_s)
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


class Phases:
    """Named moments, each as seconds since the process started."""

    def __init__(self) -> None:
        self._origin_s = time.monotonic() - process_age_s()
        self.marks: dict[str, float] = {}

    def mark(self, name: str) -> None:
        """Only the first moment of a name counts."""
        self.marks.setdefault(name, time.monotonic() - self._origin_s)

    def line(self) -> str:
        """ "script 0.4 s, cluster up +1.9 s, ..., first step +0.3 s; 4.5 s in all"."""
        parts = []
        before_s = 0.0
        for name, at_s in self.marks.items():
            parts.append(f"{name} +{at_s - before_s:.2f} s")
            before_s = at_s
        return f"start-up: {', '.join(parts)}; {before_s:.2f} s in all"
