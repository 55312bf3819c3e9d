"""The engine `numpy`: plain numpy, layer by layer. Slow and simple: the oracle of the other engines' tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compute import nn
from compute.engines.blas_threads import limit_numpy_threads
from compute.engines.layers import CustomKernel, Kernel, needs_gradient
from compute.errors import InputError
from compute.graph import Node
from compute.memory import aligned
from compute.nn.module import Module
from compute.program import Engine, Plan, Program

Array = NDArray[np.float32]


class Conv2dKernel(Kernel):
    """Convolution as a product with all patches (im2col)."""

    def __init__(self, node: Node, program: Program, x: Array) -> None:
        super().__init__(node, program, x)
        assert isinstance(node.layer, nn.Conv2d)
        self.layer = node.layer
        self.y = aligned((len(x), *node.output_shape))
        pad_y, pad_x = self.layer.padding
        n, channels, height, width = x.shape
        self.padded = aligned((n, channels, height + 2 * pad_y, width + 2 * pad_x))
        self.inside = self.padded[:, :, pad_y : pad_y + height, pad_x : pad_x + width]
        _, out_height, out_width = node.output_shape
        # (n, C, KH, KW, OH, OW): a view of the patches, and the array that holds them.
        self.patches = _windows(self.padded, self.layer.kernel_size, self.layer.stride, (out_height, out_width))
        self.columns = aligned(self.patches.shape)

    def forward(self) -> None:
        np.copyto(self.inside, self.x)
        np.copyto(self.columns, self.patches)
        n, out = len(self.x), self.layer.out_channels
        weight = self.parameters["weight"].reshape(out, -1)
        flat = self.y.reshape(n, out, -1)
        np.matmul(weight, self.columns.reshape(n, weight.shape[1], -1), out=flat)
        if self.layer.bias:
            flat += self.parameters["bias"][:, None]

    def backward(self) -> None:
        n, out = len(self.x), self.layer.out_channels
        weight = self.parameters["weight"].reshape(out, -1)
        grad_y = self.grad_y.reshape(n, out, -1)
        columns = self.columns.reshape(n, weight.shape[1], -1)
        per_sample = np.matmul(grad_y, columns.transpose(0, 2, 1))
        np.sum(per_sample.reshape(n, *self.parameters["weight"].shape), axis=0, out=self.gradients["weight"])
        if self.layer.bias:
            np.sum(grad_y.sum(axis=2), axis=0, out=self.gradients["bias"])
        if self.grad_x is None:
            return
        grad_columns = np.matmul(weight.T, grad_y).reshape(self.columns.shape)
        grad_padded = np.zeros_like(self.padded)
        kernel_height, kernel_width = self.layer.kernel_size
        target = _windows(grad_padded, self.layer.kernel_size, self.layer.stride, self.columns.shape[-2:])
        for ky in range(kernel_height):
            for kx in range(kernel_width):
                target[:, :, ky, kx] += grad_columns[:, :, ky, kx]
        pad_y, pad_x = self.layer.padding
        height, width = self.x.shape[2:]
        np.copyto(self.grad_x, grad_padded[:, :, pad_y : pad_y + height, pad_x : pad_x + width])


class MaxPool2dKernel(Kernel):
    """Max pooling; remembers which element of each window was the first largest."""

    def __init__(self, node: Node, program: Program, x: Array) -> None:
        super().__init__(node, program, x)
        assert isinstance(node.layer, nn.MaxPool2d)
        self.layer = node.layer
        self.y = aligned((len(x), *node.output_shape))
        pad_y, pad_x = self.layer.padding
        n, channels, height, width = x.shape
        self.padded = aligned((n, channels, height + 2 * pad_y, width + 2 * pad_x))
        self.padded.fill(-np.inf)
        self.inside = self.padded[:, :, pad_y : pad_y + height, pad_x : pad_x + width]
        out_size = node.output_shape[1:]
        self.windows = _windows(self.padded, self.layer.kernel_size, self.layer.stride, out_size)
        self.choice = np.zeros(self.y.shape, dtype=np.intp)

    def forward(self) -> None:
        np.copyto(self.inside, self.x)
        n, channels, kernel_height, kernel_width, out_height, out_width = self.windows.shape
        candidates = self.windows.reshape(n, channels, kernel_height * kernel_width, out_height, out_width)
        np.argmax(candidates, axis=2, out=self.choice)
        np.copyto(self.y, np.take_along_axis(candidates, self.choice[:, :, None], axis=2)[:, :, 0])

    def backward(self) -> None:
        if self.grad_x is None:
            return
        grad_padded = np.zeros_like(self.padded)
        target = _windows(grad_padded, self.layer.kernel_size, self.layer.stride, self.y.shape[2:])
        kernel_height, kernel_width = self.layer.kernel_size
        for ky in range(kernel_height):
            for kx in range(kernel_width):
                target[:, :, ky, kx] += np.where(self.choice == ky * kernel_width + kx, self.grad_y, np.float32(0))
        pad_y, pad_x = self.layer.padding
        height, width = self.x.shape[2:]
        np.copyto(self.grad_x, grad_padded[:, :, pad_y : pad_y + height, pad_x : pad_x + width])


class LinearKernel(Kernel):
    """Fully connected layer."""

    def __init__(self, node: Node, program: Program, x: Array) -> None:
        super().__init__(node, program, x)
        assert isinstance(node.layer, nn.Linear)
        self.layer = node.layer
        self.y = aligned((len(x), *node.output_shape))

    def forward(self) -> None:
        np.matmul(self.x, self.parameters["weight"].T, out=self.y)
        if self.layer.bias:
            self.y += self.parameters["bias"]

    def backward(self) -> None:
        np.matmul(self.grad_y.T, self.x, out=self.gradients["weight"])
        if self.layer.bias:
            np.sum(self.grad_y, axis=0, out=self.gradients["bias"])
        if self.grad_x is not None:
            np.matmul(self.grad_y, self.parameters["weight"], out=self.grad_x)


class TanhKernel(Kernel):
    """Hyperbolic tangent."""

    def __init__(self, node: Node, program: Program, x: Array) -> None:
        super().__init__(node, program, x)
        self.y = aligned(x.shape)

    def forward(self) -> None:
        np.tanh(self.x, out=self.y)

    def backward(self) -> None:
        if self.grad_x is None:
            return
        np.multiply(self.y, self.y, out=self.grad_x)
        np.subtract(np.float32(1), self.grad_x, out=self.grad_x)
        self.grad_x *= self.grad_y


class ReLUKernel(Kernel):
    """Rectifier."""

    def __init__(self, node: Node, program: Program, x: Array) -> None:
        super().__init__(node, program, x)
        self.y = aligned(x.shape)

    def forward(self) -> None:
        np.maximum(self.x, np.float32(0), out=self.y)

    def backward(self) -> None:
        if self.grad_x is not None:
            np.multiply(self.grad_y, self.x > 0, out=self.grad_x)


class LogSoftmaxKernel(Kernel):
    """Logarithm of softmax over the classes."""

    def __init__(self, node: Node, program: Program, x: Array) -> None:
        super().__init__(node, program, x)
        self.y = aligned(x.shape)

    def forward(self) -> None:
        np.subtract(self.x, self.x.max(axis=1, keepdims=True), out=self.y)
        self.y -= np.log(np.exp(self.y).sum(axis=1, keepdims=True))

    def backward(self) -> None:
        if self.grad_x is None:
            return
        np.exp(self.y, out=self.grad_x)
        self.grad_x *= -self.grad_y.sum(axis=1, keepdims=True)
        self.grad_x += self.grad_y


class ReshapeKernel(Kernel):
    """The same memory under another shape."""

    def __init__(self, node: Node, program: Program, x: Array) -> None:
        super().__init__(node, program, x)
        self.y = x.reshape(len(x), *node.output_shape)

    def prepare_backward(self, grad_y: Array, need_grad_x: bool) -> None:
        self.grad_x = grad_y.reshape(self.x.shape)

    def forward(self) -> None:
        pass

    def backward(self) -> None:
        pass


KERNELS: dict[type[Module], type[Kernel]] = {
    nn.Conv2d: Conv2dKernel,
    nn.MaxPool2d: MaxPool2dKernel,
    nn.Linear: LinearKernel,
    nn.Tanh: TanhKernel,
    nn.ReLU: ReLUKernel,
    nn.LogSoftmax: LogSoftmaxKernel,
    nn.Reshape: ReshapeKernel,
    nn.CustomLayer: CustomKernel,
}


def kernel_class(layer: Module) -> type[Kernel]:
    """The kernel of a layer's class or of the nearest class that it derives from."""
    for base in type(layer).__mro__:
        if base in KERNELS:
            return KERNELS[base]
    raise InputError(f"the engines do not know the layer {layer.kind}; derive your own layers from nn.CustomLayer")


