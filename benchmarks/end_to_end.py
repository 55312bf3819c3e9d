"""VGG-16 (CIFAR-10 shapes, no dropout) end to end, beside PyTorch DistributedDataParallel and pure computing.

In turn, in one run, for each precision:
- DDP over gloo: 2 processes of 1 thread, half of the batch each. Its variants (eager or channels_last, each with the
  allocator as it is and made to keep its memory) are tried first; the fastest goes on.
- Mesograd: `mesograd run` of examples/train_vgg.py, 2 workers of 1 thread and the servers, on an embedded Mesos.
- Pure computing: forward and backward pass of a worker's part of the batch, no data, no update, no exchange; by one
  process alone, and by two at the same time, since two cores may share what a core computes with.

Both take the images from CIFAR-10's binary files, normalize them, and use SGD with momentum and weight decay. A turn's
images/s are those of all its steps but the first ones. Needs the `test` extra (torch).

python -m benchmarks.end_to_end [--rounds 5] [--steps 12] [--precisions fp32 bf16] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import ddp, fashion_cifar, mesograd_run
from benchmarks.compute.children import KEEPING_MEMORY, Child
from benchmarks.mesograd_run import spread
from executor.task_request import TaskRequest, child_environment

WARM_UP_STEPS = 3
TRIED_STEPS = 4
LEARNING_RATE, WEIGHT_DECAY = "0.01", "5e-4"
WORKERS = 2
TURN_S = 1800.0


@dataclass
class Found:
    """Of one precision: images/s of each turn, milliseconds of each phase of Mesograd's steps, peak memory in MB."""

    ddp: list[float] = field(default_factory=list)
    mesograd: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    together: list[float] = field(default_factory=list)
    phases_ms: dict[str, list[float]] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """One way to run DDP."""

    layout: str
    malloc: bool

    @property
    def name(self) -> str:
        """For the table."""
        return self.layout + "+malloc" * self.malloc

    def run(self, precision: str, steps: int, options: argparse.Namespace) -> dict[str, float]:
        """Figures of one turn."""
        return ddp.run(
            ["vgg_cifar10", "--folder", options.folder, "--batch-size", str(options.batch_size), "--steps",
             str(WARM_UP_STEPS + steps), "--warm-up", str(WARM_UP_STEPS), "--learning-rate", LEARNING_RATE,
             "--weight-decay", WEIGHT_DECAY, "--variant", self.layout, "--precision", precision,
             "--processes", str(WORKERS)],
            KEEPING_MEMORY if self.malloc else {}, TURN_S,
        )  # fmt: skip


def fastest(precision: str, options: argparse.Namespace) -> Variant:
    """DDP's fastest variant."""
    variants = [Variant(layout, malloc) for layout in ("eager", "channels_last") for malloc in (False, True)]
    rates = {}
    for variant in variants:
        rates[variant] = variant.run(precision, TRIED_STEPS, options)["images_per_s"]
        print(f"{precision}: DDP {variant.name} {rates[variant]:.1f} images/s", file=sys.stderr)
    return max(variants, key=rates.__getitem__)


def mesograd_turn(precision: str, options: argparse.Namespace, to: Found) -> None:
    """One turn of Mesograd."""
    pixels = ["--mean", *[str(fashion_cifar.MEAN)] * 3, "--std", *[str(fashion_cifar.STD)] * 3]
    run = mesograd_run.run(
        ["--master", f"local[{WORKERS}]", "--workers", str(WORKERS), "--servers", str(options.servers),
         "--exchange", options.exchange, "--compression", options.compression],
        "examples/train_vgg.py",
        ["-f", options.folder, "--no-dropout", "-b", str(options.batch_size), "--micro-batches", str(WORKERS),
         "-i", str(WARM_UP_STEPS + options.steps), "-l", LEARNING_RATE, "--weight-decay", WEIGHT_DECAY,
         "--precision", precision, *pixels],
        TURN_S,
    )  # fmt: skip
    counted = [step for step in run.throughput if step > WARM_UP_STEPS]
    to.mesograd.append(statistics.harmonic_mean([run.throughput[step] for step in counted]))
    for phase, seconds in run.phases_s.items():
        to.phases_ms.setdefault(phase, []).extend(1e3 * seconds[step] for step in counted if step in seconds)
    for kind, mb in run.peak_mb.items():
        to.peak_mb[kind] = max(to.peak_mb.get(kind, 0.0), mb)


