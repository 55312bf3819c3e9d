"""Layer normalization, and its kin without a mean."""

from __future__ import annotations

import math

import numpy as np

from compute.errors import InputError
from compute.nn.init import Initializer, Ones, Zeros
from compute.nn.layer import Array, Arrayed, LayerContext, UnaryLayer
from compute.nn.module import Parameter, sizes
from compute.nn.standardize import standardize, standardize_backward
from compute.spec import Shape


class LastDimensionsNorm(UnaryLayer):
    """Base of layers that normalize over the last dimensions of the sample."""

    def __init__(self, normalized_shape: int | tuple[int, ...], eps: float, name: str | None) -> None:
        super().__init__(name)
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape = sizes(self.kind, "normalized_shape", shape, max(1, len(shape)), 1)
        if not 0 <= eps < math.inf:
            raise InputError(f"{self.kind}: eps must be a number of at least 0, got {eps!r}")
        self.eps = float(eps)

    def output_shape(self, input_shape: Shape) -> Shape:
        if input_shape[-len(self.normalized_shape) :] != self.normalized_shape:
            raise InputError(f"needs (..., {', '.join(str(size) for size in self.normalized_shape)})")
        return input_shape

    def rows(self, x: Array) -> Array:
        """x as (rows, elements that are normalized together)."""
        return x.reshape(-1, math.prod(self.normalized_shape))


class LayerNorm(LastDimensionsNorm):
    """y = (x - mean) / sqrt(var + eps) * weight + bias over the last dimensions of the sample, as torch.nn.LayerNorm.

    (*, *normalized_shape) to the same; mean and biased variance are each row's own, in training as in evaluation.
    Parameters, both of `normalized_shape`: `weight` (from 1) and `bias` (from 0) unless elementwise_affine=False.

    Ba, Kiros and Hinton, Layer Normalization (2016).
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        weight_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(normalized_shape, eps, name)
        self.elementwise_affine = elementwise_affine
        self.bias = bias and elementwise_affine
        self.weight_init = weight_init or Ones()
        self.bias_init = bias_init or Zeros()

    def parameters(self, input_shape: Shape) -> list[Parameter]:
        found = []
        if self.elementwise_affine:
            found.append(Parameter("weight", self.normalized_shape, self.weight_init))
        if self.bias:
            found.append(Parameter("bias", self.normalized_shape, self.bias_init))
        return found

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        standardized = standardize(self.rows(x), self.eps)
        context.saved["rows"], context.saved["inverse"] = standardized.rows, standardized.inverse
        y = standardized.rows
        if self.elementwise_affine:
            y = y * parameters["weight"].ravel()
        if self.bias:
            y += parameters["bias"].ravel()
        return y.reshape(x.shape)

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        rows, grad = context.saved["rows"], self.rows(grad_y)
        if self.elementwise_affine:
            gradients["weight"] += column_sums(grad * rows, self.normalized_shape)
            if self.bias:
                gradients["bias"] += column_sums(grad, self.normalized_shape)
            grad = grad * parameters["weight"].ravel()
        return standardize_backward(rows, context.saved["inverse"], grad).reshape(x.shape)


class RMSNorm(LastDimensionsNorm):
    """y = x / sqrt(mean of x^2 + eps) * weight over the last dimensions of the sample, as torch.nn.RMSNorm.

    (*, *normalized_shape) to the same. Parameter: `weight` of `normalized_shape` (from 1) unless
    elementwise_affine=False. Zhang and Sennrich, Root Mean Square Layer Normalization (2019).

    Args:
        eps: float32's, about 1.2e-7, by default.
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float | None = None,
        elementwise_affine: bool = True,
        weight_init: Initializer | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(normalized_shape, float(np.finfo(np.float32).eps) if eps is None else eps, name)
        self.elementwise_affine = elementwise_affine
        self.weight_init = weight_init or Ones()

    def parameters(self, input_shape: Shape) -> list[Parameter]:
        return [Parameter("weight", self.normalized_shape, self.weight_init)] if self.elementwise_affine else []

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        rows = self.rows(x)
        square = (rows * rows).sum(axis=1, keepdims=True).astype(np.float64) / rows.shape[1]
        inverse = (1.0 / np.sqrt(square + self.eps)).astype(np.float32)
        normalized: Array = rows * inverse
        context.saved["rows"], context.saved["inverse"] = normalized, inverse
        y = normalized * parameters["weight"].ravel() if self.elementwise_affine else normalized
        return y.reshape(x.shape)

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        rows, grad = context.saved["rows"], self.rows(grad_y)
        if self.elementwise_affine:
            gradients["weight"] += column_sums(grad * rows, self.normalized_shape)
            grad = grad * parameters["weight"].ravel()
        grad_x: Array = rows * ((grad * rows).sum(axis=1, keepdims=True) / -np.float32(rows.shape[1]))
        grad_x += grad
        grad_x *= context.saved["inverse"]
        return grad_x.reshape(x.shape)


def column_sums(rows: Array, shape: Shape) -> Array:
    """Sums over rows, float32 of `shape`; added up in float64."""
    sums: Array = rows.sum(axis=0, dtype=np.float64).astype(np.float32)
    return sums.reshape(shape)
