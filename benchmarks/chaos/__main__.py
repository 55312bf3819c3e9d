"""A job on a cluster to which everything happens: the weights come out the same, no sample is counted twice.

    python -m benchmarks.chaos --seed 1 2 3 --minutes 5 --server-replicas 1

Runs the job undisturbed, and then for each seed under a schedule of faults drawn from it, each time on a real cluster
of its own: 3 masters, 4 agents, a ZooKeeper. Prints every fault, mend and recovery with its time; exit code 1 unless
all runs gave the same weights, each epoch counted each sample once, and nothing of a job was left behind. What a run
wrote that went wrong is kept.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
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
from benchmarks.chaos.schedule import Fault, draw
from benchmarks.chaos.world import World
from scheduler.cluster import EmbeddedCluster

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "benchmarks" / "chaos" / "job.py"
WORKERS, SERVERS, MICRO_BATCHES = 3, 2, 8
PACE_S = 0.03
END_S = 300.0  # for the job to come to its end after the faults
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

    def __init__(
        self, master: str, epochs: int, pace_s: float, directory: Path, log: Log, server_replicas: int = 0
    ) -> None:
        self.lines: list[str] = []
        self._log = log
        self._home = directory / "home"
        self._readers: list[threading.Thread] = []
        self._waits = False  # for attach()
        directory.mkdir()
        self._slow_file = directory / "slow"
        if pace_s:
            self._slow_file.touch()
        self._start(
            "--master", master, "--workers", str(WORKERS), "--servers", str(SERVERS), "--mem-per-worker", "256",
            "--server-replicas", str(server_replicas),
            str(JOB), "--epochs", str(epochs), "--checkpoints", str(directory / "checkpoints"),
            "--pace", str(pace_s), "--slow-file", str(self._slow_file),
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

    def hurry(self) -> None:
        """The rest of the training goes as fast as it can."""
        self._slow_file.unlink(missing_ok=True)

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


def disturb(world: World, run: Run, faults: list[Fault], length_s: float) -> None:
    """Lets the faults happen while the job runs."""
    while run.is_going and not world.tasks("worker"):
        time.sleep(0.1)
    begun = time.monotonic()
    while run.is_going:
        now = time.monotonic() - begun
        world.mend(now)
        while faults and faults[0].at_s <= now:
            world.carry_out(faults.pop(0), now)
        if now > length_s:
            run.hurry()
        if now > length_s + END_S:
            break
        time.sleep(0.1)
    world.mend_all()


def verdicts(weights: str, run: Run, code: int, world: World, epochs: int) -> list[str]:
    """What is wrong; empty if nothing is."""
    wrong = []
    if code != 0:
        wrong.append(f"the job ended with exit code {code}")
    if run.weights != weights:
        wrong.append(f"weights {run.weights or '(none)'} instead of {weights}")
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


def undisturbed(epochs: int, options: argparse.Namespace, log: Log) -> str:
    """The sha256 of the weights if nothing happens; empty if the job fails."""
    with tempfile.TemporaryDirectory(prefix="mesograd-chaos-") as name, cluster_in(Path(name)) as cluster:
        run = Run(cluster.master, epochs, 0.0, Path(name) / "job", log)
        run.finish(options.minutes * 60 + END_S)
        return run.weights


def disturbed(seed: int, epochs: int, weights: str, options: argparse.Namespace, log: Log) -> list[str]:
    """Runs the job under the seed's faults; what is wrong in the end."""
    directory = Path(tempfile.mkdtemp(prefix=f"mesograd-chaos-{seed}-"))
    length_s = options.minutes * 60
    drops = Drops() if options.network else None
    with cluster_in(directory) as cluster:
        log.restart()
        run = Run(cluster.master, epochs, PACE_S, directory / "job", log, options.server_replicas)
        world = World(cluster, run, drops, log)
        try:
            disturb(world, run, draw(seed, length_s, options.longest, options.network), length_s)
            code = run.finish(10)
        finally:
            if drops is not None:
                drops.clear()
            if run.process.poll() is None:
                run.process.kill()
        wrong = verdicts(weights, run, code, world, epochs)
        log(f"faults {', '.join(f'{count} x {kind}' for kind, count in sorted(Counter(world.fired).items()))}")
    if wrong:
        wrong.append(f"see {directory}")
    else:
        shutil.rmtree(directory)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, nargs="+", default=[1], help="one after the other")
    parser.add_argument("--minutes", type=float, default=5.0, help="for which faults happen")
    parser.add_argument("--longest", type=float, default=30.0, help="seconds that a fault lasts at the most")
    parser.add_argument("--server-replicas", type=int, default=0, choices=(0, 1), help="as of `mesograd run`")
    options = parser.parse_args()
    options.network = enter_namespace()
    steps_s = MICRO_BATCHES / WORKERS * PACE_S
    epochs = max(3, int(options.minutes * 60 / (steps_s * -(-SAMPLES // BATCH))))
    log = Log()
    if not options.network:
        print("without root, or unshare, ip and iptables: no traffic is dropped", flush=True)
    print(f"{epochs} epochs, undisturbed:", flush=True)
    weights = undisturbed(epochs, options, log)
    if not weights:
        return 1
    failed = []
    for seed in options.seed:
        print(f"seed {seed}, disturbed for {options.minutes:g} min:", flush=True)
        if wrong := disturbed(seed, epochs, weights, options, log):
            failed.append(seed)
            print("\n".join(f"seed {seed}: {line}" for line in wrong), flush=True)
        else:
            print(f"seed {seed}: as undisturbed, weights sha256 {weights}, {epochs} epochs exact", flush=True)
    print(f"{len(options.seed) - len(failed)} of {len(options.seed)} seeds as undisturbed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
