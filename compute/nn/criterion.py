"""Criterions: what training makes small."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.module import Shape

Array = NDArray[np.float32]
Labels = NDArray[np.int64]


class Criterion(ABC):
    """A loss per sample; works on numpy arrays, whatever the engine. Subclass it for one of your own."""

    @abstractmethod
    def check(self, output_shape: Shape) -> None:
        """Raises InputError if the network's output shape does not suit."""

    @abstractmethod
    def loss(self, output: Array, target: Labels) -> float:
        """The sum of the samples' losses. output (n, *output_shape), target (n,)."""

    @abstractmethod
    def gradient(self, output: Array, target: Labels, scale: float, grad: Array) -> None:
        """Overwrites grad (as output) with the gradient of scale * sum of losses."""


class NLLLoss(Criterion):
    """Negative log likelihood of the label, given log-probabilities (n, classes); labels count from 0."""

    def check(self, output_shape: Shape) -> None:
        if len(output_shape) != 1:
            raise InputError(f"NLLLoss needs log-probabilities (classes,), the network gives {output_shape}")

    def loss(self, output: Array, target: Labels) -> float:
        check_labels(target, output.shape[1])
        picked = output.ravel().take(_flat_index(output, target))
        return -float(picked.sum(dtype=np.float64))

    def gradient(self, output: Array, target: Labels, scale: float, grad: Array) -> None:
        grad.fill(0.0)
        grad.reshape(-1)[_flat_index(output, target)] = np.float32(-scale)


def check_labels(target: Labels, classes: int) -> None:
    """Raises InputError if a label is not in 0..classes-1."""
    # Seen as unsigned, negative labels are the largest, so one pass finds both kinds.
    if target.size and int(target.view(np.uint64).max()) >= classes:
        bad = target[(target < 0) | (target >= classes)][0]
        raise InputError(f"label {bad} is not in 0..{classes - 1}; give the network one output per class")


def _flat_index(output: Array, target: Labels) -> Labels:
    return np.arange(0, output.size, output.shape[1], dtype=np.int64) + target
