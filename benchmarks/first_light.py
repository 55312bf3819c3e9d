"""Images per second, memory and start-up of Mesograd's first light, beside PyTorch's DistributedDataParallel.

Both train LeNet-5 on Fashion-MNIST in batches of 256 with SGD: DDP in 2 processes of 1 thread over gloo, Mesograd with
2 workers of 1 thread and 2 servers on an embedded Mesos. They run in turn, A B A B ...; needs the `test` extra (torch).
"""

import argparse
import re
import statistics
import sys

from benchmarks import ddp, mesograd_run
from benchmarks.mesograd_run import spread

SAMPLES = 60_000
WARM_UP_STEPS = 20
LIMITS_MB = {"driver": 200.0, "executor": 80.0, "server": 300.0}


def run_ddp(options: argparse.Namespace) -> dict[str, float]:
    """images_per_s, rss_mb and accuracy of one run."""
    return ddp.run(
        ["lenet5", "--folder", options.folder, "--batch-size", str(options.batch_size), "--epochs",
         str(options.epochs), "--warm-up", str(WARM_UP_STEPS), "--learning-rate", "0.05", "--weight-decay", "5e-4"],
        {},
    )  # fmt: skip


def run_mesograd(options: argparse.Namespace) -> tuple[dict[str, float], dict[str, float], str]:
    """Figures of one run, the largest resident sizes, and the line on the start-up."""
    found = mesograd_run.run(
        ["--master", "local[2]", "--workers", "2", "--servers", "2"], "examples/train_lenet.py",
        ["-f", options.folder, "-b", str(options.batch_size), "-e", str(options.epochs)], timeout_s=900,
    )  # fmt: skip
    # Each step's throughput is its samples over its seconds; the last of an epoch has fewer, which is left out here.
    per_epoch = -(-SAMPLES // options.batch_size)
    kept = [v for step, v in found.throughput.items() if step > WARM_UP_STEPS and step % per_epoch]
    accuracy = float(re.findall(r"^test accuracy: ([0-9.]+)$", found.output, re.MULTILINE)[-1])
    return {"images_per_s": statistics.harmonic_mean(kept), "accuracy": accuracy}, found.peak_mb, found.start_up


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
