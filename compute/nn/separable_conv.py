"""Separable convolution."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from compute.nn.container import join
from compute.nn.conv import Conv2d
from compute.nn.init import Initializer
from compute.nn.module import Activity, Builder, Module, positive


class SeparableConv2d(Module):
    """Convolves each channel of (in_channels, height, width) samples by itself, then mixes them by a 1x1 convolution.

    Made of Conv2d(in_channels, in_channels * depth_multiplier, kernel_size, groups=in_channels, bias=False), named
    "depthwise", and Conv2d(in_channels * depth_multiplier, out_channels, 1), named "pointwise". BigDL's
    SpatialSeparableConvolution; Chollet, Xception (2016).

    Args:
        stride, padding, dilation: of the depthwise convolution.
        bias: of the pointwise convolution.
        depthwise_init, pointwise_init: of the weights.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] | Literal["same", "valid"] = 0,
        dilation: int | tuple[int, ...] = 1,
        depth_multiplier: int = 1,
        bias: bool = True,
        depthwise_init: Initializer | None = None,
        pointwise_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        positive(self.kind, in_channels=in_channels, out_channels=out_channels, depth_multiplier=depth_multiplier)
        middle = in_channels * depth_multiplier
        self.depthwise = Conv2d(
            in_channels,
            middle,
            kernel_size,
            stride,
            padding,
            dilation,
            groups=in_channels,
            bias=False,
            weight_init=depthwise_init,
            name="depthwise",
        )
        self.pointwise = Conv2d(
            middle, out_channels, 1, bias=bias, weight_init=pointwise_init, bias_init=bias_init, name="pointwise"
        )

    def children(self) -> Iterator[Module]:
        yield self.depthwise
        yield self.pointwise

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        middle = self.depthwise.build(builder, sources, join(path, "depthwise"))
        return self.pointwise.build(builder, middle, join(path, "pointwise"))
