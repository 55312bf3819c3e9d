"""Stages of a batch-last plan: fused layers with their buffers and prepared calls (all but the convolution's)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compute import nn
from compute.engines.backend import Backend, Call
from compute.engines.layers import CustomKernel
from compute.graph import Node
from compute.memory import aligned
from compute.program import Program

Array = NDArray[np.float32]
Activation = nn.Tanh | nn.ReLU


class Stage(ABC):
    """Some fused layers for one batch size.

    Attributes:
        nodes: the layers; none for a transposition.
        x, y: input and output buffers.
        forward: calls that compute y from x.
    """

    def __init__(self, nodes: Sequence[Node], x: Array) -> None:
        self.nodes = tuple(nodes)
        self.x = x
        self.y: Array = x
        self.forward: list[Call] = []

    @abstractmethod
    def backward(self, grad_y: Array, need_grad_x: bool) -> tuple[list[Call], Array | None]:
        """Calls that compute the parameters' gradients and, if needed, that of x, which is returned with them.

        The calls may overwrite grad_y: nobody reads it after this stage.
        """


class Transposition(Stage):
    """(n, ...) to (..., n) or back."""

    def __init__(self, x: Array, backend: Backend, to_last: bool) -> None:
        super().__init__((), x)
        self._backend = backend
        self._batch = x.shape[0] if to_last else x.shape[-1]
        self._to_last = to_last
        self.y = aligned((*x.shape[1:], self._batch) if to_last else (self._batch, *x.shape[:-1]))
        self.forward = [self._call(x, self.y, to_last)]

    def _call(self, source: Array, target: Array, to_last: bool) -> Call:
        size = source.size // self._batch
        if to_last:
            return self._backend.transpose(source.reshape(self._batch, size), target.reshape(size, self._batch))
        return self._backend.transpose(source.reshape(size, self._batch), target.reshape(self._batch, size))

    def backward(self, grad_y: Array, need_grad_x: bool) -> tuple[list[Call], Array | None]:
        if not need_grad_x:
            return [], None
        grad_x = aligned(self.x.shape)
        return [self._call(grad_y, grad_x, not self._to_last)], grad_x


class ReshapeStage(Stage):
    """The same memory under another shape, in either layout."""

    def __init__(self, nodes: Sequence[Node], x: Array, batch_last: bool) -> None:
        super().__init__(nodes, x)
        shape = nodes[-1].output_shape
        self.y = x.reshape((*shape, x.shape[-1]) if batch_last else (x.shape[0], *shape))

    def backward(self, grad_y: Array, need_grad_x: bool) -> tuple[list[Call], Array | None]:
        return [], grad_y.reshape(self.x.shape)


class ActivationStage(Stage):
    """An activation by itself, in either layout."""

    def __init__(self, nodes: Sequence[Node], x: Array, backend: Backend) -> None:
        super().__init__(nodes, x)
        self._backend = backend
        self.y = aligned(x.shape)
        flat = (1, x.size)
        self.forward = [backend.bias_activation(x.reshape(flat), None, self.y.reshape(flat), nodes[0].layer)]

    def backward(self, grad_y: Array, need_grad_x: bool) -> tuple[list[Call], Array | None]:
        return [self._backend.activation_backward(self.nodes[0].layer, self.y, grad_y, grad_y)], grad_y


class PoolStage(Stage):
    """Max pooling by itself, batch last."""

    def __init__(self, nodes: Sequence[Node], x: Array, backend: Backend, training: bool) -> None:
        super().__init__(nodes, x)
        layer = nodes[0].layer
        assert isinstance(layer, nn.MaxPool2d)
        self.y = aligned((*nodes[0].output_shape, x.shape[-1]))
        self._pooling = backend.max_pool(layer, x, self.y, training)
        self.forward = self._pooling.forward

    def backward(self, grad_y: Array, need_grad_x: bool) -> tuple[list[Call], Array | None]:
        if not need_grad_x:
            return [], None
        grad_x = aligned(self.x.shape)
        return self._pooling.backward(grad_y, grad_x), grad_x


class LinearStage(Stage):
    """y (out, n) = activation(weight @ x (in, n) + bias)."""

    def __init__(self, nodes: Sequence[Node], x: Array, backend: Backend, program: Program) -> None:
        super().__init__(nodes, x)
        self._backend = backend
        self._activation = nodes[1].layer if len(nodes) > 1 else None
        self._gradients = views(nodes[0], program.gradients)
        parameters = views(nodes[0], program.parameters)
        self._weight = parameters["weight"]
        self.y = aligned((*nodes[0].output_shape, x.shape[-1]))
        self.forward = [backend.gemm(self._weight, x, self.y)]
        bias = parameters.get("bias")
        if bias is not None or self._activation is not None:
            self.forward.append(backend.bias_activation(self.y, bias, self.y, self._activation))

    def backward(self, grad_y: Array, need_grad_x: bool) -> tuple[list[Call], Array | None]:
        backend, calls = self._backend, []
        if self._activation is not None:
            calls.append(backend.activation_backward(self._activation, self.y, grad_y, grad_y))
        if "bias" in self._gradients:
            calls.append(backend.row_sums(grad_y, self._gradients["bias"]))
        calls.append(backend.gemm(grad_y, self.x.T, self._gradients["weight"]))
        if not need_grad_x:
            return calls, None
        grad_x = aligned(self.x.shape)
        calls.append(backend.gemm(self._weight.T, grad_y, grad_x))
        return calls, grad_x


class LogSoftmaxStage(Stage):
    """Log-softmax, batch first.

    In numpy: outputs are small, and oneDNN's kernel is 3e-6 off, which is too much for the gradient of a sample whose
    class is nearly certain.
    """

    def __init__(self, nodes: Sequence[Node], x: Array) -> None:
        super().__init__(nodes, x)
        self.y = aligned(x.shape)
        self._exponentials = aligned(x.shape)
        self._column = aligned((len(x), 1))
        self.forward = [self._forward]

    def _forward(self) -> None:
        np.max(self.x, axis=1, keepdims=True, out=self._column)
        np.subtract(self.x, self._column, out=self.y)
        np.exp(self.y, out=self._exponentials)
        np.sum(self._exponentials, axis=1, keepdims=True, out=self._column)
        np.log(self._column, out=self._column)
        np.subtract(self.y, self._column, out=self.y)

    def backward(self, grad_y: Array, need_grad_x: bool) -> tuple[list[Call], Array | None]:
        grad_x = aligned(self.x.shape)

        def call() -> None:
            np.exp(self.y, out=grad_x)
            np.multiply(grad_x, -grad_y.sum(axis=1, keepdims=True), out=grad_x)
            np.add(grad_x, grad_y, out=grad_x)

        return [call], grad_x


class CustomStage(Stage):
    """A user's layer, batch first."""

    def __init__(self, nodes: Sequence[Node], x: Array, program: Program) -> None:
        super().__init__(nodes, x)
        self._kernel = CustomKernel(nodes[0], program, x)
        self.context = self._kernel.context
        self.y = self._kernel.y
        self.forward = [self._kernel.forward]

    def backward(self, grad_y: Array, need_grad_x: bool) -> tuple[list[Call], Array | None]:
        self._kernel.prepare_backward(grad_y, need_grad_x)
        return [self._kernel.backward], self._kernel.grad_x


def views(node: Node, flat: Array) -> dict[str, Array]:
    """A node's parameters (or gradients) as views of the flat vector, by their name within the layer."""
    return {
        p.spec.name: flat[p.offset : p.offset + math.prod(p.spec.shape)].reshape(p.spec.shape) for p in node.parameters
    }
