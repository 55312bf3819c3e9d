"""A network whose computation is a fixed wait, and a process slowed down by stopping it most of the time."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from compute import nn
from tests.executor.harness import TaskProcess

SLICE_S = 0.005


class Wait(nn.CustomLayer):
    """Passes its input on after a wait, made of slices, so that a process that is stopped does not get on with it.

    Stands in for a computation where there are fewer cores than workers.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.slices = round(seconds / SLICE_S)

    def forward(self, x, parameters, context):  # type: ignore[no-untyped-def]
        if context.training:
            for _ in range(self.slices):
                time.sleep(SLICE_S)
        return x

    def backward(self, x, y, grad_y, parameters, gradients, context):  # type: ignore[no-untyped-def]
        return np.array(grad_y)


@dataclass
class Slowing:
    """What was done to the process.

    Attributes:
        cycles: how often it was stopped.
        share: of the time that it ran.
    """

    cycles: int = 0
    share: float = 1.0


@contextmanager
def slowed(task: TaskProcess, share: float, period_s: float = 0.08) -> Iterator[Slowing]:
    """The process runs that share of the time: SIGSTOP and SIGCONT in turn."""
    slowing, over = Slowing(), threading.Event()

    def work() -> None:
        ran = stood = 0.0
        while not over.is_set():
            begun = time.monotonic()
            task.signal(signal.SIGSTOP)
            time.sleep(period_s * (1 - share))
            stopped = time.monotonic()
            task.signal(signal.SIGCONT)
            # What a stop lasted too long is made up for, so that the share holds on a busy machine as well.
            stood += stopped - begun
            time.sleep(max(stood * share / (1 - share) - ran, 0.0))
            ran += time.monotonic() - stopped
            slowing.cycles += 1
            slowing.share = ran / (ran + stood)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield slowing
    finally:
        over.set()
        thread.join()
