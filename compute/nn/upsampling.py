"""Upsampling: nearest neighbours, bilinear interpolation, and channels to space."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from compute.errors import InputError
from compute.nn.axis_map import AxisMapped
from compute.nn.layer import Array, Arrayed, LayerContext
from compute.nn.module import positive, sizes
from compute.nn.spatial import Spatial
from compute.spec import Shape


class UpSampling(Spatial):
    """Base of UpSampling1d, UpSampling2d and UpSampling3d."""

    def __init__(self, size: int | tuple[int, ...] = 2, name: str | None = None) -> None:
        super().__init__(name)
        self.size = sizes(self.kind, "size", size, self.rank, 1)

    def output_shape(self, input_shape: Shape) -> Shape:
        pairs = zip(self.check(input_shape), self.size, strict=True)
        return (input_shape[0], *(n * factor for n, factor in pairs))

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        for axis, factor in enumerate(self.size, start=2):
            x = np.repeat(x, factor, axis=axis)
        return x

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        split: list[int] = []
        for n, factor in zip(x.shape[2:], self.size, strict=True):
            split += [n, factor]
        grad: Array = grad_y.reshape(*x.shape[:2], *split).sum(axis=tuple(range(3, 3 + 2 * self.rank, 2)))
        return grad


_DOC = """ samples: every element `size` times in each dimension.

    As torch.nn.Upsample(scale_factor=size, mode="nearest"); BigDL's and Keras' UpSampling.

    Args:
        size: one whole number or one for each dimension.
    """


class UpSampling1d(UpSampling):
    __doc__ = "Enlarges (channels, length)" + _DOC
    rank: ClassVar[int] = 1


class UpSampling2d(UpSampling):
    __doc__ = "Enlarges (channels, height, width)" + _DOC
    rank: ClassVar[int] = 2


class UpSampling3d(UpSampling):
    __doc__ = "Enlarges (channels, depth, height, width)" + _DOC
    rank: ClassVar[int] = 3


class ResizeBilinear(AxisMapped):
    """Resizes (channels, height, width) samples to (channels, output_height, output_width) by linear interpolation.

    As torch.nn.functional.interpolate(mode="bilinear"): an output pixel i lies at input position
        (i + 0.5) size / out - 0.5, not below 0, with half_pixel_centers,
        i (size - 1) / (out - 1)                 with align_corners: the corners' centres coincide,
        i size / out                             with neither, as BigDL's and TensorFlow 1's ResizeBilinear.
    """

    rank: ClassVar[int] = 2

    def __init__(
        self,
        output_height: int,
        output_width: int,
        align_corners: bool = False,
        half_pixel_centers: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        positive(self.kind, output_height=output_height, output_width=output_width)
        self.output_size = (output_height, output_width)
        self.align_corners = align_corners
        self.half_pixel_centers = half_pixel_centers

    def output_shape(self, input_shape: Shape) -> Shape:
        self.check(input_shape)
        return (input_shape[0], *self.output_size)

    def matrix(self, axis: int, size: int) -> Array | None:
        out = self.output_size[axis]
        if out == size:
            return None
        index = np.arange(out, dtype=np.float64)
        if self.align_corners:
            position = index * ((size - 1) / (out - 1) if out > 1 else 0.0)
        elif self.half_pixel_centers:
            position = np.maximum((index + 0.5) * (size / out) - 0.5, 0.0)
        else:
            position = index * (size / out)
        below = np.minimum(position.astype(np.int64), size - 1)
        above = np.minimum(below + 1, size - 1)
        share = position - below
        matrix = np.zeros((out, size))
        matrix[np.arange(out), below] += 1 - share
        matrix[np.arange(out), above] += share
        return matrix.astype(np.float32)


class PixelShuffle(Spatial):
    """(channels * factor^2, height, width) to (channels, height * factor, width * factor), as torch.nn.PixelShuffle.

    y[c, h * factor + i, w * factor + j] = x[(c * factor + i) * factor + j, h, w]. Shi et al., Real-Time Single Image
    and Video Super-Resolution (2016).
    """

    rank: ClassVar[int] = 2

    def __init__(self, upscale_factor: int, name: str | None = None) -> None:
        super().__init__(name)
        positive(self.kind, upscale_factor=upscale_factor)
        self.upscale_factor = upscale_factor

    def output_shape(self, input_shape: Shape) -> Shape:
        height, width = self.check(input_shape)
        factor = self.upscale_factor
        if input_shape[0] % factor**2:
            raise InputError(f"needs a multiple of {factor**2} channels")
        return (input_shape[0] // factor**2, height * factor, width * factor)

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        n, channels, height, width = x.shape
        factor = self.upscale_factor
        split = x.reshape(n, channels // factor**2, factor, factor, height, width)
        return split.transpose(0, 1, 4, 2, 5, 3).reshape(n, *self.output_shape(x.shape[1:]))

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        n, channels, height, width = x.shape
        factor = self.upscale_factor
        split = grad_y.reshape(n, channels // factor**2, height, factor, width, factor)
        return split.transpose(0, 1, 3, 5, 2, 4).reshape(x.shape)
