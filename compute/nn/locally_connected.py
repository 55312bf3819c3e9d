"""Locally connected layers: convolutions whose weights differ from place to place."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from compute.errors import InputError
from compute.nn.init import FanIn, Initializer
from compute.nn.layer import Array, Arrayed, LayerContext
from compute.nn.module import Parameter, positive, sizes
from compute.nn.spatial import Spatial
from compute.nn.window import Window
from compute.spec import Shape


class LocallyConnected(Spatial):
    """Base of LocallyConnected1d and LocallyConnected2d."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        bias: bool = True,
        weight_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        positive(self.kind, in_channels=in_channels, out_channels=out_channels)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = sizes(self.kind, "kernel_size", kernel_size, self.rank, 1)
        self.stride = sizes(self.kind, "stride", stride, self.rank, 1)
        self.padding = sizes(self.kind, "padding", padding, self.rank, 0)
        self.window = Window(self.kernel_size, self.stride, self.padding, (1,) * self.rank)
        self.bias = bias
        default = FanIn(in_channels * math.prod(self.kernel_size))
        self.weight_init = weight_init or default
        self.bias_init = bias_init or default

    def output_shape(self, input_shape: Shape) -> Shape:
        out = self.window.count(self.check(input_shape, self.in_channels), self.padding)
        if min(out) < 1:
            raise InputError(f"the kernel {self.kernel_size} is larger than the padded image")
        return (self.out_channels, *out)

    def parameters(self, input_shape: Shape) -> list[Parameter]:
        outputs, *out = self.output_shape(input_shape)
        weight = Parameter("weight", (*out, outputs, self.in_channels, *self.kernel_size), self.weight_init)
        if not self.bias:
            return [weight]
        return [weight, Parameter("bias", (outputs, *out), self.bias_init)]

    def _columns(self, x: Array, out: Shape) -> Array:
        """Windows as (places, in_channels * elements of the kernel, n)."""
        view = self.window.view(self.window.pad(x, out), out)  # (n, C, *kernel, *out)
        places = range(2 + self.rank, 2 + 2 * self.rank)
        columns = np.ascontiguousarray(view.transpose(*places, *range(1, 2 + self.rank), 0))
        return columns.reshape(math.prod(out), -1, len(x))

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        out = self.output_shape(x.shape[1:])[1:]
        weight = parameters["weight"].reshape(math.prod(out), self.out_channels, -1)
        product = np.matmul(weight, self._columns(x, out))  # (places, O, n)
        y = np.ascontiguousarray(product.transpose(2, 1, 0)).reshape(len(x), self.out_channels, *out)
        if self.bias:
            y += parameters["bias"]
        return y

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        out = y.shape[2:]
        places, n = math.prod(out), len(x)
        if self.bias:
            gradients["bias"] += grad_y.sum(axis=0)
        grad = np.ascontiguousarray(grad_y.reshape(n, self.out_channels, places).transpose(2, 1, 0))
        weight = parameters["weight"].reshape(places, self.out_channels, -1)
        grad_weight = np.matmul(grad, self._columns(x, out).swapaxes(1, 2))
        gradients["weight"] += grad_weight.reshape(gradients["weight"].shape)
        columns = np.matmul(weight.swapaxes(1, 2), grad).reshape(*out, self.in_channels, *self.kernel_size, n)
        padded = np.zeros((n, self.in_channels, *self.window.padded_size(x.shape[2:], out)), dtype=np.float32)
        target = self.window.view(padded, out)
        for element in np.ndindex(*self.kernel_size):
            source = columns[(..., *element, slice(None))]  # (*out, C, n)
            target[(slice(None), slice(None), *element)] += np.moveaxis(source, (-1, -2), (0, 1))
        return self.window.crop(padded, x.shape[2:])


_DOC = """ samples whose weights differ from place to place.

    y[o, p..] = bias[o, p..] + sum over c, k.. of weight[p.., o, c, k..] * x[c, p * stride + k - padding ..]

    Output: (out_channels, *out), out = floor((size + 2 padding - kernel_size) / stride) + 1.
    Parameters: `weight` (*out, out_channels, in_channels, *kernel_size), `bias` (out_channels, *out) unless bias=False.
    Both start uniform in +-1/sqrt(in_channels * elements of the kernel). BigDL's and Keras'.
    """


class LocallyConnected1d(LocallyConnected):
    __doc__ = "A convolution of (in_channels, length)" + _DOC
    rank: ClassVar[int] = 1


class LocallyConnected2d(LocallyConnected):
    __doc__ = "A convolution of (in_channels, height, width)" + _DOC
    rank: ClassVar[int] = 2
