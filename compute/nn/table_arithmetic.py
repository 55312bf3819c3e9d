"""Arithmetic between the parts of a table. Parts broadcast: their dimensions are matched from the last, as numpy's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.broadcast import aligned_ranks, broadcast_shape, unbroadcast
from compute.nn.layer import Array, Arrayed, Layer, LayerContext
from compute.nn.module import Activity, Builder
from compute.spec import Arrays, Shape


class Combination(Layer):
    """Base of element-wise functions of the parts of a table.

    Subclasses define `function` and `gradients` on arrays of equal rank, which broadcast.
    """

    def function(self, parts: Arrays) -> Array:
        """The output. Must not write into the parts."""
        raise NotImplementedError(f"{self.kind} must define function")

    def gradients(self, parts: Arrays, y: Array, grad_y: Array) -> Arrays:
        """The gradient for each part, of the output's shape."""
        raise NotImplementedError(f"{self.kind} must define gradients")

    def output_shape(self, *input_shapes: Shape) -> Shape:
        return broadcast_shape(*input_shapes)

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        with np.errstate(all="ignore"):
            return (self.function(aligned_ranks(inputs)),)

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        with np.errstate(all="ignore"):
            grads = self.gradients(aligned_ranks(inputs), outputs[0], grad_outputs[0])
        return tuple(unbroadcast(grad, x.shape) for grad, x in zip(grads, inputs, strict=True))


class CAddTable(Combination):
    """Sum of the parts of a table, any number; they broadcast."""

    def function(self, parts: Arrays) -> Array:
        return _sum(parts)

    def gradients(self, parts: Arrays, y: Array, grad_y: Array) -> Arrays:
        return (grad_y,) * len(parts)


class CAveTable(Combination):
    """Mean of the parts of a table, any number; they broadcast."""

    def function(self, parts: Arrays) -> Array:
        return np.asarray(_sum(parts) / np.float32(len(parts)))

    def gradients(self, parts: Arrays, y: Array, grad_y: Array) -> Arrays:
        return (grad_y / np.float32(len(parts)),) * len(parts)


class CSubTable(Combination):
    """a - b for a table (a, b); they broadcast."""

    arity = 2

    def function(self, parts: Arrays) -> Array:
        difference: Array = parts[0] - parts[1]
        return difference

    def gradients(self, parts: Arrays, y: Array, grad_y: Array) -> Arrays:
        return grad_y, -grad_y


class CMulTable(Combination):
    """Product of the parts of a table, any number; they broadcast."""

    def function(self, parts: Arrays) -> Array:
        return _product(parts, len(parts))

    def gradients(self, parts: Arrays, y: Array, grad_y: Array) -> Arrays:
        # Products of the others rather than y / x, which is nothing where x is 0.
        return tuple(_product((grad_y, *parts), 1 + index) for index in range(len(parts)))


class CDivTable(Combination):
    """a / b for a table (a, b); they broadcast."""

    arity = 2

    def function(self, parts: Arrays) -> Array:
        quotient: NDArray[Any] = parts[0] / parts[1]
        return quotient

    def gradients(self, parts: Arrays, y: Array, grad_y: Array) -> Arrays:
        first: NDArray[Any] = grad_y / parts[1]
        return first, np.asarray(-first * y)


class Extreme(Combination):
    """Base of the largest and the smallest of the parts."""

    def choose(self, a: Array, b: Array) -> Array:
        """One of each two elements."""
        raise NotImplementedError

    def function(self, parts: Arrays) -> Array:
        y: NDArray[Any] = parts[0]
        for part in parts[1:]:
            y = np.asarray(self.choose(y, part))
        return y.copy() if len(parts) == 1 else y

    def gradients(self, parts: Arrays, y: Array, grad_y: Array) -> Arrays:
        grads = []
        left = np.ones(y.shape, dtype=bool)
        for part in parts:
            chosen = left & (part == y)
            left &= ~chosen
            grads.append(grad_y * chosen)
        return tuple(grads)


class CMaxTable(Extreme):
    """Largest of the parts of a table, any number, element by element; the gradient goes to the first largest.

    They broadcast.
    """

    def choose(self, a: Array, b: Array) -> Array:
        return np.maximum(a, b)


class CMinTable(Extreme):
    """Smallest of the parts of a table, any number, element by element; the gradient goes to the first smallest.

    They broadcast.
    """

    def choose(self, a: Array, b: Array) -> Array:
        return np.minimum(a, b)


class MixtureTable(Layer):
    """Mixture of experts: the sum of gate[i] * expert[i] for a table (gate, experts).

    gate is (k,); the experts are a table of k samples of one shape, or one sample (k, *shape); gives *shape. BigDL's
    and Torch's MixtureTable.
    """

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        if isinstance(sources, int) or len(sources) < 2:
            raise InputError(f"{self.name or self.kind} takes a table (gate, experts)")
        gate, *experts = sources
        if len(experts) == 1 and not isinstance(experts[0], int):
            experts = list(experts[0])
        return builder.add(self, (gate, *experts), path)

    def output_shape(self, *input_shapes: Shape) -> Shape:
        gate, *experts = input_shapes
        if len(experts) == 1 and len(experts[0]) >= 1 and gate == experts[0][:1]:
            return experts[0][1:]
        if len(gate) != 1 or len(experts) != gate[0] or any(shape != experts[0] for shape in experts):
            raise InputError("needs a gate (k,) and k experts of one shape, or one (k, ...)")
        return experts[0]

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        gate, experts = self._experts(inputs)
        y = np.zeros(experts[0].shape, dtype=np.float32)
        for index, expert in enumerate(experts):
            y += _column(gate, index, expert.ndim) * expert
        return (y,)

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        gate, experts = self._experts(inputs)
        (grad_y,) = grad_outputs
        axes = tuple(range(1, grad_y.ndim))
        grad_gate = np.stack([(grad_y * expert).sum(axis=axes, dtype=np.float64) for expert in experts], axis=1)
        grads = [grad_y * _column(gate, index, grad_y.ndim) for index in range(len(experts))]
        stacked = len(inputs) == 2 and inputs[1].ndim == grad_y.ndim + 1
        return (grad_gate.astype(np.float32), *([np.stack(grads, axis=1)] if stacked else grads))

    @staticmethod
    def _experts(inputs: Arrays) -> tuple[Array, list[Array]]:
        gate, *experts = inputs
        if len(experts) == 1 and gate.shape == experts[0].shape[:2]:
            return gate, list(np.moveaxis(experts[0], 1, 0))
        return gate, experts


def _column(gate: Array, index: int, rank: int) -> Array:
    return gate[:, index].reshape(-1, *(1,) * (rank - 1))


def _sum(parts: Arrays) -> Array:
    total: NDArray[Any] = parts[0] + parts[1] if len(parts) > 1 else parts[0].copy()
    for part in parts[2:]:
        total = total + part
    return total


def _product(parts: Arrays, without: int) -> Array:
    """Product of the parts but for the one at `without`, if there is one, in order."""
    kept = [part for index, part in enumerate(parts) if index != without]
    y: NDArray[Any] = kept[0] * kept[1] if len(kept) > 1 else kept[0].copy()
    for part in kept[2:]:
        y = y * part
    return y
