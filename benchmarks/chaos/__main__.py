"""A job on a cluster to which everything happens: the weights come out the same, no sample is counted twice.

    python -m benchmarks.chaos --seed 1 --minutes 5

Runs the job twice on a real cluster of 3 masters, 4 agents and a ZooKeeper: undisturbed, and under a schedule of faults
drawn from the seed. Prints every fault, mend and recovery with its time; exit code 1 unless both runs gave the same
weights, each epoch counted each sample once, and nothing of the job was left behind.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import IO

from benchmarks.chaos.job import BATCH, SAMPLES
from benchmarks.chaos.network import Drops, enter_namespace
from benchmarks.chaos.schedule import draw
from benchmarks.chaos.world import World
from scheduler.cluster import EmbeddedCluster

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "benchmarks" / "chaos" / "job.py"
WORKERS, SERVERS, MICRO_BATCHES = 3, 2, 8
PACE_S = 0.03
END_S = 300.0  # for the job to come to its end after the faults, and again as long as they lasted, twice
ORPHANS_S = 30.0


class Log:
    """Lines with seconds since the start of the disturbed run."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._lock = threading.Lock()

    def restart(self) -> None:
        self._begun = time.monotonic()

    def __call__(self, text: str) -> None:
        with self._lock:
            print(f"{time.monotonic() - self._begun:8.2f} {text}", flush=True)


class Run:
    """The drivers of one job, one after the other; their lines go to `log` as they come."""

    def __init__(self, master: str, epochs: int, pace_s: float, directory: Path, log: Log) -> None:
        self.lines: list[str] = []
        self._log = log
        self._home = directory / "home"
        self._readers: list[threading.Thread] = []
        self._waits = False  # for attach()
        self._start(
            "--master", master, "--workers", str(WORKERS), "--servers", str(SERVERS), "--mem-per-worker", "256",
            str(JOB), "--epochs", str(epochs), "--pace", str(pace_s), "--checkpoints", str(directory / "checkpoints"),
        )  # fmt: skip

    def _start(self, *arguments: str) -> None:
        mesos = os.environ.get("MESOGRAD_MESOS", str(ROOT / ".cache" / "mesos"))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scheduler.cli", "run", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "MESOGRAD_HOME": str(self._home), "MESOGRAD_MESOS": mesos},
        )  # fmt: skip
        self._waits = False
        assert self.process.stdout is not None
        self._readers.append(threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True))
        self._readers[-1].start()

    def _read(self, output: IO[str]) -> None:
        with output:
            for line in output:
                self.lines.append(line.rstrip("\n"))
                if not re.match(r"step |epoch |checkpoint ", line):
                    self._log(f"job    {self.lines[-1]}")

    def kill(self) -> bool:
        """Kills the driver, if it has come so far that another one could go on."""
        if self.process.poll() is not None or not list(self._home.glob("jobs/*/state.sqlite")):
            return False
        self._waits = True
        self.process.kill()
        self.process.wait()
        return True

    def attach(self) -> None:
        """Starts a driver that goes on in the place of the one that was killed."""
        self._start("--attach")

    @property
    def is_going(self) -> bool:
        return self._waits or self.process.poll() is None

    def finish(self, timeout_s: float) -> int:
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return -1
        finally:
            for reader in self._readers:
                reader.join(10)

    @property
    def weights(self) -> str:
        return next((line.split()[-1] for line in self.lines if line.startswith("weights sha256: ")), "")

    def exact_epochs(self) -> set[int]:
        """Those reported with each sample counted once."""
        exact = re.compile(rf"epoch (\d+) done .*: {SAMPLES} samples, each sample once")
        return {int(match[1]) for line in self.lines if (match := exact.match(line))}


def disturb(world: World, run: Run, options: argparse.Namespace) -> None:
    """Lets the faults of the seed happen while the job runs."""
    faults = draw(options.seed, options.minutes * 60, options.longest, options.network)
    while run.is_going and not world.tasks("worker"):
        time.sleep(0.1)
    begun = time.monotonic()
    while run.is_going:
        now = time.monotonic() - begun
        world.mend(now)
        while faults and faults[0].at_s <= now:
            world.carry_out(faults.pop(0), now)
        if now > 3 * options.minutes * 60 + END_S:
            break
        time.sleep(0.1)
    world.mend_all()


def verdicts(quiet: Run, run: Run, code: int, world: World, epochs: int) -> list[str]:
    """What is wrong; empty if nothing is."""
    wrong = []
    if code != 0:
        wrong.append(f"the job ended with exit code {code}")
    if not quiet.weights or run.weights != quiet.weights:
        wrong.append(f"weights {run.weights or '(none)'} instead of {quiet.weights or '(none)'}")
    missing = set(range(1, epochs + 1)) - run.exact_epochs()
    if missing:
        wrong.append(f"epochs without an exact count: {sorted(missing)[:10]}")
    deadline = time.monotonic() + ORPHANS_S
    while left := [*world.tasks(), *world.executors()]:
        if time.monotonic() > deadline:
            wrong.append(f"left behind: {[process.pid for process in left]}")
            break
        time.sleep(0.2)
    return wrong


def cluster_in(directory: Path) -> EmbeddedCluster:
    """With room for all tasks on any two agents."""
    return EmbeddedCluster(directory / "cluster", agents=4, masters=3, cpus=3, mem_mb=3000, ephemeral=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=5.0, help="for which faults happen")
    parser.add_argument("--longest", type=float, default=30.0, help="seconds that a fault lasts at the most")
    options = parser.parse_args()
    options.network = enter_namespace()
    steps_s = MICRO_BATCHES / WORKERS * PACE_S
    epochs = max(3, int(options.minutes * 60 / (steps_s * -(-SAMPLES // BATCH))))
    log = Log()
    if not options.network:
        print("without root, or unshare, ip and iptables: no traffic is dropped", flush=True)
    with tempfile.TemporaryDirectory(prefix="mesograd-chaos-") as name, cluster_in(Path(name)) as cluster:
        print(f"seed {options.seed}, {epochs} epochs; undisturbed:", flush=True)
        quiet = Run(cluster.master, epochs, 0.0, Path(name) / "quiet", log)
        quiet.finish(options.minutes * 60 + END_S)
        drops = Drops() if options.network else None
        log.restart()
        print(f"disturbed for {options.minutes:g} min:", flush=True)
        run = Run(cluster.master, epochs, PACE_S, Path(name) / "disturbed", log)
        world = World(cluster, run, drops, log)
        try:
            disturb(world, run, options)
            code = run.finish(10)
        finally:
            if drops is not None:
                drops.clear()
            if run.process.poll() is None:
                run.process.kill()
        wrong = verdicts(quiet, run, code, world, epochs)
        print("faults: " + ", ".join(f"{count} x {kind}" for kind, count in sorted(Counter(world.fired).items())))
        print("\n".join(wrong) if wrong else f"as undisturbed: weights sha256 {run.weights}, {epochs} epochs exact")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
