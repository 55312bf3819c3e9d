"""Convolutions."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from compute.errors import InputError
from compute.nn.convolution import convolve, convolve_grad_input, convolve_grad_weight
from compute.nn.init import FanIn, Initializer
from compute.nn.layer import Array, Arrayed, LayerContext
from compute.nn.module import Parameter, positive, sizes
from compute.nn.spatial import Spatial
from compute.nn.window import Window
from compute.spec import Shape


class Kernels(Spatial):
    """Base of convolutions and transposed ones: the arguments that both take, and their parameters."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...],
        dilation: int | tuple[int, ...],
        groups: int,
        bias: bool,
        weight_init: Initializer | None,
        bias_init: Initializer | None,
        name: str | None,
    ) -> None:
        super().__init__(name)
        positive(self.kind, in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise InputError(
                f"{self.kind}: groups must divide in_channels and out_channels, got {groups} for {in_channels} and "
                f"{out_channels}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.groups = groups
        self.kernel_size = sizes(self.kind, "kernel_size", kernel_size, self.rank, 1)
        self.stride = sizes(self.kind, "stride", stride, self.rank, 1)
        self.dilation = sizes(self.kind, "dilation", dilation, self.rank, 1)
        self.bias = bias
        default = FanIn(math.prod(self.weight_shape[1:]))
        self.weight_init = weight_init or default
        self.bias_init = bias_init or default

    @property
    def weight_shape(self) -> Shape:
        """Of the parameter `weight`."""
        raise NotImplementedError

    def parameters(self, input_shape: Shape) -> list[Parameter]:
        weight = Parameter("weight", self.weight_shape, self.weight_init)
        if not self.bias:
            return [weight]
        return [weight, Parameter("bias", (self.out_channels,), self.bias_init)]


class Convolution(Kernels):
    """Base of Conv1d, Conv2d and Conv3d."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] | Literal["same", "valid"] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        weight_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, dilation, groups, bias, weight_init, bias_init, name
        )
        self.padding, self.padding_end = self._paddings(padding)
        self.window = Window(self.kernel_size, self.stride, self.padding, self.dilation)

    @property
    def weight_shape(self) -> Shape:
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    def _paddings(self, padding: int | tuple[int, ...] | str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise InputError(f'{self.kind}: padding must be numbers, "same" or "valid", got {padding!r}')
            if padding == "same" and any(s != 1 for s in self.stride):
                raise InputError(f'{self.kind}: padding "same" needs stride 1, got {self.stride}')
            spans = zip(self.dilation, self.kernel_size, strict=True)
            total = [d * (k - 1) if padding == "same" else 0 for d, k in spans]
            return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
        both = sizes(self.kind, "padding", padding, self.rank, 0)
        return both, both

    def output_shape(self, input_shape: Shape) -> Shape:
        out = self.window.count(self.check(input_shape, self.in_channels), self.padding_end)
        if min(out) < 1:
            raise InputError(f"the kernel {self.window.span} is larger than the padded image")
        return (self.out_channels, *out)

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        out = self.output_shape(x.shape[1:])[1:]
        y = convolve(x, parameters["weight"], self.window, self.groups, out)
        if self.bias:
            y += parameters["bias"].reshape(-1, *(1,) * self.rank)
        return y

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array | None:
        gradients["weight"] += convolve_grad_weight(x, grad_y, self.window, self.groups)
        if self.bias:
            gradients["bias"] += channel_sums(grad_y)
        if not context.needed[0]:
            return None
        return convolve_grad_input(grad_y, parameters["weight"], self.window, self.groups, x.shape[2:])


_DOC = """ samples, as in torch.nn.

    y[o, p..] = bias[o] + sum over c, k.. of weight[o, c, k..] * x[c, p * stride + k * dilation - padding ..]

    Output: (out_channels, *out) with out = floor((size + 2 padding - dilation (kernel_size - 1) - 1) / stride) + 1.
    Parameters: `weight` (out_channels, in_channels / groups, *kernel_size), `bias` (out_channels,) unless bias=False.
    Both start uniform in +-1/sqrt(in_channels / groups * elements of the kernel).

    Args:
        kernel_size, stride, dilation: one number or one for each dimension.
        padding: zeros on both sides, likewise; "same" keeps the size (stride 1; of an odd number of zeros the one more
            is at the end), "valid" is 0.
        groups: output channels of group g see only the input channels of group g; in_channels makes it depthwise.

    Attributes:
        padding, padding_end: zeros before and behind each dimension; they differ only for "same".
    """


class Conv1d(Convolution):
    __doc__ = "Cross-correlation of (in_channels, length)" + _DOC
    rank: ClassVar[int] = 1


class Conv2d(Convolution):
    __doc__ = "Cross-correlation of (in_channels, height, width)" + _DOC
    rank: ClassVar[int] = 2


class Conv3d(Convolution):
    __doc__ = "Cross-correlation of (in_channels, depth, height, width)" + _DOC
    rank: ClassVar[int] = 3


def channel_sums(x: Array) -> Array:
    """Sums of (n, C, ...) per channel, float32 (C,): pairwise within a sample, in float64 over samples."""
    per_sample = x.reshape(*x.shape[:2], -1).sum(axis=2)
    sums: Array = per_sample.sum(axis=0, dtype="float64").astype("float32")
    return sums
