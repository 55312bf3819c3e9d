"""Convolution by a table of connections between channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from compute.errors import InputError
from compute.nn.conv import channel_sums
from compute.nn.convolution import convolve, convolve_grad_input, convolve_grad_weight
from compute.nn.init import FanIn, Initializer
from compute.nn.layer import Array, Arrayed, LayerContext
from compute.nn.module import Parameter, sizes
from compute.nn.spatial import Spatial
from compute.nn.window import Window
from compute.spec import Shape


class SpatialConvolutionMap(Spatial):
    """Convolution of (channels, height, width) samples in which a table says which channels are connected.

    y[o, p..] = bias[o] + sum over rows i = (c, o) of the table and k.. of
        weight[i, k..] * x[c, p * stride + k - padding ..]

    Parameters: `weight` (rows, kernel height, kernel width), `bias` (out_channels,). Both start uniform in
    +-1/sqrt(connections per output channel * elements of the kernel). BigDL's and Torch's SpatialConvolutionMap, with
    channels from 0; LeCun et al., Gradient-Based Learning Applied to Document Recognition (1998), table I.

    Args:
        table: rows (input channel, output channel), from 0.
        in_channels, out_channels: those of the table by default.
    """

    rank: ClassVar[int] = 2

    def __init__(
        self,
        table: Sequence[tuple[int, int]],
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        in_channels: int | None = None,
        out_channels: int | None = None,
        weight_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.table = tuple(sizes(self.kind, "a row of the table", row, 2, 0) for row in table)
        if not self.table or len(set(self.table)) != len(self.table):
            raise InputError("SpatialConvolutionMap: the table must have rows, each once")
        self.in_channels = in_channels or 1 + max(c for c, _ in self.table)
        self.out_channels = out_channels or 1 + max(o for _, o in self.table)
        if any(c >= self.in_channels or o >= self.out_channels for c, o in self.table):
            raise InputError(
                f"SpatialConvolutionMap: the table names a channel beyond {self.in_channels} inputs and "
                f"{self.out_channels} outputs"
            )
        self.kernel_size = sizes(self.kind, "kernel_size", kernel_size, 2, 1)
        self.stride = sizes(self.kind, "stride", stride, 2, 1)
        self.padding = sizes(self.kind, "padding", padding, 2, 0)
        self.window = Window(self.kernel_size, self.stride, self.padding, (1, 1))
        connections = max(1, len(self.table) // self.out_channels)
        default = FanIn(connections * self.kernel_size[0] * self.kernel_size[1])
        self.weight_init = weight_init or default
        self.bias_init = bias_init or default

    @staticmethod
    def full(in_channels: int, out_channels: int) -> tuple[tuple[int, int], ...]:
        """The table that connects all with all."""
        return tuple((c, o) for o in range(out_channels) for c in range(in_channels))

    @staticmethod
    def one_to_one(channels: int) -> tuple[tuple[int, int], ...]:
        """The table that connects each channel with itself."""
        return tuple((c, c) for c in range(channels))

    def output_shape(self, input_shape: Shape) -> Shape:
        out = self.window.count(self.check(input_shape, self.in_channels), self.padding)
        if min(out) < 1:
            raise InputError(f"the kernel {self.kernel_size} is larger than the padded image")
        return (self.out_channels, *out)

    def parameters(self, input_shape: Shape) -> list[Parameter]:
        return [
            Parameter("weight", (len(self.table), *self.kernel_size), self.weight_init),
            Parameter("bias", (self.out_channels,), self.bias_init),
        ]

    def _dense(self, weight: Array) -> Array:
        """The weight of a full convolution, 0 where nothing is connected."""
        dense = np.zeros((self.out_channels, self.in_channels, *self.kernel_size), dtype=np.float32)
        inputs, outputs = zip(*self.table, strict=True)
        dense[list(outputs), list(inputs)] = weight
        return dense

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        out = self.output_shape(x.shape[1:])[1:]
        y = convolve(x, self._dense(parameters["weight"]), self.window, 1, out)
        y += parameters["bias"][:, None, None]
        return y

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        inputs, outputs = zip(*self.table, strict=True)
        gradients["weight"] += convolve_grad_weight(x, grad_y, self.window, 1)[list(outputs), list(inputs)]
        gradients["bias"] += channel_sums(grad_y)
        return convolve_grad_input(grad_y, self._dense(parameters["weight"]), self.window, 1, x.shape[2:])