def measure(precision: str, options: argparse.Namespace) -> tuple[Variant, Found]:
    """All turns of a precision."""
    variant, found = fastest(precision, options), Found()
    part = options.batch_size // WORKERS
    environment = child_environment({}, TaskRequest(b"", 1, {}))
    arguments = ["ours", "vgg_cifar10", "--batch", str(part), "--precision", precision, "--no-update"]
    workers = [Child(arguments, environment, 1) for _ in range(WORKERS)]
    try:
        for worker in workers:
            worker.ready()
        for number in range(options.rounds):
            figures = variant.run(precision, options.steps, options)
            found.ddp.append(figures["images_per_s"])
            found.peak_mb["DDP process"] = max(found.peak_mb.get("DDP process", 0.0), figures["rss_mb"])
            mesograd_turn(precision, options, found)
            found.alone.append(part / statistics.mean(workers[0].run(options.steps)))
            for worker in workers:
                worker.begin(options.steps)
            found.together.append(sum(part / statistics.mean(worker.finish()) for worker in workers))
            print(
                f"{precision}, round {number + 1}: images/s: DDP {found.ddp[-1]:.1f}, Mesograd "
                f"{found.mesograd[-1]:.1f}, one worker's computing {found.alone[-1]:.1f}, "
                f"{WORKERS} workers' at the same time {found.together[-1]:.1f}", file=sys.stderr,
            )  # fmt: skip
    finally:
        for worker in workers:
            worker.end()
    return variant, found


def show(precision: str, variant: Variant, found: Found, options: argparse.Namespace) -> None:
    """Prints what was found."""
    beside_ddp = [a / b for a, b in zip(found.mesograd, found.ddp, strict=True)]
    of_twice = [100 * a / (WORKERS * b) for a, b in zip(found.mesograd, found.alone, strict=True)]
    of_both = [100 * a / b for a, b in zip(found.mesograd, found.together, strict=True)]
    rows = [
        ("Mesograd, images/s", spread(found.mesograd, 1)),
        (f"DDP, {variant.name}, images/s", spread(found.ddp, 1)),
        ("one worker's pure computing, images/s", spread(found.alone, 1)),
        (f"{WORKERS} workers' at the same time, images/s", spread(found.together, 1)),
        ("**Mesograd / DDP**, pair by pair", spread(beside_ddp, 2)),
        (f"**of {WORKERS} times one worker's pure computing**, %", spread(of_twice, 1)),
        (f"of {WORKERS} workers' at the same time, %", spread(of_both, 1)),
        *((f"a worker's step: {phase}, ms", spread(ms)) for phase, ms in found.phases_ms.items()),
        *((f"peak memory of a {kind}, MB", f"{mb:.0f}") for kind, mb in sorted(found.peak_mb.items())),
    ]
    print(f"\n| {precision}, batch {options.batch_size}, {options.rounds} rounds of {options.steps} steps |"
          " median (min - max) |\n| --- | --- |")  # fmt: skip
    for name, value in rows:
        print(f"| {name} | {value} |", flush=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.end_to_end", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12, help=f"of a turn, besides the first {WARM_UP_STEPS}")
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--exchange", choices=["auto", "tcp", "shm"], default="auto")
    parser.add_argument("--compression", default="none")
    parser.add_argument("--folder", help="with CIFAR-10's binary files; default: Fashion-MNIST in that format")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if options.folder is None:
            options.folder = temporary
            samples = options.batch_size * (WARM_UP_STEPS + options.steps + 1)
            fashion_cifar.write(fashion_cifar.FASHION_MNIST, Path(temporary), train=samples, test=100)
        try:
            results = {precision: measure(precision, options) for precision in options.precisions}
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"DDP failed: {error}") from None
    print(f"{os.cpu_count()} cpus, {WORKERS} workers of 1 thread, {options.servers} servers")
    for precision, (variant, found) in results.items():
        show(precision, variant, found, options)


if __name__ == "__main__":
    main()
