"""A training without workers that writes checkpoints without end: killed by test_checkpoint_kills.py.

`python -m tests.executor.checkpoint_writer DIRECTORY PARAMETERS` reads commands from standard input. For each line it
forks a process that trains (the imports are done by then), and prints its pid; the process prints each step whose
checkpoint is complete. Killed, it is waited for, and "over" is printed.
"""

import asyncio
import os
import sys
from typing import Any

import numpy as np

from compute import ParameterInfo, checkpoint, nn, optim
from compute.optim import ParameterUpdate
from compute.retention import Pruner, Retention
from executor.checkpointing import Checkpointing
from executor.parameter_slice import ParameterSlice
from executor.reduction_tree import Node
from executor.step_plan import StepPlan, slice_bounds
from proto.checkpoint_pb2 import Checkpoint

SERVERS = 2
KEEP = 2
FINGERPRINT = "checkpoint writer"


def layout(parameters: int) -> list[ParameterInfo]:
    """Of a network of as many parameters, in one layer."""
    from compute import parameter_layout

    return parameter_layout(nn.Linear(parameters - 1, 1), (parameters - 1,))


def gradient(parameters: int, step: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """float32 (parameters,), another one for each step."""
    return np.full(parameters, 1.0 / step, dtype=np.float32)


def slices(parameters: int, state: dict[str, Any] | None = None, version: int = 0) -> list[ParameterSlice]:
    """The slices of all servers, at the start or with what a checkpoint holds."""
    held = []
    for index in range(SERVERS):
        begin, end = slice_bounds(parameters, SERVERS, index)
        update = ParameterUpdate(
            layout(parameters), optim.SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-3), None, begin, end
        )
        values = np.arange(begin, end, dtype=np.float32)
        if state is not None:
            values = state[checkpoint.PARAMETERS][begin:end].copy()
            update.state = {name: state[name][begin:end].copy() for name in update.state}
        held.append(ParameterSlice(begin, end, version, values, update, StepPlan(64, 1, 1)))
    return held


def train_step(held: ParameterSlice, parameters: int) -> bool:
    """One step of one slice, if nothing holds it."""
    step = held.version + 1
    held.push(step, Node(0, 0), 0, gradient(parameters, step)[held.begin : held.end])
    held.end_node(step, Node(0, 0), samples=1)
    held.apply()
    return held.advance()


async def train(directory: str, parameters: int) -> None:
    """Until it is killed: every step with a checkpoint, from the newest one."""
    url = checkpoint.newest(directory)
    number, held = 0, slices(parameters)
    if url is not None:
        manifest = checkpoint.read_manifest(url)
        number = manifest.number
        held = slices(parameters, checkpoint.load_slice(url, manifest, 0, parameters), manifest.step)
    pruner = Pruner(directory, Retention(KEEP))
    released = asyncio.Event()
    writers = [Checkpointing(released.set) for _ in held]
    while True:
        step = held[0].version + 1
        for one in held:
            while not train_step(one, parameters):
                released.clear()
                await released.wait()
            one.commit(step)
        target = checkpoint.step_url(directory, step)
        tasks = [writer.write(one, target) for writer, one in zip(writers, held, strict=True)]
        parts = [await task for task in tasks]
        number += 1
        manifest = Checkpoint(
            step=step, number=number, fingerprint=FINGERPRINT, parameters=parameters, parts=parts
        )
        await asyncio.to_thread(checkpoint.write_manifest, target, manifest)
        print(f"complete {step}", flush=True)
        await asyncio.to_thread(pruner.prune)


def main() -> None:
    """See the module."""
    directory, parameters = sys.argv[1], int(sys.argv[2])
    while sys.stdin.readline():
        pid = os.fork()
        if not pid:
            print(f"pid {os.getpid()}", flush=True)
            asyncio.run(train(directory, parameters))
        os.waitpid(pid, 0)
        print("over", flush=True)


if __name__ == "__main__":
    main()
