"""Layer normalization."""

from __future__ import annotations

import math

import numpy as np

from compute.errors import InputError
from compute.nn.init import Ones, Zeros
from compute.nn.layer import Array, Arrayed, LayerContext, UnaryLayer
from compute.nn.module import Parameter
from compute.spec import Shape


class LayerNorm(UnaryLayer):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias over the last dimensions, (*, *normalized_shape).

    Mean and (biased) variance are those of each sample's own last dimensions. Parameters: `weight` and `bias`, of
    normalized_shape, starting as 1 and 0; none if elementwise_affine=False, no bias if bias=False.

    Ba, Kiros and Hinton, Layer Normalization (2016); torch.nn.LayerNorm.
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        if not shape or not all(isinstance(s, int) and not isinstance(s, bool) and s >= 1 for s in shape):
            raise InputError(f"LayerNorm: normalized_shape must be whole sizes of at least 1, got {normalized_shape!r}")
        if not 0 < eps < math.inf:
            raise InputError(f"LayerNorm: eps must be a positive number, got {eps!r}")
        self.normalized_shape = shape
        self.eps = float(eps)
        self.elementwise_affine = elementwise_affine
        self.bias = bias and elementwise_affine

    def output_shape(self, input_shape: Shape) -> Shape:
        if input_shape[-len(self.normalized_shape) :] != self.normalized_shape:
            raise InputError(f"needs (..., {', '.join(map(str, self.normalized_shape))})")
        return input_shape

    def parameters(self, input_shape: Shape) -> list[Parameter]:
        weight = [Parameter("weight", self.normalized_shape, Ones())] if self.elementwise_affine else []
        return weight + ([Parameter("bias", self.normalized_shape, Zeros())] if self.bias else [])

    def _rows(self, x: Array) -> Array:
        return x.reshape(-1, math.prod(self.normalized_shape))

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        rows = self._rows(x)
        centred = rows - rows.mean(axis=1, keepdims=True)
        variance = np.einsum("ij,ij->i", centred, centred)[:, None] / np.float32(rows.shape[1])
        inverse = np.float32(1) / np.sqrt(variance + np.float32(self.eps))
        centred *= inverse
        context.saved["normalized"], context.saved["inverse"] = centred, inverse
        y: Array = centred * parameters["weight"].ravel() if self.elementwise_affine else centred
        if self.bias:
            y += parameters["bias"].ravel()
        return y.reshape(x.shape)

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        normalized, inverse = context.saved["normalized"], context.saved["inverse"]
        grad = self._rows(grad_y)
        if self.bias:
            gradients["bias"] += grad.sum(axis=0).reshape(self.normalized_shape)
        if self.elementwise_affine:
            gradients["weight"] += np.einsum("ij,ij->j", grad, normalized).reshape(self.normalized_shape)
            grad = grad * parameters["weight"].ravel()
        slope = np.einsum("ij,ij->i", grad, normalized)[:, None] / np.float32(grad.shape[1])
        grad_x: Array = grad - grad.mean(axis=1, keepdims=True)
        grad_x -= normalized * slope
        grad_x *= inverse
        return grad_x.reshape(x.shape)
