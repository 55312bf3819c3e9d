"""How fast gradients and weights of VGG-16 for CIFAR-10 (15 M parameters, 60 MB) go between workers and servers.

Real worker and server processes with everything but the network's computing: leases, pushes, reduction, momentum SGD,
parameters. Beside them, in the same run: the same bytes between as many processes by plain sendall and recv_into over
TCP, and copied once by memcpy in as many processes at a time. They take turns; figures are over all steps but the
first of each turn.

python -m benchmarks.exchange [--workers N] [--servers N] [--steps N] [--rounds N] [--ways tcp,shm,grpc] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compute import models, parameter_layout
from executor.task_request import TaskRequest, child_environment

ROOT = Path(__file__).resolve().parents[2]
WARM_UP_STEPS = 5
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass
class Figures:
    """Of one way of exchanging: seconds of each step, CPU seconds per step of each process."""

    seconds: list[float] = field(default_factory=list)
    user_s: dict[str, list[float]] = field(default_factory=dict)
    system_s: dict[str, list[float]] = field(default_factory=dict)

    @property
    def median_s(self) -> float:
        """Of a step."""
        return statistics.median(self.seconds)

    @property
    def quick_s(self) -> float:
        """The first decile: what a step takes when nobody else disturbs the machine."""
        return statistics.quantiles(self.seconds, n=10)[0]

    @property
    def cpu_s(self) -> float:
        """Of all processes together, for a step."""
        return sum(statistics.median(times) for kind in (self.user_s, self.system_s) for times in kind.values())


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@contextmanager
def process(
    task: dict[str, Any], enter: tuple[str, ...] = (), **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """A child with the environment that the executor gives to tasks; killed on leaving.

    Args:
        enter: command that runs what follows it where the child shall run.
    """
    child = subprocess.Popen(
        [*enter, sys.executable, "-m", "benchmarks.exchange.child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, cwd=ROOT, env={**child_environment(os.environ, TaskRequest(b"", 1, {})), **environment},
        stderr=None if os.environ.get("MESOGRAD_LOG") else subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert child.stdin is not None
        child.stdin.write(json.dumps(task) + "\n")
        child.stdin.flush()
        yield child
    finally:
        child.kill()
        child.wait()


def cpu_s(child: subprocess.Popen[str]) -> tuple[float, float]:
    """User and system seconds of a process so far (proc(5), stat)."""
    fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / TICKS_PER_S, int(fields[12]) / TICKS_PER_S


def follow(teller: subprocess.Popen[str], children: dict[str, subprocess.Popen[str]], steps: int, to: Figures) -> None:
    """Reads the steps that a process tells of."""
    assert teller.stdout is not None
    seconds: list[float] = []
    before = dict.fromkeys(children, (0.0, 0.0))
    while len(seconds) < steps and (line := teller.stdout.readline()):
        message = json.loads(line)
        if "seconds" not in message:
            continue
        seconds.append(message["seconds"])
        if len(seconds) == WARM_UP_STEPS:
            before = {name: cpu_s(child) for name, child in children.items()}
        if len(seconds) == steps - 1:  # the last one's end is also that of the processes
            counted = steps - 1 - WARM_UP_STEPS
            for name, child in children.items():
                user, system = cpu_s(child)
                to.user_s.setdefault(name, []).append((user - before[name][0]) / counted)
                to.system_s.setdefault(name, []).append((system - before[name][1]) / counted)
    if len(seconds) < steps:
        raise RuntimeError(f"the processes ended after {len(seconds)} of {steps} steps")
    to.seconds += seconds[WARM_UP_STEPS:-1]


def exchange(options: argparse.Namespace, way: str, to: Figures) -> None:
    """One turn of the project's own exchange, over `way`."""
    ports = [f"127.0.0.1:{port}" for port in free_ports(2 * options.servers)]
    addresses, lanes = ports[: options.servers], ports[options.servers :]
    common = {"workers": options.workers, "steps": options.steps, "servers": addresses}
    with ExitStack() as stack:
        children = {}
        for index, (address, lane) in enumerate(zip(addresses, lanes, strict=True)):
            task = {**common, "role": "server", "task_id": f"server-{index}", "bind": address, "bind_lanes": lane}
            children[f"server {index}"] = stack.enter_context(process(task, MESOGRAD_EXCHANGE=way))
        for index in range(options.workers):
            task = {**common, "role": "worker", "task_id": f"worker-{index}"}
            children[f"worker {index}"] = stack.enter_context(process(task, MESOGRAD_EXCHANGE=way))
        turn = Figures()
        follow(children["server 0"], children, options.steps, turn)
    busy = [turn.user_s[f"worker {index}"][0] for index in range(options.workers)]
    if min(busy) < max(busy) / 4:  # the lease book gives work to whom it takes for quicker; here all are as quick
        print(f"a turn of {way} does not count: one worker had nearly all leases", file=sys.stderr)
        return
    to.seconds += turn.seconds
    for kind, found in ((to.user_s, turn.user_s), (to.system_s, turn.system_s)):
        for name, times in found.items():
            kind.setdefault(name, []).extend(times)


