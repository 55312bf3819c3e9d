"""Base of all metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.spec import Arrays, Specs

Array = NDArray[Any]
Sums = NDArray[np.float64]


class Metric(ABC):
    """What a validation measures. Subclass it for one of your own; `name` is its tag in logs and summaries.

    A validation is computed in blocks of samples, anywhere and in any order; each block gives sums, and those of all
    blocks add up to those of the whole. Counts add exactly. Sums of real numbers depend on the blocks in their last
    bits, but not on who computed which: the blocks are fixed by the validation's batch size and added in order.
    Sums travel from worker to server; keep them below some 64 kB (8,000 numbers).

    Outputs and targets are tuples of arrays (n, *shape), one for each tensor of the network and of the data set.
    """

    name: str

    def check(self, outputs: Specs, targets: Specs) -> None:  # noqa: B027  (one's own may take anything)
        """Raises InputError, one line that says what is needed, unless such outputs and targets suit."""

    @abstractmethod
    def sums(self, outputs: Arrays, targets: Arrays) -> Sums:
        """float64 (k,) for some samples; the sums of two sets of samples add to those of both."""

    @abstractmethod
    def result(self, sums: Sums) -> float:
        """The metric from the sums over all samples; NaN without samples."""


def ratio(part: float, whole: float) -> float:
    """part / whole, NaN if there is no whole."""
    return float(part / whole) if whole else float("nan")


def whole(name: str, setting: str, value: int, least: int) -> int:
    """The setting; InputError unless it is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name}: {setting} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def single(name: str, outputs: Specs, targets: Specs) -> None:
    """Raises InputError unless there is one output and one target."""
    if len(outputs) != 1 or len(targets) != 1:
        raise InputError(
            f"{name} needs one output and one target, got {len(outputs)} outputs and {len(targets)} targets"
        )


def like_output(name: str, outputs: Specs, targets: Specs) -> None:
    """Raises InputError unless there is one output, and one target of its shape, dimensions of size 1 aside."""
    single(name, outputs, targets)
    if [size for size in outputs[0].shape if size > 1] != [size for size in targets[0].shape if size > 1]:
        raise InputError(
            f"{name} needs targets of the output's shape {outputs[0].shape}, the data set has {targets[0].shape}"
        )


def labelled(name: str, outputs: Specs, targets: Specs) -> None:
    """Raises InputError unless the output is (..., classes) and the target int64 (...)."""
    single(name, outputs, targets)
    shape, labels = outputs[0].shape, targets[0]
    if labels.dtype != "int64" or not shape or shape[:-1] != labels.shape:
        raise InputError(
            f"{name} needs outputs (..., classes) and int64 labels (...), got outputs {outputs[0]}, targets {labels}"
        )