class PlainPlan(Plan):
    """Kernels in the graph's order."""

    def __init__(self, program: Program, batch: int, training: bool) -> None:
        graph = program.graph
        self._criterion = program.criterion
        self._input = aligned((batch, *graph.input_shape))
        self._kernels: list[Kernel] = []
        for node in graph.nodes:
            source = node.sources[0]
            x = self._input if source < 0 else self._kernels[source].y
            self._kernels.append(kernel_class(node.layer)(node, program, x))
        self.output = self._kernels[-1].y
        if not training:
            return
        self._grad_output = aligned(self.output.shape)
        grad: Array = self._grad_output
        needed = needs_gradient(graph)
        for kernel in reversed(self._kernels):
            kernel.prepare_backward(grad, needed[kernel.node.index])
            if kernel.grad_x is None:
                break
            grad = kernel.grad_x
        first = next((i for i, kernel in enumerate(self._kernels) if kernel.node.parameters), len(self._kernels))
        self._backward_kernels = self._kernels[: first - 1 if first else None : -1]

    def forward(self, x: Array, key: tuple[int, int, int], training: bool) -> Array:
        np.copyto(self._input, x)
        for kernel in self._kernels:
            if isinstance(kernel, CustomKernel):
                kernel.context.key, kernel.context.training = key, training
            kernel.forward()
        return self.output

    def backward(self, target: NDArray[np.int64], scale: float) -> float:
        loss = self._criterion.loss_and_gradient((self.output,), (target,), scale, (self._grad_output,))
        for kernel in self._backward_kernels:
            kernel.backward()
        return loss


class PlainEngine(Engine):
    """Reads the parameters where they lie, so a change of them needs nothing."""

    def plan(self, batch: int, training: bool) -> Plan:
        return PlainPlan(self.program, batch, training)

    def parameters_changed(self) -> None:
        pass


def make(program: Program, threads: int) -> Engine:
    """The engine for a program."""
    limit_numpy_threads(threads)
    return PlainEngine(program, threads)


def _windows(
    padded: Array, kernel: tuple[int, int], stride: tuple[int, int], out_size: tuple[int, ...]
) -> Array:
    """View (n, C, KH, KW, OH, OW) of (n, C, H, W): element [.., ky, kx, oy, ox] is [.., oy*sy+ky, ox*sx+kx]."""
    s_n, s_c, s_y, s_x = padded.strides
    return np.lib.stride_tricks.as_strided(
        padded,
        shape=(*padded.shape[:2], *kernel, *out_size),
        strides=(s_n, s_c, s_y, s_x, s_y * stride[0], s_x * stride[1]),
    )
