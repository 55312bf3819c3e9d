"""What a checkpoint costs the step: VGG-16 for CIFAR-10 (15 M parameters, 60 MB, and as much momentum), batch 128.

python -m benchmarks.checkpoints [--steps 40] [--every 4] [--folder DIRECTORY]

One worker, one server, as processes. Steps that follow a checkpoint are compared with all others, by the time stamps of
their commits; besides, the time for which the next step could not have been applied, as the server saw it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import fashion_cifar
from compute import TrainingSpec, checkpoint, data, models, nn, optim, parameter_layout, trigger
from compute.optim import ParameterUpdate
from executor.checkpointing import Checkpointing
from executor.parameter_slice import ParameterSlice
from executor.step_plan import StepPlan

BATCH = 128


def spec(folder: Path, steps: int, every: int) -> TrainingSpec:
    """The training."""
    return TrainingSpec(
        model=models.vgg_cifar10(),
        criterion=nn.NLLLoss(),
        dataset=data.cifar10(str(folder)) >> data.normalize(fashion_cifar.MEAN, fashion_cifar.STD),
        optimizer=optim.SGD(learning_rate=0.01, momentum=0.9),
        batch_size=BATCH,
        end_when=trigger.max_iteration(steps),
        checkpoint_when=trigger.several_iteration(every),
    )


async def train(folder: Path, steps: int, every: int) -> dict[int, float]:
    """Seconds of each step."""
    from tests.executor.harness import training  # the processes of a job, without Mesos

    work = folder / "run"
    async with training(
        spec(folder, steps, every), work, 1, 1, checkpoint_url=str(folder / "checkpoints")
    ) as driver:
        await driver.until(lambda: driver.finished is not None, timeout_s=60.0 * steps)
        return {step: reports[0].seconds for step, reports in driver.steps.items()}


async def held(folder: Path, training: TrainingSpec, rounds: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds for which a slice of the whole network is held, the event loop stands still, and until all is safe."""
    layout = parameter_layout(training.model, training.dataset.input_specs)
    update = ParameterUpdate(layout, training.optimizer)
    parameters = np.ones(update.state["momentum"].size, dtype=np.float32)
    held = ParameterSlice(0, parameters.size, 0, parameters, update, StepPlan(BATCH, BATCH, 8))
    released = asyncio.Event()
    writer = Checkpointing(released.set)
    holds, blocked, safe = [], [], []
    for _ in range(rounds):
        released.clear()
        begun = time.perf_counter()
        task = writer.write(held, checkpoint.step_url(str(folder / "held"), 1))
        blocked.append(time.perf_counter() - begun)
        await released.wait()
        holds.append(time.perf_counter() - begun)
        await task
        safe.append(time.perf_counter() - begun)
    return holds, blocked, safe


def shown(name: str, seconds: list[float]) -> str:
    """One line."""
    middle, least, most = (1e3 * value for value in (statistics.median(seconds), min(seconds), max(seconds)))
    return f"{name:<44} {middle:8.1f} ms (median of {len(seconds)}, {least:.1f} to {most:.1f})"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Measure what a checkpoint costs the step.")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="where checkpoints go; default: a temporary directory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as directory:
        folder = Path(directory)
        fashion_cifar.write(fashion_cifar.FASHION_MNIST, folder, train=BATCH * 40, test=100)
        holds, blocked, safe = asyncio.run(held(folder, spec(folder, 1, 1), 9))
        print(shown("slice held, first checkpoint", holds[:1]))
        print(shown("slice held, later ones", holds[1:]))
        print(shown("event loop stands still", blocked))
        print(shown("until file and name are on the disk", safe))
        seconds = asyncio.run(train(folder, options.steps, options.every))
        seconds.pop(1)
        after = [value for step, value in seconds.items() if step % options.every == 1]
        others = [value for step, value in seconds.items() if step % options.every != 1]
        print(shown("step after a checkpoint", after))
        print(shown("other steps", others))
        print(f"stall: {100 * (statistics.median(after) / statistics.median(others) - 1):.1f} % of a step")


if __name__ == "__main__":
    main()
