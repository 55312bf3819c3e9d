"""Where the time of a training step goes: per layer and pass, with the kernels that ran."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.engines.staged import Call, Emitted, StagedPlan
from compute.errors import InputError
from compute.program import Program
from compute.spec import Arrays

WARM_UP_STEPS = 2
_PEAK_ROWS = 1024
_PEAK_S = 0.3
_COPY_BYTES = 1 << 28


@dataclass
class Row:
    """One layer (or some that are computed together) in one pass, per step.

    Attributes:
        kernels: names of the library's kernels, in the order in which they run.
        flops: floating-point operations of its products; 0 where memory is what counts.
        size_bytes: read and written by the library's kernels, each argument once.
    """

    layers: str
    phase: str
    kernels: list[str] = field(default_factory=list)
    seconds: float = 0.0
    flops: float = 0.0
    size_bytes: int = 0


@dataclass(frozen=True)
class Profile:
    """A step's time, in seconds.

    Attributes:
        rows: of all calls.
        step_s: the whole step, as it runs without being watched.
        outside_s: of a watched step outside of all calls: Python, and the copy of the input.
        peak_flops: what a large matrix product reaches on these threads in this precision.
        peak_bytes: what a large copy reaches, read and written bytes per second.
    """

    rows: list[Row]
    step_s: float
    outside_s: float
    samples: int
    peak_flops: float
    peak_bytes: float


def profile(program: Program, x: NDArray[Any] | Arrays, target: NDArray[Any] | Arrays, steps: int = 10) -> Profile:
    """Runs some training steps on one batch and says where their time goes.

    Raises:
        InputError: the engine does not prepare its calls (engine numpy).
    """
    plan = program.training_plan(x)
    if not isinstance(plan, StagedPlan):
        raise InputError("engine numpy runs the layers' formulas one by one; profile engine onednn or mkl")
    samples = len(x[0]) if isinstance(x, tuple) else len(x)
    product, product_flops = large_product(program)
    before = product_flops / _best(product)
    for _ in range(WARM_UP_STEPS):
        program.forward_backward(x, target, 1.0 / samples, (1, 1, 0))
    whole = []
    for _ in range(steps):
        program.parameters_changed()
        begun = time.perf_counter()
        program.forward_backward(x, target, 1.0 / samples, (1, 1, 0))
        whole.append(time.perf_counter() - begun)
    rows: dict[tuple[str, str], Row] = {}
    seconds: dict[tuple[str, str], list[list[float]]] = {}

    def watched(emitted: Emitted) -> Call:
        key = (emitted.layers, emitted.phase)
        row = rows.setdefault(key, Row(*key))
        record = getattr(emitted.call, "record", None)
        if record is not None:
            row.kernels.append(f"{record.name} {record.implementation}".strip())
            row.flops += record.flops
            row.size_bytes += record.size_bytes
        times: list[float] = []
        seconds.setdefault(key, []).append(times)

        def call() -> Any:
            begun = time.perf_counter()
            status = emitted.call()
            times.append(time.perf_counter() - begun)
            return status

        return call

    plan.watch(watched)
    watched_s = []
    try:
        for _ in range(steps):
            program.parameters_changed()
            begun = time.perf_counter()
            program.forward_backward(x, target, 1.0 / samples, (1, 1, 0))
            watched_s.append(time.perf_counter() - begun)
    finally:
        plan.watch(None)
    for key, calls in seconds.items():
        rows[key].seconds = sum(median(times) for times in calls)
    inside = [sum(times[step] for calls in seconds.values() for times in calls) for step in range(steps)]
    outside = median(whole_s - inside_s for whole_s, inside_s in zip(watched_s, inside, strict=True))
    # On a shared machine the peak comes and goes, too: before and after.
    peak_flops = max(before, product_flops / _best(product))
    return Profile(list(rows.values()), median(whole), outside, samples, peak_flops, copy_rate())


def table(found: Profile, largest: int = 40) -> str:
    """The profile as text: the rows that take longest, then the sums."""
    lines = [f"{'layers':<44} {'pass':<8} {'ms':>8} {'%':>5} {'GFLOP/s':>8} {'% peak':>6} {'GB/s':>6}  kernels"]
    for row in sorted(found.rows, key=lambda row: -row.seconds)[:largest]:
        rate = row.flops / row.seconds if row.seconds else 0.0
        share = f"{100 * rate / found.peak_flops:6.0f}" if rate else "      "
        memory = row.size_bytes / row.seconds / 1e9 if row.seconds else 0.0
        lines.append(
            f"{_short(row.layers, 44):<44} {row.phase:<8} {1e3 * row.seconds:8.3f} "
            f"{100 * row.seconds / found.step_s:5.1f} {rate / 1e9 if rate else 0:8.1f} {share} {memory:6.1f}  "
            f"{_short(', '.join(dict.fromkeys(row.kernels)) or 'numpy', 80)}"
        )
    hidden = len(found.rows) - largest
    if hidden > 0:
        lines.append(f"... and {hidden} smaller ones")
    flops = sum(row.flops for row in found.rows)
    for phase in dict.fromkeys(row.phase for row in found.rows):
        lines.append(f"{phase}: {1e3 * sum(r.seconds for r in found.rows if r.phase == phase):.2f} ms")
    lines.append(
        f"step: {1e3 * found.step_s:.2f} ms for {found.samples} samples, {found.samples / found.step_s:.1f} samples/s; "
        f"outside of these calls, in Python: {100 * found.outside_s / found.step_s:.1f} %"
    )
    if flops:
        rate = flops / found.step_s
        lines.append(
            f"{rate / 1e9:.1f} GFLOP/s over the step, {100 * rate / found.peak_flops:.0f} % of this machine's "
            f"{found.peak_flops / 1e9:.1f}; copies reach {found.peak_bytes / 1e9:.1f} GB/s"
        )
    return "\n".join(lines)


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _best(call: Call, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of the fastest of some calls."""
    call()
    best, begun = float("inf"), clock()
    while clock() - begun < _PEAK_S:
        start = clock()
        call()
        best = min(best, clock() - start)
    return best


def large_product(program: Program) -> tuple[Call, float]:
    """A large matrix product on the program's threads, in its precision, and its floating-point operations."""
    from compute.engines import dnnl

    api = dnnl.Api()
    kind = dnnl.BF16 if program.precision == "bf16" else dnnl.F32
    shape = (_PEAK_ROWS, _PEAK_ROWS)
    operation = dnnl.matmul(api, api.any(shape, kind), api.any(shape, kind), None, api.any(shape, kind))
    places = (dnnl.SRC, dnnl.WEIGHTS, dnnl.DST)
    call = operation.bind({place: api.memory(operation.layout(place)) for place in places})
    return call, 2.0 * _PEAK_ROWS**3


def copy_rate(clock: Callable[[], float] = time.perf_counter) -> float:
    """Bytes read and written by a large copy per second of a clock."""
    source = np.ones(_COPY_BYTES // 8)
    target = np.empty_like(source)
    return 2.0 * source.nbytes / _best(lambda: np.copyto(target, source), clock)
