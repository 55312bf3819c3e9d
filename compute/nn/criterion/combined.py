"""Criterions made of criterions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.criterion.base import Criterion, Losses, counted, describe, number, reduced
from compute.spec import Arrays, Specs, TensorSpec, as_arrays, as_specs


class _Weighted(Criterion):
    """Criterions with a weight each."""

    def __init__(self, *criterions: Criterion, weights: Sequence[float] | None = None) -> None:
        if not criterions:
            raise InputError(f"{self.kind} needs at least one criterion")
        for criterion in criterions:
            _is_criterion(self.kind, criterion)
        if weights is None:
            weights = [1.0] * len(criterions)
        if len(weights) != len(criterions):
            raise InputError(f"{self.kind} needs {len(criterions)} weights, one per criterion, got {len(weights)}")
        self.criterions = tuple(criterions)
        self.weights = tuple(number(self.kind, "weight", weight) for weight in weights)


class MultiCriterion(_Weighted):
    """The weighted sum of several criterions, each of all outputs and all targets.

        nn.MultiCriterion(nn.MSELoss(), nn.L1Loss(), weights=[1.0, 0.1])

    Source: Torch and BigDL MultiCriterion.
    """

    in_place = True

    def check(self, outputs: Specs, targets: Specs) -> None:
        for criterion in self.criterions:
            criterion.check(outputs, targets)

    def loss(self, outputs: Arrays, targets: Arrays) -> float:
        pairs = zip(self.criterions, self.weights, strict=True)
        return float(sum(weight * criterion.loss(outputs, targets) for criterion, weight in pairs))

    def losses(self, outputs: Arrays, targets: Arrays) -> Losses:
        total = np.zeros(len(outputs[0]))
        for criterion, weight in zip(self.criterions, self.weights, strict=True):
            total += weight * criterion.losses(outputs, targets)
        return total

    def gradient(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> None:
        total = tuple(np.zeros_like(grad) for grad in grads)
        one = tuple(np.empty_like(grad) for grad in grads)
        for criterion, weight in zip(self.criterions, self.weights, strict=True):
            criterion.gradient(outputs, targets, scale * weight, one)
            for grad, part in zip(total, one, strict=True):
                grad += part
        for grad, part in zip(grads, total, strict=True):
            np.copyto(grad, part)


class ParallelCriterion(_Weighted):
    """The weighted sum of several criterions, the i-th of the i-th output and the i-th target.

    A criterion of several outputs (or none of the targets) may stand in it as (criterion, outputs, targets), which says
    how many of each it takes:

        nn.ParallelCriterion(nn.NLLLoss(), nn.MSELoss(), weights=[1.0, 0.5])
        nn.ParallelCriterion(nn.BCELoss(), (nn.KLDNormalLoss(), 2, 0))   # a variational autoencoder's

    Args:
        repeat_target: every criterion gets the first targets, as many as it takes.

    Source: Torch and BigDL ParallelCriterion.
    """

    def __init__(
        self,
        *criterions: Criterion | tuple[Criterion, int, int],
        weights: Sequence[float] | None = None,
        repeat_target: bool = False,
    ) -> None:
        entries = [entry if isinstance(entry, tuple) else (entry, 1, 1) for entry in criterions]
        for entry in entries:
            if len(entry) != 3 or not all(isinstance(n, int) and n >= 0 for n in entry[1:]) or entry[1] < 1:
                raise InputError(f"{self.kind} takes criterions or (criterion, outputs, targets), got {entry!r}")
        super().__init__(*(entry[0] for entry in entries), weights=weights)
        self.sizes = tuple((entry[1], entry[2]) for entry in entries)
        self.repeat_target = bool(repeat_target)
        self.in_place = all(criterion.in_place for criterion in self.criterions)

    def check(self, outputs: Specs, targets: Specs) -> None:
        wanted = sum(size for size, _ in self.sizes)
        sizes = [size for _, size in self.sizes]
        counted(self, outputs, targets, wanted, max(sizes) if self.repeat_target else sum(sizes) or None)
        for criterion, _, o, t in self._parts():
            criterion.check(outputs[o], targets[t])

    def loss(self, outputs: Arrays, targets: Arrays) -> float:
        return float(sum(weight * c.loss(outputs[o], targets[t]) for c, weight, o, t in self._parts()))

    def losses(self, outputs: Arrays, targets: Arrays) -> Losses:
        total = np.zeros(len(outputs[0]))
        for criterion, weight, o, t in self._parts():
            total += weight * criterion.losses(outputs[o], targets[t])
        return total

    def gradient(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> None:
        for criterion, weight, o, t in self._parts():
            criterion.gradient(outputs[o], targets[t], scale * weight, grads[o])

    def loss_and_gradient(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> float:
        return float(
            sum(
                weight * c.loss_and_gradient(outputs[o], targets[t], scale * weight, grads[o])
                for c, weight, o, t in self._parts()
            )
        )

    def _parts(self) -> list[tuple[Criterion, float, slice, slice]]:
        """Each criterion with its weight, its outputs and its targets."""
        parts, first, first_target = [], 0, 0
        for criterion, weight, (outputs, targets) in zip(self.criterions, self.weights, self.sizes, strict=True):
            begin = 0 if self.repeat_target else first_target
            parts.append((criterion, weight, slice(first, first + outputs), slice(begin, begin + targets)))
            first, first_target = first + outputs, first_target + targets
        return parts


class TimeDistributedCriterion(Criterion):
    """A criterion at every step of sequences: outputs (n, T, ...), targets (n, T, ...); the sum over the T steps.

    Args:
        criterion: what is computed at a step, of outputs (n, ...) and targets (n, ...).
        size_average: True for the mean over the T steps instead.

    Source: BigDL TimeDistributedCriterion.
    """

    def __init__(self, criterion: Criterion, size_average: bool = False) -> None:
        self.criterion = _is_criterion(self.kind, criterion)
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
        return self.criterion.loss(_steps(outputs), _steps(targets)) * self._share(outputs)

    def losses(self, outputs: Arrays, targets: Arrays) -> Losses:
        losses = self.criterion.losses(_steps(outputs), _steps(targets)).reshape(outputs[0].shape[:2])
        return reduced(losses, average=self.size_average)

    def gradient(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> None:
        self.criterion.gradient(_steps(outputs), _steps(targets), scale * self._share(outputs), _steps(grads))

    def loss_and_gradient(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> float:
        share = self._share(outputs)
        return share * self.criterion.loss_and_gradient(_steps(outputs), _steps(targets), scale * share, _steps(grads))

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


class OutputTransform(ABC):
    """A function of a network's outputs and its derivative, for TransformedCriterion. Sample by sample, no state."""

    def output_specs(self, outputs: Specs) -> Specs:
        """What comes out, given what goes in; the same by default. May raise InputError."""
        return outputs

    @abstractmethod
    def forward(self, outputs: Arrays) -> Arrays:
        """The transformed outputs, float32."""

    @abstractmethod
    def backward(self, outputs: Arrays, transformed: Arrays, grads: Arrays) -> Arrays:
        """The gradients for outputs, given those for what `forward` made of them."""


