"""Criterions whose targets are class labels: what they share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.criterion.base import Array, Criterion
from compute.nn.criterion.checks import counted, describe, float_outputs, position
from compute.spec import Specs

Labels = NDArray[np.int64]


class ClassCriterion(Criterion):
    """Base of criterions for outputs (n, ..., classes) and int64 labels (n, ...), which count from 0."""

    what = "scores"
    """What the outputs are, for messages."""

    def check(self, outputs: Specs, targets: Specs) -> None:
        counted(self.kind, outputs, targets, 1, 1)
        float_outputs(self.kind, outputs)
        shape, labels = outputs[0].shape, targets[0]
        if labels.dtype != "int64" or not shape or shape[:-1] != labels.shape:
            wanted = ", ".join([*(str(size) for size in labels.shape), "classes"])
            raise InputError(
                f"{self.kind} needs {self.what} ({wanted}{',' * (not labels.shape)}) for int64 labels {labels.shape}; "
                f"the network gives {describe(outputs)}, the data set {describe(targets)}"
            )


def check_labels(target: Labels, classes: int, ignore_index: int | None = None) -> None:
    """Raises InputError, which names the sample's place in the batch, if a label is not in 0..classes-1.

    Args:
        target: int64 (n, ...).
        ignore_index: a label that is allowed besides.
    """
    # Seen as unsigned, negative labels are the largest, so one pass finds both kinds.
    if not target.size or int(np.ascontiguousarray(target).view(np.uint64).max()) < classes:
        return
    wrong = (target < 0) | (target >= classes)
    if ignore_index is not None:
        wrong &= target != ignore_index
    if wrong.any():
        place = tuple(int(index) for index in np.argwhere(wrong)[0])
        raise InputError(
            f"label {target[place]} is not in 0..{classes - 1} (sample {place[0]} of the batch{position(place)}); "
            "labels count from 0, give the network one output per class",
            place[0],
        )


def class_weights(kind: str, weight: Array | None, classes: int) -> None:
    """Raises InputError unless there are no weights or one for each class."""
    if weight is not None and weight.shape != (classes,):
        raise InputError(f"{kind}: weight must hold one number for each of {classes} classes, got {weight.size}")
