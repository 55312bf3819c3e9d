"""Accuracy of LeNet-5 on Fashion-MNIST in every mode and with every compression, as a table.

A compression is that of gradients, or of gradients/parameters.
Each run is a whole `mesograd run` on an embedded Mesos with 2 agents, 2 workers and 2 servers; runs follow one another.
"""

import argparse
import re
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CASES = (
    ("sync", "none"), ("sync", "bf16"), ("sync", "bf16/bf16"), ("sync", "fp16"), ("sync", "topk:0.1"),
    ("sync", "topk:0.01"), ("sync", "8bit"), ("sync", "1bit"), ("ssp:1", "none"), ("ssp:4", "none"),
    ("async", "none"), ("async", "bf16"),
)  # fmt: skip


def run(sync: str, compression: str, seed: int, options: argparse.Namespace) -> tuple[float, str]:
    """Accuracy after the last epoch, and the digest of the weights."""
    gradients, _, parameters = compression.partition("/")
    output = subprocess.run(
        [sys.executable, "-m", "scheduler.cli", "run", "--master", "local[2]", "--workers", str(options.workers),
         "--servers", "2", "--sync", sync, "--compression", gradients, "--parameter-compression", parameters or "none",
         "examples/train_lenet.py", "-f", options.folder, "-e", str(options.epochs), "--seed", str(seed)],
        cwd=ROOT, check=True, capture_output=True, text=True, timeout=900,
    ).stdout  # fmt: skip
    accuracy = re.findall(r"^test accuracy: ([0-9.]+)", output, re.MULTILINE)
    digest = re.findall(r"^weights sha256: (\w+)", output, re.MULTILINE)
    return float(accuracy[-1]), digest[-1]


def main() -> None:
    """Prints a row as soon as its runs are done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", required=True, help="Fashion-MNIST's four files")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    seeds = range(1, options.seeds + 1)
    print("| sync | compression | " + " | ".join(f"seed {seed}" for seed in seeds) + " | mean |")
    print("| --- | --- |" + " ---: |" * (options.seeds + 1))
    for sync, compression in CASES:
        results = [run(sync, compression, seed, options)[0] for seed in seeds]
        cells = [*(f"{result:.4f}" for result in results), f"{statistics.mean(results):.4f}"]
        print(f"| {sync} | {compression} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
