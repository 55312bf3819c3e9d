"""Convolution."""

from __future__ import annotations

from compute.errors import InputError
from compute.nn.init import FanIn, Initializer
from compute.nn.module import Module, Parameter, Shape, pair, positive


class Conv2d(Module):
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
        self.kernel_size = pair("Conv2d", "kernel_size", kernel_size, 1)
        self.stride = pair("Conv2d", "stride", stride, 1)
        self.padding = pair("Conv2d", "padding", padding, 0)
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
