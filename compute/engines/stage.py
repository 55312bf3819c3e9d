"""Stages on a library's `Backend`: layers with the batch last, and row-major ones (the convolution's is conv_stage)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compute import nn
from compute.engines.backend import Backend
from compute.engines.staged import LossGradient, Stage, StagedPlan, numpy_call
from compute.engines.tensor import BATCH_LAST, ROWS, Tensor
from compute.graph import Node
from compute.nn.criterion import Criterion
from compute.nn.fold import Fold
from compute.nn.layer import Array
from compute.spec import Arrays, Shape


class ReshapeStage(Stage):
    """The same memory under another shape, in ROWS or, unless rows of the batch are folded, BATCH_LAST."""

    def __init__(self, plan: StagedPlan, nodes: Sequence[Node], x: Tensor) -> None:
        super().__init__(plan, nodes)
        self._folds = isinstance(nodes[0].layer, Fold)
        self._x = self._row_major(x)
        self.outputs = (self._reshaped(self._x, nodes[-1].output_shape, plan.shape(nodes[-1].outputs[0])[0]),)

    def _row_major(self, tensor: Tensor) -> Tensor:
        return tensor if tensor.layout == BATCH_LAST and not self._folds else self.plan.convert(tensor, ROWS)

    def _reshaped(self, tensor: Tensor, shape: Shape, rows: int) -> Tensor:
        whole = (*shape, rows) if tensor.layout == BATCH_LAST else (rows, *shape)
        return Tensor(tensor.array.reshape(whole), tensor.layout, tensor.shared)

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        grad = self._row_major(grads[0])
        node = self.nodes[0]
        return [self._reshaped(grad, node.input_shape, self.plan.shape(node.sources[0])[0])]


class ActivationStage(Stage):
    """An activation by itself, in either layout."""

    def __init__(self, plan: StagedPlan, nodes: Sequence[Node], x: Tensor, backend: Backend) -> None:
        super().__init__(plan, nodes)
        self._backend = backend
        self.outputs = (Tensor(plan.empty(x.array.shape), x.layout),)
        flat = (1, x.array.size)
        y = self.outputs[0].array
        plan.emit(backend.bias_activation(x.array.reshape(flat), None, y.reshape(flat), nodes[0].layer))

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        y = self.outputs[0]
        grad_y = self.plan.convert(grads[0], y.layout)
        grad_x = self.plan.overwritable(grad_y)
        self.plan.emit(self._backend.activation_backward(self.nodes[0].layer, y.array, grad_y.array, grad_x.array))
        return [grad_x]


class PoolStage(Stage):
    """Max pooling by itself, batch last."""

    def __init__(self, plan: StagedPlan, nodes: Sequence[Node], x: Tensor, backend: Backend) -> None:
        super().__init__(plan, nodes)
        layer = nodes[0].layer
        assert isinstance(layer, nn.MaxPool2d)
        self._x = plan.convert(x, BATCH_LAST)
        y = plan.empty((*nodes[0].output_shape, self._x.array.shape[-1]))
        self.outputs = (Tensor(y, BATCH_LAST),)
        self._pooling = backend.max_pool(layer, self._x.array, y, plan.training)
        plan.emit(*self._pooling.forward)

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        if not needed[0]:
            return [None]
        grad_y = self.plan.convert(grads[0], BATCH_LAST)
        grad_x = self.plan.empty(self._x.array.shape)
        self.plan.emit(*self._pooling.backward(grad_y.array, grad_x))
        return [Tensor(grad_x, BATCH_LAST)]


class LinearStage(Stage):
    """y (out, n) = activation(weight @ x (in, n) + bias)."""

    def __init__(self, plan: StagedPlan, nodes: Sequence[Node], x: Tensor, backend: Backend) -> None:
        super().__init__(plan, nodes)
        self._backend = backend
        self._activation = nodes[1].layer if len(nodes) > 1 else None
        self._gradients = plan.gradients(nodes[0])
        parameters = plan.parameters(nodes[0])
        self._weight = parameters["weight"]
        self._x = plan.convert(x, BATCH_LAST).array
        self._y = plan.empty((*nodes[0].output_shape, self._x.shape[-1]))
        self.outputs = (Tensor(self._y, BATCH_LAST),)
        plan.emit(backend.gemm(self._weight, self._x, self._y))
        bias = parameters.get("bias")
        if bias is not None or self._activation is not None:
            plan.emit(backend.bias_activation(self._y, bias, self._y, self._activation))

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        plan, backend = self.plan, self._backend
        grad_y = plan.convert(grads[0], BATCH_LAST)
        if self._activation is not None:
            before = plan.overwritable(grad_y)
            plan.emit(backend.activation_backward(self._activation, self._y, grad_y.array, before.array))
            grad_y = before
        if "bias" in self._gradients:
            plan.emit(backend.row_sums(grad_y.array, self._gradients["bias"]))
        plan.emit(backend.gemm(grad_y.array, self._x.T, self._gradients["weight"]))
        if not needed[0]:
            return [None]
        grad_x = plan.empty(self._x.shape)
        plan.emit(backend.gemm(self._weight.T, grad_y.array, grad_x))
        return [Tensor(grad_x, BATCH_LAST)]


class RowsLinearStage(Stage):
    """y (m, out) = x (m, in) @ weight.T + bias for samples of more than one dimension, whose steps are rows."""

    def __init__(self, plan: StagedPlan, nodes: Sequence[Node], x: Tensor, backend: Backend) -> None:
        super().__init__(plan, nodes)
        self._backend = backend
        layer = nodes[0].layer
        assert isinstance(layer, nn.Linear)
        self._gradients = plan.gradients(nodes[0])
        parameters = plan.parameters(nodes[0])
        self._weight = parameters["weight"]
        self._x = plan.convert(x, ROWS).array
        self._x_rows = self._x.reshape(-1, layer.in_features)
        y = plan.empty(plan.shape(nodes[0].outputs[0]))
        self.outputs = (Tensor(y),)
        y_rows = y.reshape(-1, layer.out_features)
        plan.emit(backend.gemm(self._x_rows, self._weight.T, y_rows))
        if "bias" in parameters:
            plan.emit(numpy_call(np.add, y_rows, parameters["bias"], out=y_rows))

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        plan, backend = self.plan, self._backend
        grad_y = plan.convert(grads[0], ROWS).array.reshape(-1, len(self._weight))
        if "bias" in self._gradients:
            plan.emit(numpy_call(np.sum, grad_y, axis=0, out=self._gradients["bias"]))
        plan.emit(backend.gemm(grad_y.T, self._x_rows, self._gradients["weight"]))
        if not needed[0]:
            return [None]
        grad_x = plan.empty(self._x.shape)
        plan.emit(backend.gemm(grad_y, self._weight, grad_x.reshape(self._x_rows.shape)))
        return [Tensor(grad_x)]


class LogSoftmaxStage(Stage):
    """Log-softmax, batch first.

    In numpy: outputs are small, and oneDNN's kernel is 3e-6 off, which is too much for the gradient of a sample whose
    class is nearly certain.
    """

    def __init__(self, plan: StagedPlan, nodes: Sequence[Node], x: Tensor) -> None:
        super().__init__(plan, nodes)
        self._x = plan.convert(x, ROWS).array
        self._y = plan.empty(self._x.shape)
        self._exponentials = plan.empty(self._x.shape)
        self._column = plan.empty((*self._x.shape[:-1], 1))
        self.outputs = (Tensor(self._y),)
        plan.emit(self._forward, uses=(self._x,))

    def _forward(self) -> None:
        np.max(self._x, axis=-1, keepdims=True, out=self._column)
        np.subtract(self._x, self._column, out=self._y)
        np.exp(self._y, out=self._exponentials)
        np.sum(self._exponentials, axis=-1, keepdims=True, out=self._column)
        np.log(self._column, out=self._column)
        np.subtract(self._y, self._column, out=self._y)

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        grad_x = self.plan.empty(self._x.shape)
        grad_y = self.plan.convert(grads[0], ROWS).array

        def call() -> None:
            np.exp(self._y, out=grad_x)
            np.multiply(grad_x, -grad_y.sum(axis=-1, keepdims=True), out=grad_x)
            np.add(grad_x, grad_y, out=grad_x)

        self.plan.emit(call, uses=(grad_y,))
        return [Tensor(grad_x)]

    def fused_loss(self, criterion: Criterion) -> tuple[Tensor, LossGradient] | None:
        """With NLL behind log-softmax the gradient of the logits is simply softmax minus one-hot."""
        if not isinstance(criterion, nn.NLLLoss):
            return None
        grad: Array = self.plan.empty(self._x.shape)

        def call(targets: Arrays, scale: float) -> float:
            loss = criterion.loss((self._y,), targets)
            criterion.logits_gradient((self._y,), targets, scale, (grad,))
            return loss

        return Tensor(grad), call


def over_last(layer: nn.Softmax | nn.LogSoftmax, node: Node) -> bool:
    """Whether the layer computes along the last dimension of its input."""
    rank = len(node.input_shape)
    return layer.dim % rank == rank - 1
