"""Transposed convolutions."""

from __future__ import annotations

from typing import ClassVar

from compute.errors import InputError
from compute.nn.conv import Kernels, channel_sums
from compute.nn.convolution import convolve, convolve_grad_input, convolve_grad_weight
from compute.nn.init import Initializer
from compute.nn.layer import Array, Arrayed, LayerContext
from compute.nn.module import sizes
from compute.nn.window import Window
from compute.spec import Shape


class TransposedConvolution(Kernels):
    """Base of ConvTranspose1d, ConvTranspose2d and ConvTranspose3d."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        output_padding: int | tuple[int, ...] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int, ...] = 1,
        weight_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, dilation, groups, bias, weight_init, bias_init, name
        )
        self.padding = sizes(self.kind, "padding", padding, self.rank, 0)
        self.output_padding = sizes(self.kind, "output_padding", output_padding, self.rank, 0)
        limits = zip(self.output_padding, self.stride, self.dilation, strict=True)
        if any(extra >= max(s, d) for extra, s, d in limits):
            raise InputError(
                f"{self.kind}: output_padding must be smaller than stride or dilation, got {self.output_padding}"
            )
        self.window = Window(self.kernel_size, self.stride, self.padding, self.dilation)

    @property
    def weight_shape(self) -> Shape:
        return (self.in_channels, self.out_channels // self.groups, *self.kernel_size)

    def output_shape(self, input_shape: Shape) -> Shape:
        size = self.check(input_shape, self.in_channels)
        out = tuple(
            (n - 1) * stride - 2 * pad + span + extra
            for n, stride, pad, span, extra in zip(
                size, self.stride, self.padding, self.window.span, self.output_padding, strict=True
            )
        )
        if min(out) < 1:
            raise InputError(f"nothing is left of the output {out} after its padding {self.padding} is cut off")
        return (self.out_channels, *out)

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        size = self.output_shape(x.shape[1:])[1:]
        y = convolve_grad_input(x, parameters["weight"], self.window, self.groups, size)
        if self.bias:
            y += parameters["bias"].reshape(-1, *(1,) * self.rank)
        return y

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array | None:
        gradients["weight"] += convolve_grad_weight(grad_y, x, self.window, self.groups)
        if self.bias:
            gradients["bias"] += channel_sums(grad_y)
        if not context.needed[0]:
            return None
        return convolve(grad_y, parameters["weight"], self.window, self.groups, x.shape[2:])


_DOC = """ samples, as in torch.nn; BigDL's full convolution.

    The gradient of a convolution for its input: y[o, p * stride + k * dilation - padding ..] gets bias[o] and, from
    every c of o's group, p and k, weight[c, o, k..] * x[c, p..].

    Output: (out_channels, *out), out = (size - 1) stride - 2 padding + dilation (kernel_size - 1) + output_padding + 1.
    Parameters: `weight` (in_channels, out_channels / groups, *kernel_size), `bias` (out_channels,) unless bias=False.
    Both start uniform in +-1/sqrt(out_channels / groups * elements of the kernel).

    Args:
        kernel_size, stride, dilation: one number or one for each dimension.
        padding: how much is cut off the output at both sides, likewise.
        output_padding: how much longer the output is at its end, less than stride or dilation.
        groups: output channels of group g see only the input channels of group g.
    """


class ConvTranspose1d(TransposedConvolution):
    __doc__ = "Transposed convolution of (in_channels, length)" + _DOC
    rank: ClassVar[int] = 1


class ConvTranspose2d(TransposedConvolution):
    __doc__ = "Transposed convolution of (in_channels, height, width)" + _DOC
    rank: ClassVar[int] = 2


class ConvTranspose3d(TransposedConvolution):
    __doc__ = "Transposed convolution of (in_channels, depth, height, width)" + _DOC
    rank: ClassVar[int] = 3
