"""The job that faults happen to: a small network, slowed down so that its minutes cost little of the machine."""

import argparse
import os
import time

import numpy as np

from compute import data, nn, optim, trigger
from scheduler import TrainingJob

SAMPLES, BATCH = 640, 64


class Slow(nn.CustomLayer):
    """Passes on what it gets, after a while, as long as there is a file."""

    def __init__(self, pace_s: float, slow_file: str) -> None:
        super().__init__()
        self._pace_s = pace_s
        self._slow_file = slow_file

    def forward(self, x, parameters, context):  # type: ignore[no-untyped-def]
        if os.path.exists(self._slow_file):
            time.sleep(self._pace_s)
        return x

    def backward(self, x, y, grad_y, parameters, gradients, context):  # type: ignore[no-untyped-def]
        return grad_y


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--pace", type=float, required=True, help="seconds that a micro-batch takes at the least")
    parser.add_argument("--slow-file", required=True, help="after its removal nothing is slowed down any more")
    parser.add_argument("--checkpoints", required=True)
    options = parser.parse_args()

    numbers = np.random.default_rng(0)
    images = numbers.standard_normal((SAMPLES, 256), np.float32)
    labels = numbers.integers(0, 10, SAMPLES)
    layers = [nn.Linear(256, 256), nn.ReLU(), nn.Dropout(0.2), nn.Linear(256, 10), nn.LogSoftmax()]
    model = nn.Sequential(Slow(options.pace, options.slow_file), *layers)
    job = TrainingJob(
        model,
        nn.NLLLoss(),
        data.from_arrays(images, labels, classes=10),
        optim.SGD(0.01, momentum=0.9),
        BATCH,
        trigger.max_epoch(options.epochs),
    )
    job.checkpoint(options.checkpoints, trigger.every_epoch())
    job.run()


if __name__ == "__main__":
    main()
