"""Pooling."""

from __future__ import annotations

from compute.errors import InputError
from compute.nn.module import Module, Shape, pair


class MaxPool2d(Module):
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
        self.kernel_size = pair("MaxPool2d", "kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else pair("MaxPool2d", "stride", stride, 1)
        self.padding = pair("MaxPool2d", "padding", padding, 0)
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
