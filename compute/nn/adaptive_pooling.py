"""Adaptive and global pooling: the output's size is given, the windows follow from it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.axis_map import AxisMapped
from compute.nn.container import join
from compute.nn.layer import Array, Arrayed, LayerContext
from compute.nn.module import Activity, Builder, Module
from compute.nn.reshape import Flatten
from compute.nn.spatial import Spatial
from compute.spec import Shape


class AdaptivePool(Spatial):
    """Base of adaptive pooling."""

    def __init__(self, output_size: int | tuple[int | None, ...] | None, name: str | None = None) -> None:
        super().__init__(name)
        several = tuple(output_size) if isinstance(output_size, tuple | list) else (output_size,) * self.rank
        if len(several) != self.rank or any(
            s is not None and (isinstance(s, bool) or not isinstance(s, int) or s < 1) for s in several
        ):
            raise InputError(
                f"{self.kind}: output_size must be one or {self.rank} whole numbers of at least 1 "
                f"(None keeps a size), got {output_size!r}"
            )
        self.output_size: tuple[int | None, ...] = several

    def output_shape(self, input_shape: Shape) -> Shape:
        size = self.check(input_shape)
        return (input_shape[0], *(n if o is None else o for n, o in zip(size, self.output_size, strict=True)))

    def bins(self, axis: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First element of each bin along a spatial dimension, and the one behind its last."""
        out = self.output_size[axis] or size
        index = np.arange(out)
        return index * size // out, -(-(index + 1) * size // out)


class AdaptiveAvgPool(AdaptivePool, AxisMapped):
    """Base of AdaptiveAvgPool1d, AdaptiveAvgPool2d and AdaptiveAvgPool3d."""

    def matrix(self, axis: int, size: int) -> Array | None:
        start, end = self.bins(axis, size)
        if len(start) == size:
            return None
        element = np.arange(size)
        inside = (element >= start[:, None]) & (element < end[:, None])
        return (inside / (end - start)[:, None]).astype(np.float32)


class AdaptiveMaxPool(AdaptivePool):
    """Base of AdaptiveMaxPool1d, AdaptiveMaxPool2d and AdaptiveMaxPool3d."""

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        # The largest of the rows' largest; from the last dimension on, so that the first in row order wins.
        y, choices = x, []
        for axis in reversed(range(self.rank)):
            start, end = self.bins(axis, x.shape[2 + axis])
            element = start[:, None] + np.arange((end - start).max())
            element = np.minimum(element, end[:, None] - 1)  # shorter bins repeat their last one
            candidates = np.moveaxis(y, 2 + axis, -1)[..., element]
            choice = candidates.argmax(axis=-1)
            y = np.take_along_axis(candidates, choice[..., None], axis=-1)[..., 0]
            y = np.ascontiguousarray(np.moveaxis(y, -1, 2 + axis))
            choices.append(element[np.arange(len(start)), choice])
        context.saved["choices"] = choices
        return y

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        grad = grad_y
        for axis, choice in enumerate(reversed(context.saved["choices"])):
            by_bin = np.moveaxis(grad, 2 + axis, -1)
            size = x.shape[2 + axis]
            row = np.arange(by_bin[..., 0].size).reshape(*by_bin.shape[:-1], 1)
            spread = np.bincount((row * size + choice).ravel(), by_bin.ravel(), row.size * size)
            grad = np.moveaxis(spread.astype(np.float32).reshape(*by_bin.shape[:-1], size), -1, 2 + axis)
        return grad


class GlobalPool(Module):
    """Base of global pooling: (channels, *size) to (channels,)."""

    pool: ClassVar[type[AdaptivePool]]

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        pooled = builder.add(self.pool(1), sources, join(path, "pool"))
        return builder.add(Flatten(), pooled, join(path, "flatten"))


_DOC = """ samples, as in torch.nn.

    Output element i of a dimension pools the input's elements floor(i size / out) to ceil((i + 1) size / out) - 1;
    where out does not divide the size, bins overlap. The gradient of a maximum goes to the first largest element.

    Args:
        output_size: one number or one for each dimension; None keeps a dimension's size.
    """


class AdaptiveAvgPool1d(AdaptiveAvgPool):
    __doc__ = "Mean over bins of (channels, length)" + _DOC
    rank: ClassVar[int] = 1


class AdaptiveAvgPool2d(AdaptiveAvgPool):
    __doc__ = "Mean over bins of (channels, height, width)" + _DOC
    rank: ClassVar[int] = 2


class AdaptiveAvgPool3d(AdaptiveAvgPool):
    __doc__ = "Mean over bins of (channels, depth, height, width)" + _DOC
    rank: ClassVar[int] = 3


class AdaptiveMaxPool1d(AdaptiveMaxPool):
    __doc__ = "Maximum over bins of (channels, length)" + _DOC
    rank: ClassVar[int] = 1


class AdaptiveMaxPool2d(AdaptiveMaxPool):
    __doc__ = "Maximum over bins of (channels, height, width)" + _DOC
    rank: ClassVar[int] = 2


class AdaptiveMaxPool3d(AdaptiveMaxPool):
    __doc__ = "Maximum over bins of (channels, depth, height, width)" + _DOC
    rank: ClassVar[int] = 3


class GlobalAvgPool1d(GlobalPool):
    """Mean of each channel: (channels, length) to (channels,); AdaptiveAvgPool1d(1), Flatten."""

    pool = AdaptiveAvgPool1d


class GlobalAvgPool2d(GlobalPool):
    """Mean of each channel: (channels, height, width) to (channels,); AdaptiveAvgPool2d(1), Flatten."""

    pool = AdaptiveAvgPool2d


class GlobalAvgPool3d(GlobalPool):
    """Mean of each channel: (channels, depth, height, width) to (channels,); AdaptiveAvgPool3d(1), Flatten."""

    pool = AdaptiveAvgPool3d


class GlobalMaxPool1d(GlobalPool):
    """Maximum of each channel: (channels, length) to (channels,); AdaptiveMaxPool1d(1), Flatten."""

    pool = AdaptiveMaxPool1d


class GlobalMaxPool2d(GlobalPool):
    """Maximum of each channel: (channels, height, width) to (channels,); AdaptiveMaxPool2d(1), Flatten."""

    pool = AdaptiveMaxPool2d


class GlobalMaxPool3d(GlobalPool):
    """Maximum of each channel: (channels, depth, height, width) to (channels,); AdaptiveMaxPool3d(1), Flatten."""

    pool = AdaptiveMaxPool3d
