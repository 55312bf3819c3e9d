"""How near a step comes to the larger of computing and transferring, on hosts joined by links of a limited rate.

Each host is a set of namespaces of this machine (hosts.py: network and process ids of its own) with one worker and one
server, real ones, as in benchmarks.exchange; between hosts they talk TCP over the limited links, within a host as they
do. The network is VGG-16 for CIFAR-10 (15 M parameters, 60 MB). ITS COMPUTING IS A STAND-IN: the worker sleeps for the
given time, cut over the layers' forward and backward passes by their floating-point operations, and tells after each
layer of the backward pass that its gradient is there, since four computing workers do not fit onto a few cores. All
other work of workers and servers is real, and shares the cores of this machine.

The time of the transfer is that of the bytes that the limiting filters counted (headers included) on the busiest link
in its busier direction, at the link's rate. The aim: a step within 15 % of the larger of both times.

python -m benchmarks.network [--hosts 4] [--gbit 1] [--compute 0.25 0.5 1 2] [--compressions none bf16 bf16/bf16]
    [--steps 12]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks.exchange.__main__ import process
from benchmarks.network.hosts import Hosts, HostsError

WARM_UP_STEPS = 3
PORT = 5000
AIM = 1.15


@dataclass
class Found:
    """Of one setting.

    Attributes:
        seconds: of each step.
        phases_s: mean of the workers' seconds in each phase of a step.
        moved: bytes of a step on the busiest link in its busier direction.
        cpu_s: of all processes for a step.
    """

    seconds: list[float]
    phases_s: dict[str, float]
    moved: float
    cpu_s: float


def steps_of(teller: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """What a process tells of the steps."""
    assert teller.stdout is not None
    while line := teller.stdout.readline():
        message = json.loads(line)
        if "seconds" in message:
            yield message
    raise RuntimeError("the processes ended too early")


def cpu_s(children: list[subprocess.Popen[str]]) -> float:
    """CPU seconds so far of the processes below these, which only entered the namespaces."""
    below = [process for child in children for process in psutil.Process(child.pid).children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in below)


def measure(hosts: Hosts, compute_s: float, compression: str, steps: int) -> Found:
    """Runs one setting."""
    servers = [f"{host.address}:{PORT}" for host in hosts.hosts]
    common = {
        "workers": len(servers), "steps": WARM_UP_STEPS + steps + 1, "servers": servers, "compute_s": compute_s,
        "compression": compression.partition("/")[0], "parameter_compression": compression.partition("/")[2] or "none",
    }  # fmt: skip
    seconds: list[float] = []
    phases: dict[str, list[float]] = {}
    with ExitStack() as stack:
        children = []
        for role in ("server", "worker"):
            for host in hosts.hosts:
                task = {
                    **common, "role": role, "task_id": f"{role}-{host.index}", "bind": servers[host.index],
                    "bind_lanes": f"{host.address}:{PORT + 1}",
                }  # fmt: skip
                children.append(stack.enter_context(process(task, host.enter)))
        told = steps_of(children[0])
        for _ in range(WARM_UP_STEPS):
            next(told)
        bytes_before, cpu_before = hosts.link_bytes(), cpu_s(children)
        for _ in range(steps):
            message = next(told)
            seconds.append(message["seconds"])
            for phase, value in message["phases_s"].items():
                phases.setdefault(phase, []).append(value)
        bytes_after, cpu_after = hosts.link_bytes(), cpu_s(children)
    moved = max(
        now - then
        for after, before in zip(bytes_after, bytes_before, strict=True)
        for now, then in zip(after, before, strict=True)
    )
    means = {phase: statistics.mean(values) for phase, values in phases.items()}
    return Found(seconds, means, moved / steps, (cpu_after - cpu_before) / steps)


def row(compute_s: float, compression: str, gbit: float, found: Found) -> str:
    """One line of the table."""
    transfer_s = 8 * found.moved / (gbit * 1e9)
    step_s, bound_s = statistics.median(found.seconds), max(compute_s, transfer_s)
    ratio = step_s / bound_s
    over = "" if ratio <= AIM else " (over)"
    phases = ", ".join(f"{phase} {1e3 * value:.0f}" for phase, value in found.phases_s.items())
    return (
        f"| {compute_s:g} | {compression} | {step_s:.3f} ({min(found.seconds):.3f} - {max(found.seconds):.3f}) | "
        f"{found.moved / 1e6:.1f} | {transfer_s:.3f} | {bound_s:.3f} | **{ratio:.2f}**{over} | "
        f"{found.cpu_s:.2f} | {phases} |"
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.network", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--gbit", type=float, default=1.0, help="Gbit/s of each link, in each direction")
    parser.add_argument("--compute", type=float, nargs="+", default=[0.25, 0.5, 1.0, 2.0], help="seconds of a step")
    parser.add_argument(
        "--compressions", nargs="+", default=["none", "bf16", "bf16/bf16"], metavar="GRADIENTS[/PARAMETERS]"
    )
    parser.add_argument("--steps", type=int, default=12, help="measured, of each setting")
    options = parser.parse_args()
    print(f"{options.hosts} hosts, links of {options.gbit:g} Gbit/s; the network's computing is a stand-in\n")
    print("| compute s | compression | step s, median (min - max) | MB moved | transfer s | larger s | step / larger |"
          " CPU s of all | a worker's ms |\n|" + " --- |" * 9, flush=True)  # fmt: skip
    try:
        for compression in options.compressions:
            for compute_s in options.compute:
                with Hosts(options.hosts, options.gbit * 1e9) as hosts:  # with which all their processes end
                    found = measure(hosts, compute_s, compression, options.steps)
                print(row(compute_s, compression, options.gbit, found), flush=True)
    except HostsError as error:
        print(f"network: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
