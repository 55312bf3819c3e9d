"""A fully connected autoencoder, as BigDL has it (Autoencoder.scala)."""

from __future__ import annotations

from compute import nn


def autoencoder(hidden: int = 32) -> nn.Sequential:
    """Compresses 28x28 grey images to `hidden` numbers and back: (1, 28, 28) to (784,), each in 0..1.

    Train it with nn.MSELoss, the images in 0..1, flattened, as targets.
    """
    size = 28 * 28
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(size, hidden, name="encoder"),
        nn.ReLU(),
        nn.Linear(hidden, size, name="decoder"),
        nn.Sigmoid(),
    )
