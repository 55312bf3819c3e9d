"""Products of matrices and vectors that flow through the model."""

from __future__ import annotations

import itertools
import math

import numpy as np

from compute.errors import InputError
from compute.nn.init import FanIn, Initializer
from compute.nn.layer import Array, Arrayed, Layer, LayerContext
from compute.nn.module import Parameter, positive
from compute.spec import Arrays, Shape


class MM(Layer):
    """a @ b for a table of matrices a (..., m, k) and b (..., k, n), transposed first where asked for: (..., m, n).

    Leading dimensions must be equal. torch.matmul; BigDL's MM(transA, transB).
    """

    arity = 2

    def __init__(self, trans_a: bool = False, trans_b: bool = False, name: str | None = None) -> None:
        super().__init__(name)
        self.trans_a, self.trans_b = bool(trans_a), bool(trans_b)

    def output_shape(self, *input_shapes: Shape) -> Shape:
        a, b = input_shapes
        if len(a) < 2 or len(b) < 2 or a[:-2] != b[:-2]:
            raise InputError("needs two matrices (..., m, k) and (..., k, n) with equal leading dimensions")
        (m, k), (inner, n) = a[-2:], b[-2:]
        if self.trans_a:
            m, k = k, m
        if self.trans_b:
            inner, n = n, inner
        if k != inner:
            raise InputError(f"cannot multiply ({m}, {k}) by ({inner}, {n}), after the transpositions asked for")
        return (*a[:-2], m, n)

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        a, b = _turned(inputs[0], self.trans_a), _turned(inputs[1], self.trans_b)
        return (np.matmul(a, b),)

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        (grad_y,) = grad_outputs
        a, b = _turned(inputs[0], self.trans_a), _turned(inputs[1], self.trans_b)
        grad_a = np.matmul(grad_y, _turned(b, True))
        grad_b = np.matmul(_turned(a, True), grad_y)
        return (
            np.ascontiguousarray(_turned(grad_a, self.trans_a)),
            np.ascontiguousarray(_turned(grad_b, self.trans_b)),
        )


class MV(Layer):
    """m @ v for a table of a matrix (..., r, c), transposed first where asked for, and a vector (..., c): (..., r).

    Leading dimensions must be equal. torch.mv for each sample; BigDL's MV(trans).
    """

    arity = 2

    def __init__(self, trans: bool = False, name: str | None = None) -> None:
        super().__init__(name)
        self.trans = bool(trans)

    def output_shape(self, *input_shapes: Shape) -> Shape:
        matrix, vector = input_shapes
        if len(matrix) < 2 or len(vector) != len(matrix) - 1 or matrix[:-2] != vector[:-1]:
            raise InputError("needs a matrix (..., r, c) and a vector (..., c) with equal leading dimensions")
        rows, columns = matrix[-2:] if not self.trans else matrix[:-3:-1]
        if vector[-1] != columns:
            raise InputError(f"cannot multiply ({rows}, {columns}), after the transposition asked for, by {vector[-1]}")
        return (*matrix[:-2], rows)

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        matrix, vector = inputs
        return (np.matmul(_turned(matrix, self.trans), vector[..., None])[..., 0],)

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        (matrix, vector), (grad_y,) = inputs, grad_outputs
        outer = grad_y[..., :, None] * vector[..., None, :]
        grad_vector = np.matmul(_turned(matrix, not self.trans), grad_y[..., None])[..., 0]
        return np.ascontiguousarray(_turned(outer, self.trans)), grad_vector


class DotProduct(Layer):
    """Sum of a * b over the last dimension, for a table of a and b (..., k): (...). Added up in float64."""

    arity = 2

    def output_shape(self, *input_shapes: Shape) -> Shape:
        a, b = input_shapes
        if a != b or not a:
            raise InputError("needs two of one shape (..., k)")
        return a[:-1]

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        return ((inputs[0] * inputs[1]).sum(axis=-1, dtype=np.float64).astype(np.float32),)

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        grad_y = grad_outputs[0][..., None]
        return grad_y * inputs[1], grad_y * inputs[0]


