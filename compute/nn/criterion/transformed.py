"""A criterion of functions of outputs and targets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from compute.errors import InputError
from compute.nn.criterion.base import Criterion, Losses, is_criterion
from compute.spec import Arrays, Specs, as_arrays, as_specs


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
        self.criterion = is_criterion(self.kind, criterion)
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