class TransformedCriterion(Criterion):
    """A criterion of transformed outputs and targets: criterion(f(outputs), g(targets)).

    BigDL's TransformerCriterion takes modules for f and g. Here a module has no weights of its own, so f is an
    OutputTransform and g a plain function; layers with fixed weights belong at the end of the network, frozen.

    Args:
        transform_outputs: f; None for none.
        transform_targets: g, from arrays to an array or arrays; None for none.
        target_specs: the specs (or shape) of what g gives; needed with g, to check them.

    Source: BigDL TransformerCriterion.
    """

    def __init__(
        self,
        criterion: Criterion,
        transform_outputs: OutputTransform | None = None,
        transform_targets: Callable[[Arrays], Any] | None = None,
        target_specs: Any = None,
    ) -> None:
        self.criterion = _is_criterion(self.kind, criterion)
        if transform_outputs is not None and not isinstance(transform_outputs, OutputTransform):
            raise InputError(f"{self.kind}: transform_outputs must be an nn.OutputTransform, got {transform_outputs!r}")
        if (transform_targets is None) != (target_specs is None):
            raise InputError(f"{self.kind}: give transform_targets together with target_specs, what it makes")
        self.transform_outputs = transform_outputs
        self.transform_targets = transform_targets
        self.target_specs: Specs | None = None if target_specs is None else as_specs(target_specs)

    def check(self, outputs: Specs, targets: Specs) -> None:
        transformed = self.transform_outputs.output_specs(outputs) if self.transform_outputs else outputs
        self.criterion.check(transformed, targets if self.target_specs is None else self.target_specs)

    def loss(self, outputs: Arrays, targets: Arrays) -> float:
        return self.criterion.loss(self._forward(outputs), self._targets(targets))

    def losses(self, outputs: Arrays, targets: Arrays) -> Losses:
        return self.criterion.losses(self._forward(outputs), self._targets(targets))

    def gradient(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> None:
        self.loss_and_gradient(outputs, targets, scale, grads)

    def loss_and_gradient(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> float:
        transformed, wanted = self._forward(outputs), self._targets(targets)
        if self.transform_outputs is None:
            return self.criterion.loss_and_gradient(transformed, wanted, scale, grads)
        slopes = tuple(np.empty(array.shape, dtype=np.float32) for array in transformed)
        loss = self.criterion.loss_and_gradient(transformed, wanted, scale, slopes)
        for grad, value in zip(grads, self.transform_outputs.backward(outputs, transformed, slopes), strict=True):
            np.copyto(grad, value, casting="same_kind")
        return loss

    def _forward(self, outputs: Arrays) -> Arrays:
        return outputs if self.transform_outputs is None else self.transform_outputs.forward(outputs)

    def _targets(self, targets: Arrays) -> Arrays:
        return targets if self.transform_targets is None else as_arrays(self.transform_targets(targets))


def _is_criterion(kind: str, criterion: Criterion) -> Criterion:
    if not isinstance(criterion, Criterion):
        raise InputError(f"{kind} takes criterions such as nn.MSELoss(), got {criterion!r}")
    return criterion


def _without_time(specs: Specs) -> Specs:
    return tuple(TensorSpec(spec.shape[1:], spec.dtype) for spec in specs)


def _steps(arrays: Arrays) -> Arrays:
    """(n, T, ...) as (n * T, ...)."""
    return tuple(array.reshape(-1, *array.shape[2:]) for array in arrays)
