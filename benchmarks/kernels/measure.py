"""Alternating measurement of variants of one operation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Variant = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds per call: median, first and last decile of the rounds."""

    median_s: float
    low_s: float
    high_s: float


def alternate(variants: Mapping[str, Variant], seconds: float = 2.0, min_rounds: int = 3) -> dict[str, Timing]:
    """Each round times every variant once, so that a slow moment of the machine hits all of them.

    What counts is this thread's processor time, since others may want the cores as well; so only calls of one thread
    can be measured. Those below a millisecond are timed in groups of some milliseconds.
    """
    clock = time.thread_time
    repeats = {}
    for name, call in variants.items():
        status = call()
        if isinstance(status, int) and status != 0:
            raise RuntimeError(f"{name} failed with status {status}")
        start = clock()
        call()
        repeats[name] = max(1, int(0.004 / max(clock() - start, 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in variants}
    end = clock() + seconds
    while clock() < end or len(next(iter(times.values()))) < min_rounds:
        for name, call in variants.items():
            count = repeats[name]
            start = clock()
            for _ in range(count):
                call()
            times[name].append((clock() - start) / count)
    return {
        name: Timing(*(float(np.percentile(values, percent)) for percent in (50, 10, 90)))
        for name, values in times.items()
    }


def report(title: str, timings: Mapping[str, Timing], work: float, unit: str) -> None:
    """One line per variant: `work` per second in `unit`s of 1e9, the deciles, and against PyTorch's best."""
    torch_best = min((t.median_s for name, t in timings.items() if name.startswith("torch")), default=None)
    for name, t in timings.items():
        ratio = f"\t{torch_best / t.median_s:.2f}" if torch_best is not None else ""
        print(
            f"{title}\t{name}\t{1e-9 * work / t.median_s:.1f} {unit}\t"
            f"{1e-9 * work / t.high_s:.1f}-{1e-9 * work / t.low_s:.1f}\t{1e3 * t.median_s:.3f} ms{ratio}",
            flush=True,
        )
