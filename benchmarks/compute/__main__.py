"""Training steps of whole networks beside the best of PyTorch's variants, in turn, in one run.

For every network, batch size, number of threads and precision: PyTorch's variants (eager, channels_last for images,
compile with --compile; each with and without the environment in which its allocator keeps memory) are tried for a few
steps; the fastest then runs in turn with Mesograd, A B A B ..., a few steps each. Reported are images (sequences) per
second, the ratio of the medians with its spread over the rounds, and the peak memory of each process. Both processes
are alive all the time, but only one computes. Needs the `test` extra (torch).
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any

from benchmarks.compute.children import KEEPING_MEMORY, Child
from benchmarks.compute.networks import NETWORKS


def best_of_theirs(common: list[str], variants: list[str], threads: int, steps: int) -> Child:
    """PyTorch's fastest variant, alive; the others are ended."""
    best: tuple[float, Child] | None = None
    for variant in variants:
        for name, environment in (("", {}), ("+malloc", KEEPING_MEMORY)):
            child = Child(["theirs", *common, "--variant", variant], environment, threads)
            child.name = variant + name
            try:
                child.ready()
                seconds = statistics.median(child.run(steps))
            except RuntimeError as error:
                print(f"  {child.name}: {str(error).strip().splitlines()[-1][:200]}", file=sys.stderr)
                child.end()
                continue
            if best is None or seconds < best[0]:
                if best is not None:
                    best[1].end()
                best = (seconds, child)
            else:
                child.end()
    if best is None:
        raise SystemExit("no variant of PyTorch runs")
    return best[1]


def compare(network: str, batch: int, threads: int, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    common = [network, "--batch", str(batch), "--threads", str(threads), "--precision", precision]
    variants = ["eager", *(["channels_last"] if NETWORKS[network].images else [])]
    variants += ["compile"] if options.compile else []
    their = best_of_theirs(common, variants, threads, options.tries)
    our = Child(["ours", *common, "--engine", options.engine], {}, threads)
    try:
        our.ready()
        ratios, ours, theirs = [], [], []
        for _ in range(options.rounds):
            a, b = our.run(options.steps), their.run(options.steps)
            ratios.append(statistics.median(b) / statistics.median(a))
            ours += a
            theirs += b
        limit = our.roofline() if options.roofline else {}
        return {
            **limit, "network": network, "batch": batch, "threads": threads, "precision": precision,
            "ours_per_s": batch / statistics.median(ours), "theirs_per_s": batch / statistics.median(theirs),
            "variant": their.name, "ratio": statistics.median(theirs) / statistics.median(ours),
            "low": min(ratios), "high": max(ratios), "our_mb": our.peak_mb, "their_mb": their.peak_mb,
        }  # fmt: skip
    finally:
        our.end()
        their.end()


def main() -> None:
    """Runs the comparisons and prints a table."""
    parser = argparse.ArgumentParser(description="Training steps beside the best of PyTorch's variants.")
    parser.add_argument("--networks", nargs="+", choices=sorted(NETWORKS), default=sorted(NETWORKS))
    parser.add_argument("--batches", nargs="+", type=int, default=[16, 128])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--engine", default="onednn")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3, help="per round and side")
    parser.add_argument("--tries", type=int, default=3, help="steps by which PyTorch's best variant is chosen")
    parser.add_argument(
        "--roofline", action="store_true", help="print what a step could reach at best, see roofline.py"
    )
    parser.add_argument("--compile", action="store_true", help="try torch.compile, too (needs a C++ compiler)")
    options = parser.parse_args()
    print("| network | batch | threads | precision | Mesograd /s | PyTorch /s | variant | ratio | MB | PyTorch MB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for network in options.networks:
        for batch in options.batches:
            for threads in options.threads:
                for precision in options.precisions:
                    row = compare(network, batch, threads, precision, options)
                    print(
                        "| {network} | {batch} | {threads} | {precision} | {ours_per_s:.4g} | {theirs_per_s:.4g} | "
                        "{variant} | **{ratio:.2f}** ({low:.2f}-{high:.2f}) | {our_mb:.0f} | {their_mb:.0f} |".format(
                            **row
                        ),
                        flush=True,
                    )
                    if options.roofline:
                        print(
                            "  roofline: {flops:.4g} FLOP at {rate:.4g} FLOP/s, passes {passes_s:.4f} s, update "
                            "{update_s:.4f} s, weights {copy_s:.4f} s: limit {limit_s:.4f} s, share reached "
                            "{share:.0%}".format(share=row["limit_s"] / row["step_s"], **row),
                            flush=True,
                        )


if __name__ == "__main__":
    main()
