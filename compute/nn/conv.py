"""Convolution."""

from __future__ import annotations

import numpy as np

from compute.errors import InputError
from compute.nn.init import FanIn, Initializer
from compute.nn.layer import Array, Arrayed, LayerContext, UnaryLayer
from compute.nn.module import Parameter, positive, sizes
from compute.nn.window import windows
from compute.spec import Shape


class Conv2d(UnaryLayer):
    """Cross-correlation of (channels, height, width) samples, as torch.nn.Conv2d.

    Parameters: `weight` (out_channels, in_channels, kernel height, kernel width), `bias` (out_channels,) unless
    bias=False. Both start uniform in +-1/sqrt(in_channels * kernel area).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        bias: bool = True,
        weight_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        positive("Conv2d", in_channels=in_channels, out_channels=out_channels)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = sizes("Conv2d", "kernel_size", kernel_size, 2, 1)
        self.stride = sizes("Conv2d", "stride", stride, 2, 1)
        self.padding = sizes("Conv2d", "padding", padding, 2, 0)
        self.bias = bias
        default = FanIn(in_channels * self.kernel_size[0] * self.kernel_size[1])
        self.weight_init = weight_init or default
        self.bias_init = bias_init or default

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3 or input_shape[0] != self.in_channels:
            raise InputError(f"needs ({self.in_channels}, height, width)")
        out = []
        for axis in range(2):
            padded = input_shape[1 + axis] + 2 * self.padding[axis]
            if padded < self.kernel_size[axis]:
                raise InputError(f"the kernel {self.kernel_size} is larger than the padded image")
            out.append((padded - self.kernel_size[axis]) // self.stride[axis] + 1)
        return (self.out_channels, out[0], out[1])

    def parameters(self, input_shape: Shape) -> list[Parameter]:
        weight = Parameter("weight", (self.out_channels, self.in_channels, *self.kernel_size), self.weight_init)
        if not self.bias:
            return [weight]
        return [weight, Parameter("bias", (self.out_channels,), self.bias_init)]

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        padded = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in self.padding)))
        columns = np.ascontiguousarray(windows(padded, self.kernel_size, self.stride))
        context.saved["columns"] = columns
        weight = parameters["weight"].reshape(self.out_channels, -1)
        flat: Array = np.matmul(weight, columns.reshape(len(x), weight.shape[1], -1))
        if self.bias:
            flat += parameters["bias"][:, None]
        return flat.reshape(len(x), self.out_channels, *columns.shape[-2:])

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        columns = context.saved["columns"]
        n, weight = len(x), parameters["weight"].reshape(self.out_channels, -1)
        grad = grad_y.reshape(n, self.out_channels, -1)
        per_sample = np.matmul(grad, columns.reshape(n, weight.shape[1], -1).transpose(0, 2, 1))
        gradients["weight"] += per_sample.sum(axis=0).reshape(parameters["weight"].shape)
        if self.bias:
            gradients["bias"] += grad.sum(axis=2).sum(axis=0)
        grad_columns = np.matmul(weight.T, grad).reshape(columns.shape)
        (pad_y, pad_x), (height, width) = self.padding, x.shape[2:]
        grad_padded = np.zeros((n, self.in_channels, height + 2 * pad_y, width + 2 * pad_x), dtype=np.float32)
        target = windows(grad_padded, self.kernel_size, self.stride)
        for ky, kx in np.ndindex(*self.kernel_size):
            target[:, :, ky, kx] += grad_columns[:, :, ky, kx]
        return grad_padded[:, :, pad_y : pad_y + height, pad_x : pad_x + width]
