"""Criterions at every step of sequences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.criterion.base import Criterion, Losses, is_criterion, reduced
from compute.nn.criterion.checks import describe, number
from compute.spec import Arrays, Specs, TensorSpec


class TimeDistributedCriterion(Criterion):
    """A criterion at every step of sequences: outputs (n, T, ...), targets (n, T, ...); the sum over the T steps.

    Args:
        criterion: what is computed at a step, of outputs (n, ...) and targets (n, ...).
        size_average: True for the mean over the T steps instead.

    Source: BigDL TimeDistributedCriterion.
    """

    def __init__(self, criterion: Criterion, size_average: bool = False) -> None:
        self.criterion = is_criterion(self.kind, criterion)
        self.size_average = bool(size_average)
        self.in_place = criterion.in_place

    def check(self, outputs: Specs, targets: Specs) -> None:
        lengths = {spec.shape[0] if spec.shape else 0 for spec in (*outputs, *targets)}
        if len(lengths) != 1 or 0 in lengths:
            raise InputError(
                f"{self.kind} needs outputs and targets (T, ...) of the same T; the network gives {describe(outputs)}, "
                f"the data set {describe(targets)}"
            )
        self.criterion.check(_without_time(outputs), _without_time(targets))

    def loss(self, outputs: Arrays, targets: Arrays) -> float:
        with _samples_of_steps(outputs):
            return self.criterion.loss(_steps(outputs), _steps(targets)) * self._share(outputs)

    def losses(self, outputs: Arrays, targets: Arrays) -> Losses:
        losses = self.criterion.losses(_steps(outputs), _steps(targets)).reshape(outputs[0].shape[:2])
        return reduced(losses, average=self.size_average)

    def gradient(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> None:
        self.criterion.gradient(_steps(outputs), _steps(targets), scale * self._share(outputs), _steps(grads))

    def loss_and_gradient(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> float:
        share = self._share(outputs)
        steps, wanted = _steps(outputs), _steps(targets)
        with _samples_of_steps(outputs):
            return share * self.criterion.loss_and_gradient(steps, wanted, scale * share, _steps(grads))

    def _share(self, outputs: Arrays) -> float:
        return 1.0 / outputs[0].shape[1] if self.size_average else 1.0


class TimeDistributedMaskCriterion(TimeDistributedCriterion):
    """As TimeDistributedCriterion, but steps whose target is padding count nothing: the mean over a sample's others.

    BigDL divides by the number of steps that count in the whole batch. A batch computed in parts does not know it, so
    here each sample is divided by its own; a sample of padding only counts as 0.

    Args:
        padding_value: a step is padding if all elements of its (first) target have this value.
        size_average: False for the sum over the steps that count.

    Source: BigDL TimeDistributedMaskCriterion.
    """

    in_place = False

    def __init__(self, criterion: Criterion, padding_value: float = 0, size_average: bool = True) -> None:
        super().__init__(criterion, size_average)
        self.padding_value = number(self.kind, "padding_value", padding_value)
        self.in_place = False

    def check(self, outputs: Specs, targets: Specs) -> None:
        if not targets:
            raise InputError(f"{self.kind} needs a target, whose padding says which steps count")
        super().check(outputs, targets)

    def loss(self, outputs: Arrays, targets: Arrays) -> float:
        return float(self.losses(outputs, targets).sum())

    def losses(self, outputs: Arrays, targets: Arrays) -> Losses:
        at, share = self._counting(targets)
        total = np.zeros(share.shape)
        if len(at):
            picked = (tuple(array[at] for array in _steps(arrays)) for arrays in (outputs, targets))
            total.reshape(-1)[at] = self.criterion.losses(*picked)
        return np.asarray((total * share).sum(axis=1))

    def gradient(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> None:
        at, share = self._counting(targets)
        picked = tuple(array[at] for array in _steps(outputs))
        found = tuple(np.empty(array.shape, dtype=np.float32) for array in picked)
        if len(at):
            self.criterion.gradient(picked, tuple(array[at] for array in _steps(targets)), scale, found)
        factor = share.reshape(-1)[at].astype(np.float32)
        for grad, values in zip(_steps(grads), found, strict=True):
            grad.fill(0.0)
            grad[at] = values * factor.reshape(-1, *(1,) * (values.ndim - 1))

    def loss_and_gradient(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> float:
        loss = self.loss(outputs, targets)
        self.gradient(outputs, targets, scale, grads)
        return loss

    def _counting(self, targets: Arrays) -> tuple[NDArray[np.int64], Losses]:
        """Rows of steps that count, and each step's share in its sample's loss, (n, T)."""
        target = targets[0]
        counts = (target != self.padding_value).reshape(*target.shape[:2], -1).any(axis=2)
        share = counts.astype(np.float64)
        if self.size_average:
            share /= np.maximum(1.0, share.sum(axis=1, keepdims=True))
        return np.flatnonzero(counts), share


def _without_time(specs: Specs) -> Specs:
    return tuple(TensorSpec(spec.shape[1:], spec.dtype) for spec in specs)


def _steps(arrays: Arrays) -> Arrays:
    """(n, T, ...) as (n * T, ...)."""
    return tuple(array.reshape(-1, *array.shape[2:]) for array in arrays)


@contextmanager
def _samples_of_steps(outputs: Arrays) -> Iterator[None]:
    """Has an InputError about one of `_steps` tell the sample that it is of."""
    try:
        yield
    except InputError as error:
        sample = None if error.sample is None else error.sample // outputs[0].shape[1]
        raise InputError(str(error).replace("of the batch", "of the batch's steps"), sample) from None
