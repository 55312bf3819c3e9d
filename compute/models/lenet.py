"""LeNet-5 as BigDL has it (LeNet5.scala)."""

from __future__ import annotations

from compute import nn


def lenet5(classes: int = 10) -> nn.Sequential:
    """LeNet-5 for 28x28 grey images: (1, 28, 28) to log-probabilities (classes,)."""
    return nn.Sequential(
        nn.Reshape(1, 28, 28),
        nn.Conv2d(1, 6, 5, name="conv1_5x5"),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 12, 5, name="conv2_5x5"),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Reshape(12 * 4 * 4),
        nn.Linear(12 * 4 * 4, 100, name="fc1"),
        nn.Tanh(),
        nn.Linear(100, classes, name="fc2"),
        nn.LogSoftmax(),
    )