def raw(options: argparse.Namespace, size: int, to: Figures) -> None:
    """One turn of plain sockets."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(options.servers)]
    common = {
        "workers": options.workers, "steps": options.steps, "servers": addresses, "bytes": size // options.servers,
    }  # fmt: skip
    with ExitStack() as stack:
        children = {}
        for index, address in enumerate(addresses):
            task = {**common, "role": "raw server", "bind": address}
            children[f"server {index}"] = stack.enter_context(process(task))
        for index in range(options.workers):
            children[f"worker {index}"] = stack.enter_context(process({**common, "role": "raw worker"}))
        follow(children["worker 0"], children, options.steps, to)


def memcpy(options: argparse.Namespace, size: int, to: Figures) -> None:
    """One turn of copying as many bytes as a step moves, shared among as many processes."""
    count = options.workers + options.servers
    task = {"role": "memcpy", "bytes": 2 * size * options.workers // count, "steps": options.steps}
    with ExitStack() as stack:
        children = {f"process {index}": stack.enter_context(process(task)) for index in range(count)}
        for child in children.values():
            assert child.stdout is not None
            child.stdout.readline()
        for child in children.values():
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        follow(children["process 0"], children, options.steps, to)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", default="tcp,shm,grpc", help="of the exchange to be measured, a comma between two")
    parser.add_argument("--json", action="store_true", help="figures for programs")
    options = parser.parse_args()
    size = 4 * sum(info.size for info in parameter_layout(models.vgg_cifar10(), (3, 32, 32)))
    ways = options.ways.split(",")
    figures = {name: Figures() for name in (*ways, "raw TCP", "memcpy")}
    for _ in range(options.rounds):
        for way in ways:
            exchange(options, way, figures[way])
        raw(options, size, figures["raw TCP"])
        memcpy(options, size, figures["memcpy"])
    if options.json:
        print(json.dumps({name: vars(found) for name, found in figures.items()}))
        return
    for way in ways:
        if not figures[way].seconds:
            print(f"{way}: no turn counts", file=sys.stderr)
            del figures[way]
    ways = [way for way in ways if way in figures]
    moved = 2 * options.workers * size
    print(f"{options.workers} workers, {options.servers} servers, {moved / 1e6:.0f} MB a step, {os.cpu_count()} cpus")
    print("                step ms                                 of raw TCP         of memcpy")
    print("              median  10 %   GB/s  CPU ms (sys)      median   10 %     median   10 %")
    for name, found in figures.items():
        system = sum(statistics.median(times) for times in found.system_s.values())
        shares = [
            100 * getattr(figures[other], key) / getattr(found, key)
            for other in ("raw TCP", "memcpy")
            for key in ("median_s", "quick_s")
        ]
        print(
            f"{name:12s} {1e3 * found.median_s:7.1f} {1e3 * found.quick_s:5.1f} {moved / found.median_s / 1e9:6.2f} "
            f"{1e3 * found.cpu_s:7.0f} ({1e3 * system:4.0f})   " + "".join(f"{share:8.0f} %" for share in shares)
        )
    for way in ways:
        found = figures[way]
        for name in sorted(found.user_s):
            user, system = statistics.median(found.user_s[name]), statistics.median(found.system_s[name])
            print(f"  {way}, {name}: {1e3 * user:.0f} ms user, {1e3 * system:.0f} ms system a step")


if __name__ == "__main__":
    main()