class CrossProduct(Layer):
    """Dot products of all pairs of a table of n vectors (k,): (n * (n - 1) / 2,), in the order 01, 02, ..., 12, ...

    The interactions of a factorization machine. BigDL's CrossProduct.
    """

    def output_shape(self, *input_shapes: Shape) -> Shape:
        if len(input_shapes) < 2 or any(len(shape) != 1 or shape != input_shapes[0] for shape in input_shapes):
            raise InputError("needs at least two vectors of one size (k,)")
        return (math.comb(len(input_shapes), 2),)

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        pairs = itertools.combinations(inputs, 2)
        return (np.stack([(a * b).sum(axis=1, dtype=np.float64) for a, b in pairs], axis=1).astype(np.float32),)

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        grads = tuple(np.zeros_like(x) for x in inputs)
        for index, (a, b) in enumerate(itertools.combinations(range(len(inputs)), 2)):
            grad_y = grad_outputs[0][:, index : index + 1]
            grads[a][...] += grad_y * inputs[b]
            grads[b][...] += grad_y * inputs[a]
        return grads


class Bilinear(Layer):
    """y_o = x1 . weight[o] @ x2 + bias[o] for a table of x1 (..., in1_features), x2 (..., in2_features): (..., out).

    Leading dimensions must be equal. Parameters: `weight` (out_features, in1_features, in2_features), `bias`
    (out_features,) unless bias=False; both start uniform in +-1/sqrt(in1_features). torch.nn.Bilinear.
    """

    arity = 2

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        weight_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        positive(self.kind, in1_features=in1_features, in2_features=in2_features, out_features=out_features)
        self.in1_features, self.in2_features, self.out_features = in1_features, in2_features, out_features
        self.bias = bias
        self.weight_init = weight_init or FanIn(in1_features)
        self.bias_init = bias_init or FanIn(in1_features)

    def output_shape(self, *input_shapes: Shape) -> Shape:
        a, b = input_shapes
        if not a or not b or a[-1] != self.in1_features or b[-1] != self.in2_features or a[:-1] != b[:-1]:
            raise InputError(f"needs (..., {self.in1_features}) and (..., {self.in2_features}), the rest equal")
        return (*a[:-1], self.out_features)

    def parameters(self, *input_shapes: Shape) -> list[Parameter]:
        weight = Parameter("weight", (self.out_features, self.in1_features, self.in2_features), self.weight_init)
        return [weight, Parameter("bias", (self.out_features,), self.bias_init)] if self.bias else [weight]

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        a, b = self._rows(inputs)
        # (rows, out, in2), the larger product; then a row-wise one with x2.
        half = (a @ self._flat(parameters["weight"])).reshape(len(a), self.out_features, self.in2_features)
        y = np.matmul(half, b[:, :, None])[:, :, 0]
        if self.bias:
            y += parameters["bias"]
        return (y.reshape(*inputs[0].shape[:-1], self.out_features),)

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        a, b = self._rows(inputs)
        grad_y = grad_outputs[0].reshape(-1, self.out_features)
        flat = self._flat(parameters["weight"])
        outer = (grad_y[:, :, None] * b[:, None, :]).reshape(len(a), -1)  # (rows, out * in2)
        grad_flat = (a.T @ outer).reshape(self.in1_features, self.out_features, self.in2_features)
        gradients["weight"] += grad_flat.transpose(1, 0, 2)
        if self.bias:
            gradients["bias"] += grad_y.sum(axis=0, dtype=np.float64).astype(np.float32)
        half = (a @ flat).reshape(len(a), self.out_features, self.in2_features)
        grad_a = outer @ flat.T
        grad_b = np.matmul(grad_y[:, None, :], half)[:, 0]
        return grad_a.reshape(inputs[0].shape), grad_b.reshape(inputs[1].shape)

    def _rows(self, inputs: Arrays) -> Arrays:
        return inputs[0].reshape(-1, self.in1_features), inputs[1].reshape(-1, self.in2_features)

    def _flat(self, weight: Array) -> Array:
        """(in1_features, out_features * in2_features)."""
        return np.ascontiguousarray(weight.transpose(1, 0, 2)).reshape(self.in1_features, -1)


def _turned(matrix: Array, turn: bool) -> Array:
    return matrix.swapaxes(-1, -2) if turn else matrix
