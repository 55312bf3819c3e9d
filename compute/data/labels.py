"""Labels: checks of what readers find, and transforms of targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.data.items import Flow
from compute.data.source import Indices, Key, Tensors
from compute.data.transform import Transform
from compute.errors import InputError
from compute.spec import TensorSpec


def check_labels(labels: NDArray[Any], classes: int, indices: Indices, describe: Callable[[int], str]) -> None:
    """Raises InputError, naming the record, unless all labels are in 0..classes-1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        label = labels[wrong[0]]
        raise InputError(
            f"{describe(int(indices[wrong[0]]))}: label {label}, expected 0..{classes - 1}; correct the label"
        )


def whole_classes(name: str, classes: int | None) -> int | None:
    """The number of classes. Raises InputError unless it is None or a whole number of at least 1."""
    if classes is not None and (isinstance(classes, bool) or not isinstance(classes, int) or classes < 1):
        raise InputError(f"{name}: classes must be a whole number of at least 1, got {classes!r}")
    return classes


class _LabelTransform(Transform):
    """Base of transforms of a single whole-numbered target."""

    def output_specs(self, inputs: Flow, targets: Flow) -> tuple[Flow, Flow]:
        if targets != (TensorSpec((), "int64"),):
            raise InputError(f"{type(self).__name__} takes a label, one whole number per sample, as the target")
        return inputs, targets


class one_hot(_LabelTransform):
    """Labels 0..classes-1 become float32 (classes,): `on` at the label, `off` elsewhere.

    `one_hot(10, on=0.9 + 0.01, off=0.01)` is label smoothing by 0.1 (Szegedy et al., 2015, section 7).
    """

    def __init__(self, classes: int, on: float = 1.0, off: float = 0.0) -> None:
        self.classes = whole_classes("one_hot", classes) or 0
        self.on, self.off = float(on), float(off)

    def output_specs(self, inputs: Flow, targets: Flow) -> tuple[Flow, Flow]:
        super().output_specs(inputs, targets)
        return inputs, (TensorSpec((self.classes,)),)

    def output_classes(self, classes: int | None) -> None:
        return None

    def __call__(self, x: Tensors, target: Any, key: Key, place: str) -> tuple[Tensors, Tensors]:
        if len(target) and (int(target.min()) < 0 or int(target.max()) >= self.classes):
            raise InputError(f"one_hot({self.classes}): found labels {target.min()}..{target.max()}")
        out = np.full((len(target), self.classes), self.off, dtype=np.float32)
        out[np.arange(len(target)), target] = self.on
        return x, out


class relabel(_LabelTransform):
    """Other numbers for the labels: `relabel({3: 0, 7: 1})`, or `relabel(-1)` to make labels from 1 labels from 0."""

    def __init__(self, labels: Mapping[int, int] | int) -> None:
        self.shift = int(labels) if isinstance(labels, int | np.integer) else 0
        self.table = {int(old): int(new) for old, new in labels.items()} if isinstance(labels, Mapping) else {}
        if not isinstance(labels, int | np.integer | Mapping) or min(self.table.values(), default=0) < 0:
            raise InputError(f"relabel takes new labels of at least 0 by old ones, or a number to add, got {labels!r}")

    def output_classes(self, classes: int | None) -> int | None:
        if self.table:
            return max(self.table.values()) + 1
        return None if classes is None else classes + self.shift

    def __call__(self, x: Tensors, target: Any, key: Key, place: str) -> tuple[Tensors, Tensors]:
        if not self.table:
            return x, target + self.shift
        found, inverse = np.unique(target, return_inverse=True)
        unknown = [label for label in found.tolist() if label not in self.table]
        if unknown:
            raise InputError(f"relabel: no new label for {unknown[0]}; name it, or leave its samples out with subset")
        return x, np.array([self.table[label] for label in found.tolist()], dtype=np.int64)[inverse]
