"""Angles and distances between vectors that flow through the model, and to learnt ones."""

from __future__ import annotations

import numpy as np

from compute.errors import InputError
from compute.nn.broadcast import sum_over
from compute.nn.dims import axis_of, check_dim
from compute.nn.init import FanIn, Initializer
from compute.nn.layer import Array, Arrayed, Layer, LayerContext, UnaryLayer
from compute.nn.module import Parameter, positive
from compute.spec import Arrays, Shape


def unit(x: Array, axis: int, eps: float) -> tuple[Array, Array]:
    """(x / length, length) along an axis, which the length keeps with size 1; length = max(|x|, eps)."""
    squares = np.square(x, dtype=np.float64).sum(axis=axis, keepdims=True)
    length = np.maximum(np.sqrt(squares), eps).astype(np.float32)
    return x / length, length


def unit_gradient(grad: Array, direction: Array, length: Array, axis: int, eps: float) -> Array:
    """The gradient for x, given that for its direction as `unit` gave it."""
    along = sum_over(grad * direction, axis)
    # A vector shorter than eps is divided by a constant.
    along[length <= np.float32(eps)] = 0
    return np.asarray((grad - direction * along) / length)


class CosineSimilarity(Layer):
    """a . b / (max(|a|, eps) * max(|b|, eps)) over dimension `dim`, for a table of a and b of one shape.

    The output has no dimension `dim`. torch.nn.CosineSimilarity, whose dim counts the batch; BigDL's CosineDistance.
    """

    arity = 2

    def __init__(self, dim: int = 0, eps: float = 1e-8, name: str | None = None) -> None:
        super().__init__(name)
        self.dim = check_dim(self.kind, dim)
        self.eps = float(eps)

    def output_shape(self, *input_shapes: Shape) -> Shape:
        a, b = input_shapes
        if a != b:
            raise InputError("needs two of one shape")
        axis = axis_of(self.dim, len(a))
        return (*a[: axis - 1], *a[axis:])

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        axis = axis_of(self.dim, inputs[0].ndim - 1)
        (a, length_a), (b, length_b) = (unit(x, axis, self.eps) for x in inputs)
        context.saved.update(a=a, b=b, length_a=length_a, length_b=length_b)
        return ((a * b).sum(axis=axis, dtype=np.float64).astype(np.float32),)

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        axis = axis_of(self.dim, inputs[0].ndim - 1)
        grad_y = np.expand_dims(grad_outputs[0], axis)
        a, b, saved = context.saved["a"], context.saved["b"], context.saved
        return (
            unit_gradient(grad_y * b, a, saved["length_a"], axis, self.eps),
            unit_gradient(grad_y * a, b, saved["length_b"], axis, self.eps),
        )


class PairwiseDistance(Layer):
    """p-norm of a - b + eps over the last dimension, for a table of a and b of one shape (..., k): (...).

    With keepdim the last dimension stays, with size 1. torch.nn.PairwiseDistance.
    """

    arity = 2

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False, name: str | None = None) -> None:
        super().__init__(name)
        if not p >= 1:
            raise InputError(f"PairwiseDistance: p must be at least 1, got {p!r}")
        self.p, self.eps, self.keepdim = float(p), float(eps), bool(keepdim)

    def output_shape(self, *input_shapes: Shape) -> Shape:
        a, b = input_shapes
        if a != b or not a:
            raise InputError("needs two of one shape (..., k)")
        return (*a[:-1], 1) if self.keepdim else a[:-1]

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        difference = np.abs(self._difference(inputs), dtype=np.float64)
        largest = difference.max(axis=-1, keepdims=True)
        if np.isfinite(self.p):
            # Relative to the largest, so that powers neither overflow nor vanish.
            relative = difference / np.where(largest > 0, largest, 1.0)
            largest = largest * np.power(np.power(relative, self.p).sum(axis=-1, keepdims=True), 1.0 / self.p)
        y = largest.astype(np.float32)
        return (y if self.keepdim else y[..., 0],)

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        y, grad_y = (x if self.keepdim else x[..., None] for x in (outputs[0], grad_outputs[0]))
        difference = self._difference(inputs)
        relative = np.abs(difference) / np.where(y > 0, y, np.float32(1))
        if np.isfinite(self.p):
            share = np.power(relative, np.float32(self.p - 1))
        else:  # those that are the largest, in equal parts
            share = (np.abs(difference) == y).astype(np.float32)
            share /= np.maximum(share.sum(axis=-1, keepdims=True), np.float32(1))
        grad = grad_y * np.sign(difference) * share
        return grad, -grad

    def _difference(self, inputs: Arrays) -> Array:
        difference: Array = inputs[0] - inputs[1]
        difference += np.float32(self.eps)
        return difference


class _Prototypes(UnaryLayer):
    """Base of layers that compare x (..., in_features) with each of out_features learnt vectors."""

    def __init__(
        self, in_features: int, out_features: int, weight_init: Initializer | None = None, name: str | None = None
    ) -> None:
        super().__init__(name)
        positive(self.kind, in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight_init = weight_init or FanIn(in_features)

    def output_shape(self, input_shape: Shape) -> Shape:
        if not input_shape or input_shape[-1] != self.in_features:
            raise InputError(f"needs (..., {self.in_features})")
        return (*input_shape[:-1], self.out_features)

    def parameters(self, input_shape: Shape) -> list[Parameter]:
        return [Parameter("weight", (self.out_features, self.in_features), self.weight_init)]


class Cosine(_Prototypes):
    """y_o = x . weight[o] / (|x| |weight[o]|): cosines of the angles to learnt vectors. (..., in) to (..., out).

    Lengths below 1e-12 count as that. Parameters: `weight` (out_features, in_features), starting uniform in
    +-1/sqrt(in_features). BigDL's Cosine.
    """

    EPS = 1e-12

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        direction, _ = unit(x, -1, self.EPS)
        weight, _ = unit(parameters["weight"], -1, self.EPS)
        return direction @ weight.T

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        direction, length = unit(x, -1, self.EPS)
        weight, weight_length = unit(parameters["weight"], -1, self.EPS)
        rows = grad_y.reshape(-1, self.out_features)
        grad_weight = rows.T @ direction.reshape(-1, self.in_features)
        gradients["weight"] += unit_gradient(grad_weight, weight, weight_length, -1, self.EPS)
        return unit_gradient(grad_y @ weight, direction, length, -1, self.EPS)


class Euclidean(_Prototypes):
    """y_o = |x - weight[o]|: distances to learnt vectors; the gradient at 0 is 0. (..., in) to (..., out).

    Parameters: `weight` (out_features, in_features), starting uniform in +-1/sqrt(in_features). BigDL's Euclidean.
    """

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        y = np.empty((*x.shape[:-1], self.out_features), dtype=np.float32)
        # Row by row: exact differences without an array of (rows, out, in).
        for row, out in zip(x.reshape(-1, self.in_features), y.reshape(-1, self.out_features), strict=True):
            out[:] = np.sqrt(np.square(row - parameters["weight"], dtype=np.float64).sum(axis=1))
        return y

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        weight = parameters["weight"]
        factors = (grad_y / np.where(y > 0, y, np.float32(np.inf))).reshape(-1, self.out_features)
        rows = x.reshape(-1, self.in_features)
        grad_x = np.empty_like(rows)
        grad_weight = np.zeros_like(weight)
        for row, factor, out in zip(rows, factors, grad_x, strict=True):
            each = factor[:, None] * (row - weight)
            out[:] = each.sum(axis=0)
            grad_weight -= each
        gradients["weight"] += grad_weight
        return grad_x.reshape(x.shape)
