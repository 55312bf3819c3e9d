"""Criterions made of criterions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compute.errors import InputError
from compute.nn.criterion.base import Criterion, Losses, is_criterion
from compute.nn.criterion.checks import counted, number
from compute.spec import Arrays, Specs


class _Weighted(Criterion):
    """Criterions with a weight each."""

    def __init__(self, *criterions: Criterion, weights: Sequence[float] | None = None) -> None:
        if not criterions:
            raise InputError(f"{self.kind} needs at least one criterion")
        for criterion in criterions:
            is_criterion(self.kind, criterion)
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
        counted(self.kind, outputs, targets, wanted, max(sizes) if self.repeat_target else sum(sizes) or None)
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
