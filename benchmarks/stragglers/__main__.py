"""Throughput with one of several workers slowed down (SIGSTOP in turn with SIGCONT), against all at full speed.

Real workers and servers on this machine, without Mesos. A micro-batch's computation is a wait of fixed length, so that
workers do not take each other's cores: what is measured is who gets how much work, not how fast it is computed.
"""

import argparse
import asyncio
import statistics
import tempfile
from pathlib import Path

from compute import TrainingSpec, data, nn, optim, trigger
from tests.data_files import write_subset
from tests.executor.harness import ScriptedDriver, training
from tests.executor.slowed import Wait, slowed

BATCH = 64


def make_spec(folder: Path, wait_s: float, micro_batches: int) -> TrainingSpec:
    """A small network that waits in every micro-batch."""
    model = nn.Sequential(nn.Flatten(), Wait(wait_s), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10), nn.LogSoftmax())
    return TrainingSpec(
        model=model,
        criterion=nn.NLLLoss(),
        dataset=data.mnist(str(folder)),
        optimizer=optim.SGD(0.05),
        batch_size=BATCH,
        end_when=trigger.max_epoch(1),
        micro_batches=micro_batches,
        engine="numpy",
    )


def step_s(driver: ScriptedDriver, first: int, last: int) -> float:
    """Median seconds of a step."""
    return statistics.median(report.seconds for step in range(first, last + 1) for report in driver.steps[step])


async def measure(options: argparse.Namespace, directory: Path) -> None:
    """Prints one run's figures."""
    steps = 2 * options.steps + 8
    folder = write_subset(directory / "data", train=BATCH * steps, test=10)
    spec = make_spec(folder, options.wait, options.micro_batches)
    async with training(spec, directory / "run", options.workers, 2) as driver:
        await driver.until(lambda: any(r.workers == options.workers for s in driver.steps.values() for r in s))
        await driver.until_step(max(driver.steps) + 2)
        begun = max(driver.steps)
        await driver.until_step(begun + options.steps)
        full = step_s(driver, begun + 1, max(driver.steps))
        with slowed(driver.workers()[0], options.speed) as slowing:
            begun = max(driver.steps)
            finished = await driver.until_finished()
        slow = step_s(driver, begun + 4, steps)
        capacity = (options.workers - 1 + options.speed) / options.workers
        print(f"{options.workers} workers at full speed: {full:.4f} s a step")
        print(f"one of them running {slowing.share:.0%} of the time: {slow:.4f} s a step")
        print(f"throughput {full / slow:.3f} of full speed; {full / slow / capacity:.1%} of what is left of the speed")
        print(f"weights sha256: {finished.weights_sha256}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--speed", type=float, default=0.25, help="of the slow worker, of 1")
    parser.add_argument("--wait", type=float, default=0.04, help="seconds of a micro-batch")
    parser.add_argument("--micro-batches", type=int, default=64)
    parser.add_argument("--steps", type=int, default=12, help="measured, each way")
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(measure(parser.parse_args(), Path(directory)))


if __name__ == "__main__":
    main()
