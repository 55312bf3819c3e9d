"""Criterions: what training makes small."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.spec import Arrays, Specs, TensorSpec

Array = NDArray[np.float32]
Labels = NDArray[np.int64]


class Criterion(ABC):
    """A loss per sample; works on numpy arrays, whatever the engine. Subclass it for one of your own."""

    @abstractmethod
    def check(self, outputs: Specs, targets: Specs) -> None:
        """Raises InputError if the network's outputs, or the targets where they are given, do not suit."""

    @abstractmethod
    def loss(self, outputs: Arrays, targets: Arrays) -> float:
        """The sum of the samples' losses. outputs (n, *shape) each, targets (n, ...) each."""

    @abstractmethod
    def gradient(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> None:
        """Overwrites grads (as outputs) with the gradient of scale * sum of losses."""


class NLLLoss(Criterion):
    """Negative log likelihood of the label, given log-probabilities (n, classes); labels count from 0."""

    def check(self, outputs: Specs, targets: Specs) -> None:
        if len(outputs) != 1 or len(outputs[0].shape) != 1:
            shapes = " and ".join(str(spec) for spec in outputs)
            raise InputError(f"NLLLoss needs log-probabilities (classes,), the network gives {shapes}")
        if targets and (len(targets) != 1 or targets[0] != TensorSpec((), "int64")):
            shapes = " and ".join(str(spec) for spec in targets)
            raise InputError(f"NLLLoss needs one int64 label per sample, the targets are {shapes}")

    def loss(self, outputs: Arrays, targets: Arrays) -> float:
        (output,), (target,) = outputs, targets
        check_labels(target, output.shape[1])
        picked = output.ravel().take(_flat_index(output, target))
        return -float(picked.sum(dtype=np.float64))

    def gradient(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> None:
        (output,), (target,), (grad,) = outputs, targets, grads
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
