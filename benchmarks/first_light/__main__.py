"""Images per second, memory and start-up of Mesograd's first light, beside PyTorch's DistributedDataParallel.

Both train LeNet-5 on Fashion-MNIST in batches of 256 with SGD: DDP in 2 processes of 1 thread over gloo, Mesograd with
2 workers of 1 thread and 2 servers on an embedded Mesos. They run in turn, A B A B ...; needs the `test` extra (torch).
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.first_light.ddp import WARM_UP_STEPS

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = 60_000
LIMITS_MB = {"driver": 200.0, "executor": 80.0, "server": 300.0}


def run_ddp(options: argparse.Namespace) -> dict[str, float]:
    """images_per_s, rss_mb and accuracy of one run."""
    output = subprocess.run(
        [sys.executable, "-m", "benchmarks.first_light.ddp", "--folder", options.folder,
         "--batch-size", str(options.batch_size), "--epochs", str(options.epochs), "--learning-rate", "0.05",
         "--weight-decay", "5e-4"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=ROOT, check=True, capture_output=True, text=True, timeout=900,
    ).stdout  # fmt: skip
    return dict(json.loads(output.splitlines()[-1]))


def kind_of(process: psutil.Process) -> str:
    """Which of our processes it is; empty: none."""
    command = process.cmdline()
    if "executor.task" in command:
        return "worker" if ".worker-" in command[-1] else "server"
    if command[-2:] == ["-m", "executor"]:
        return "executor"
    return ""


class MemoryWatch(threading.Thread):
    """Largest resident size of each kind of process, MB, looked at ten times a second."""

    def __init__(self, driver: int) -> None:
        super().__init__(daemon=True)
        self.largest_mb: dict[str, float] = {}
        self._driver = driver
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.1):
            for process in psutil.process_iter():
                try:
                    kind = "driver" if process.pid == self._driver else kind_of(process)
                    if kind:
                        rss_mb = process.memory_info().rss / 2**20
                        self.largest_mb[kind] = max(self.largest_mb.get(kind, 0.0), rss_mb)
                except psutil.NoSuchProcess:
                    continue

    def stop(self) -> None:
        """Ends the thread."""
        self._ended.set()
        self.join()


def run_mesograd(options: argparse.Namespace) -> tuple[dict[str, float], dict[str, float], str]:
    """Figures of one run, the largest resident sizes, and the line on the start-up."""
    with tempfile.TemporaryDirectory() as summary:
        process = subprocess.Popen(
            [sys.executable, "-m", "scheduler.cli", "run", "--master", "local[2]", "--workers", "2", "--servers", "2",
             "--verbose", "examples/train_lenet.py", "-f", options.folder, "-b", str(options.batch_size),
             "-e", str(options.epochs), "--summary", summary],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        watch = MemoryWatch(process.pid)
        watch.start()
        output, errors = process.communicate(timeout=900)
        watch.stop()
        if process.returncode:
            raise SystemExit(f"mesograd run failed:\n{output}\n{errors}")
        events = EventAccumulator(str(Path(summary) / "train")).Reload()
        full_steps = [e.value for e in events.Scalars("Throughput") if e.step > WARM_UP_STEPS]
    # Each step's throughput is its samples over its seconds; the last of an epoch has fewer, which is left out here.
    per_epoch = -(-SAMPLES // options.batch_size)
    kept = [v for i, v in enumerate(full_steps) if (i + WARM_UP_STEPS + 1) % per_epoch]
    images_per_s = statistics.harmonic_mean(kept)
    accuracy = float(re.findall(r"^test accuracy: ([0-9.]+)$", output, re.MULTILINE)[-1])
    (start_up,) = re.findall(r"^start-up: .*$", output, re.MULTILINE)
    return {"images_per_s": images_per_s, "accuracy": accuracy}, watch.largest_mb, start_up


def spread(values: list[float], digits: int = 0) -> str:
    """Median, minimum and maximum."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f})"


def main() -> None:
    """Runs both in turn and prints what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_light", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--folder", default="/usr/share/datasets/fashion-mnist")
    options = parser.parse_args()
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    memory: dict[str, float] = {}
    start_up = ""
    for number in range(options.rounds):
        theirs.append(run_ddp(options))
        figures, sizes, start_up = run_mesograd(options)
        ours.append(figures)
        memory = {kind: max(memory.get(kind, 0.0), mb) for kind, mb in sizes.items()}
        print(
            f"round {number + 1}: DDP {theirs[-1]['images_per_s']:.0f} images/s, "
            f"Mesograd {figures['images_per_s']:.0f} images/s", file=sys.stderr,
        )  # fmt: skip
    ratios = [a["images_per_s"] / b["images_per_s"] for a, b in zip(ours, theirs, strict=True)]
    torch_mb = max(f["rss_mb"] for f in theirs)
    print(f"| {options.rounds} rounds in turn, median (min - max) | Mesograd | PyTorch DDP |\n| --- | --- | --- |")
    for name, key, digits in (("images/s", "images_per_s", 0), ("test accuracy", "accuracy", 4)):
        print(f"| {name} | {spread([f[key] for f in ours], digits)} | {spread([f[key] for f in theirs], digits)} |")
    print(f"| ratio of images/s, pair by pair | {spread(ratios, 2)} | 1 |")
    for kind, mb in sorted(memory.items()):
        limit = LIMITS_MB.get(kind, torch_mb)
        verdict = "" if mb <= limit else " (over it)"
        print(f"| resident memory of a {kind}, at most, MB | {mb:.0f}, limit {limit:.0f}{verdict} | {torch_mb:.0f} |")
    print(f"\n{start_up}")


if __name__ == "__main__":
    main()
