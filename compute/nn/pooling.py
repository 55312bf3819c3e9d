"""Pooling."""

from __future__ import annotations

import numpy as np

from compute.errors import InputError
from compute.nn.layer import Array, Arrayed, LayerContext, UnaryLayer
from compute.nn.module import sizes
from compute.nn.window import windows
from compute.spec import Shape


class MaxPool2d(UnaryLayer):
    """Maximum over windows of (channels, height, width) samples, as torch.nn.MaxPool2d (sizes rounded down).

    The gradient goes to the first largest element of a window, in row order.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.kernel_size = sizes("MaxPool2d", "kernel_size", kernel_size, 2, 1)
        self.stride = self.kernel_size if stride is None else sizes("MaxPool2d", "stride", stride, 2, 1)
        self.padding = sizes("MaxPool2d", "padding", padding, 2, 0)
        if any(2 * p > k for p, k in zip(self.padding, self.kernel_size, strict=True)):
            raise InputError(f"MaxPool2d: padding {self.padding} is more than half the kernel {self.kernel_size}")

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            raise InputError("needs (channels, height, width)")
        out = []
        for axis in range(2):
            padded = input_shape[1 + axis] + 2 * self.padding[axis]
            if padded < self.kernel_size[axis]:
                raise InputError(f"the window {self.kernel_size} is larger than the padded image")
            out.append((padded - self.kernel_size[axis]) // self.stride[axis] + 1)
        return (input_shape[0], out[0], out[1])

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        pads = ((0, 0), (0, 0), *((p, p) for p in self.padding))
        padded = np.pad(x, pads, constant_values=-np.inf)
        patches = windows(padded, self.kernel_size, self.stride)
        patches = patches.reshape(*patches.shape[:2], -1, *patches.shape[-2:])
        choice = patches.argmax(axis=2)
        context.saved["choice"] = choice
        return np.take_along_axis(patches, choice[:, :, None], axis=2)[:, :, 0]

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        (pad_y, pad_x), (height, width) = self.padding, x.shape[2:]
        grad_padded = np.zeros((*x.shape[:2], height + 2 * pad_y, width + 2 * pad_x), dtype=np.float32)
        target = windows(grad_padded, self.kernel_size, self.stride)
        choice = context.saved["choice"]
        for place, (ky, kx) in enumerate(np.ndindex(*self.kernel_size)):
            target[:, :, ky, kx] += np.where(choice == place, grad_y, np.float32(0))
        return grad_padded[:, :, pad_y : pad_y + height, pad_x : pad_x + width]
