"""Base classes of criterions: the contract with the engines, and losses given by formulas."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.criterion.checks import counted, float_outputs, same_shape
from compute.spec import Arrays, Specs, TensorSpec

Array = NDArray[np.floating[Any]]
"""Values that formulas work on, usually float64."""
Losses = NDArray[np.float64]

_BLOCK = 32768
"""Elements handled at a time: a few float64 temporaries of a block fit into the second-level cache."""


class Criterion(ABC):
    """What training makes small: the sum over the samples of each sample's loss.

    Works on numpy arrays, whatever the engine. Outputs and targets are tuples of arrays (n, *shape), one for each
    tensor that the network gives or the data set names; most have one of each. A sample's loss depends on that sample
    alone, so that the sum is the same however a step is cut into micro-batches. It keeps nothing between calls.

    For one of your own derive from `SimpleCriterion` (one output, one target) or `SampleCriterion`.
    """

    in_place: bool = False
    """Whether `gradient` and `loss_and_gradient` allow a gradient to be written over its own output."""

    @property
    def kind(self) -> str:
        """The class's name, for messages."""
        return type(self).__name__

    @abstractmethod
    def check(self, outputs: Specs, targets: Specs) -> None:
        """Raises InputError, one line that says what is needed, unless such outputs and targets suit."""

    @abstractmethod
    def loss(self, outputs: Arrays, targets: Arrays) -> float:
        """The sum of the samples' losses, added in float64.

        Raises:
            InputError: a target has a value that makes no sense, such as a label that is out of range.
        """

    @abstractmethod
    def gradient(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> None:
        """Overwrites grads with the gradient of scale * sum of losses.

        Args:
            outputs, targets: as for `loss`; either may be called first.
            scale: usually 1 / samples of the step.
            grads: float32, C-contiguous, one of each output's shape.
        """

    def loss_and_gradient(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> float:
        """`loss` and `gradient` at once, where that saves work. Returns the loss; what engines call."""
        loss = self.loss(outputs, targets)
        self.gradient(outputs, targets, scale, grads)
        return loss

    def losses(self, outputs: Arrays, targets: Arrays) -> Losses:
        """Each sample's loss, float64 (n,)."""
        count = len(outputs[0])
        one = (slice(i, i + 1) for i in range(count))
        return np.array([self.loss(part(outputs, at), part(targets, at)) for at in one], dtype=np.float64)


class SampleCriterion(Criterion):
    """A criterion given by formulas: define `check`, `values` and `derivatives`.

    Both get some of the batch's samples at a time, values as float64 copies, whole numbers (int64) as they are.
    """

    in_place = True

    @abstractmethod
    def values(self, outputs: Arrays, targets: Arrays) -> Array:
        """Each sample's loss, (n,)."""

    @abstractmethod
    def derivatives(self, outputs: Arrays, targets: Arrays) -> Arrays:
        """For each output the derivatives of its sample's loss, shaped as (or broadcast to) the output."""

    def check_batch(self, outputs: Arrays, targets: Arrays) -> None:
        """Raises InputError, which names the sample's place in the batch, where a value makes no sense."""

    def loss(self, outputs: Arrays, targets: Arrays) -> float:
        return float(self.losses(outputs, targets).sum())

    def losses(self, outputs: Arrays, targets: Arrays) -> Losses:
        self.check_batch(outputs, targets)
        losses = np.empty(len(outputs[0]), dtype=np.float64)
        with np.errstate(all="ignore"):  # what overflows or is undefined becomes inf or NaN, and so the loss
            for at in blocks(outputs):
                losses[at] = self.values(*self._doubles(part(outputs, at), part(targets, at)))
        return losses

    def gradient(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> None:
        self.check_batch(outputs, targets)
        with np.errstate(all="ignore"):
            for at in blocks(outputs):
                self._write(*self._doubles(part(outputs, at), part(targets, at)), scale, part(grads, at))

    def loss_and_gradient(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> float:
        self.check_batch(outputs, targets)
        losses = np.empty(len(outputs[0]), dtype=np.float64)
        with np.errstate(all="ignore"):
            for at in blocks(outputs):
                doubles = self._doubles(part(outputs, at), part(targets, at))
                losses[at] = self.values(*doubles)
                self._write(*doubles, scale, part(grads, at))
        return float(losses.sum())

    def _doubles(self, outputs: Arrays, targets: Arrays) -> tuple[Arrays, Arrays]:
        return tuple(x.astype(np.float64) for x in outputs), tuple(
            y if y.dtype == np.int64 else y.astype(np.float64) for y in targets
        )

    def _write(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> None:
        for derivative, grad in zip(self.derivatives(outputs, targets), grads, strict=True):
            np.multiply(derivative, scale, out=grad, casting="same_kind")


class SimpleCriterion(SampleCriterion):
    """A criterion of one output and one target, by formulas for plain arrays. Derive your own from it:

        class Quartic(nn.SimpleCriterion):
            def sample_losses(self, output, target):
                return ((output - target) ** 4).mean(axis=1)

            def sample_gradients(self, output, target):
                return 4 * (output - target) ** 3 / output.shape[1]

    Both methods get some of the batch's samples: output and target (n, *shape), values as float64 copies, whole
    numbers as int64; a target with as many elements as the output in the output's shape. Override `check_pair` where
    the target's shape need not be the output's.
    """

    @abstractmethod
    def sample_losses(self, output: Array, target: Array) -> Array:
        """Each sample's loss, (n,)."""

    @abstractmethod
    def sample_gradients(self, output: Array, target: Array) -> Array:
        """The derivatives of each sample's loss by its output, (n, *output shape)."""

    def check_pair(self, output: TensorSpec, target: TensorSpec) -> None:
        """Raises InputError unless such an output and target suit; by default their shapes must be equal."""
        same_shape(self.kind, output, target)

    def check(self, outputs: Specs, targets: Specs) -> None:
        counted(self.kind, outputs, targets, 1, 1)
        float_outputs(self.kind, outputs)
        self.check_pair(outputs[0], targets[0])

    def values(self, outputs: Arrays, targets: Arrays) -> Array:
        return self.sample_losses(outputs[0], _shaped(targets[0], outputs[0]))

    def derivatives(self, outputs: Arrays, targets: Arrays) -> Arrays:
        return (self.sample_gradients(outputs[0], _shaped(targets[0], outputs[0])),)


class ElementwiseCriterion(SimpleCriterion):
    """A loss per element of the output: define `element_loss` and `element_slope`.

    A sample's loss is the mean over its elements, so that the mean over samples is PyTorch's reduction="mean".

    Args:
        size_average: False for the sum over a sample's elements.
    """

    work_type: ClassVar[type[np.floating[Any]]] = np.float64
    """np.float32 where the formulas lose nothing by it; what then overflows is computed again in float64."""

    def __init__(self, size_average: bool = True) -> None:
        self.size_average = bool(size_average)

    @abstractmethod
    def element_loss(self, x: Array, y: Array) -> Array:
        """The loss of each element of the output x, given the target y; both (n, *shape). Must not write into them."""

    @abstractmethod
    def element_slope(self, x: Array, y: Array) -> Array:
        """Its derivative by x. Must not write into x or y."""

    def sample_losses(self, output: Array, target: Array) -> Array:
        return reduced(self.element_loss(output, target), self.size_average)

    def sample_gradients(self, output: Array, target: Array) -> Array:
        return self.element_slope(output, target)

    def values(self, outputs: Arrays, targets: Arrays) -> Array:
        losses = super().values(outputs, targets)
        if self.work_type is np.float32 and not np.all(np.isfinite(losses)):
            losses = super().values((outputs[0].astype(np.float64),), (targets[0].astype(np.float64),))
        return losses

    def _doubles(self, outputs: Arrays, targets: Arrays) -> tuple[Arrays, Arrays]:
        x, y = outputs[0], targets[0]
        return (x.astype(self.work_type, copy=False),), (y.astype(self.work_type, copy=False),)

    def _write(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> None:
        super()._write(outputs, targets, scale * share(grads[0], self.size_average), grads)


def _shaped(target: NDArray[Any], output: NDArray[Any]) -> NDArray[Any]:
    """The target in the output's shape if it has as many elements: (n,) and (n, 1) would otherwise broadcast."""
    return target.reshape(output.shape) if target.size == output.size else target


def reduced(elements: NDArray[Any], average: bool) -> Losses:
    """The mean or the sum over each sample's elements, float64 (n,), of elements (n, ...)."""
    rows = elements.reshape(len(elements), -1)
    sums: Losses = rows.sum(axis=1).astype(np.float64, copy=False)
    return sums / rows.shape[1] if average else sums


def share(elements: NDArray[Any], average: bool) -> float:
    """What each element counts in `reduced`."""
    return 1.0 / math.prod(elements.shape[1:]) if average else 1.0


def part(arrays: Arrays, at: slice) -> Arrays:
    """Some samples of each array, as views."""
    return tuple(array[at] for array in arrays)


def blocks(outputs: Arrays) -> Iterator[slice]:
    """Cuts the samples into runs of about `_BLOCK` elements."""
    count = len(outputs[0])
    size = max(1, max(array[:1].size for array in outputs)) if count else 1
    step = max(1, _BLOCK // size)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def is_criterion(kind: str, criterion: Criterion) -> Criterion:
    """The criterion; InputError if it is something else."""
    if not isinstance(criterion, Criterion):
        raise InputError(f"{kind} takes criterions such as nn.MSELoss(), got {criterion!r}")
    return criterion
