"""Subtractive, divisive and contrastive normalization: by a weighted mean and deviation of the neighbourhood.

Jarrett et al., What is the Best Multi-Stage Architecture for Object Recognition? (2009), as in Torch and BigDL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from compute.errors import InputError
from compute.nn.container import join
from compute.nn.convolution import convolve, convolve_grad_input
from compute.nn.layer import Array, Arrayed, LayerContext
from compute.nn.module import Activity, Builder, Module, positive
from compute.nn.spatial import Spatial
from compute.nn.window import Window
from compute.spec import Shape

Kernel = Sequence[float] | Sequence[Sequence[float]]


class NeighbourhoodNorm(Spatial):
    """Base of the first two: weights and their sums at the borders."""

    rank: ClassVar[int] = 2

    def __init__(self, channels: int, kernel: Kernel | None, name: str | None) -> None:
        super().__init__(name)
        positive(self.kind, channels=channels)
        self.channels = channels
        weights = np.ones((9, 9)) if kernel is None else np.asarray(kernel, dtype=np.float64)
        weights = np.multiply.outer(weights, weights) if weights.ndim == 1 else weights
        if weights.ndim != 2 or any(size % 2 == 0 for size in weights.shape) or not weights.sum() > 0:
            raise InputError(
                f"{self.kind}: the kernel must be a vector or a matrix of odd sizes with a positive sum, "
                f"got shape {weights.shape}"
            )
        self._weights = (weights / (weights.sum() * channels)).astype(np.float32)[None, None]
        height, width = weights.shape
        self._window = Window((height, width), (1, 1), (height // 2, width // 2), (1, 1))

    def output_shape(self, input_shape: Shape) -> Shape:
        self.check(input_shape, self.channels)
        return input_shape

    def mean(self, x: Array) -> Array:
        """Weighted sum of all channels around each pixel, zeros outside, (n, 1, height, width)."""
        total = x.sum(axis=1, keepdims=True)
        return convolve(total, self._weights, self._window, 1, x.shape[2:])

    def mean_backward(self, grad: Array) -> Array:
        """The gradient of `mean` for each of the channels, (n, 1, height, width)."""
        return convolve_grad_input(grad, self._weights, self._window, 1, grad.shape[2:])

    def inside(self, size: Shape) -> Array:
        """`mean` of ones: how much of the kernel lies within the image, (1, 1, height, width)."""
        return self.mean(np.ones((1, self.channels, *size), dtype=np.float32))


class SpatialSubtractiveNormalization(NeighbourhoodNorm):
    """y = x - mean of its neighbourhood over all channels, for (channels, height, width) samples.

    mean = (kernel * x) / (kernel * 1), a weighted sum with zeros outside over that of ones.

    Args:
        kernel: weights, a matrix of odd sizes or a vector for both dimensions; 9 x 9 ones by default.
    """

    def __init__(self, channels: int = 1, kernel: Kernel | None = None, name: str | None = None) -> None:
        super().__init__(channels, kernel, name)

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        y: Array = x - self.mean(x) / self.inside(x.shape[2:])
        return y

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        total = grad_y.sum(axis=1, keepdims=True) / self.inside(x.shape[2:])
        grad: Array = grad_y - self.mean_backward(total)
        return grad


class SpatialDivisiveNormalization(NeighbourhoodNorm):
    """y = x / deviation of its neighbourhood over all channels, for (channels, height, width) samples.

    deviation = sqrt(kernel * x^2) / (kernel * 1), and `thresval` where that is not above `threshold`.

    Args:
        kernel: weights, a matrix of odd sizes or a vector for both dimensions; 9 x 9 ones by default.
    """

    def __init__(
        self,
        channels: int = 1,
        kernel: Kernel | None = None,
        threshold: float = 1e-4,
        thresval: float = 1e-4,
        name: str | None = None,
    ) -> None:
        super().__init__(channels, kernel, name)
        if not threshold >= 0 or not thresval > 0:
            raise InputError(f"{self.kind}: threshold must not be negative and thresval positive")
        self.threshold, self.thresval = float(threshold), float(thresval)

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        deviation = np.sqrt(np.maximum(self.mean(x * x), np.float32(0))) / self.inside(x.shape[2:])
        above = deviation > self.threshold
        divisor = np.where(above, deviation, np.float32(self.thresval))
        context.saved["divisor"], context.saved["above"] = divisor, above
        y: Array = (x / divisor).astype(np.float32, copy=False)
        return y

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        divisor, above = context.saved["divisor"], context.saved["above"]
        grad_divisor = -(grad_y * y).sum(axis=1, keepdims=True) / divisor
        # d deviation / d (kernel * x^2) = 1 / (2 deviation inside^2)
        slope = np.float32(0.5) / (divisor * self.inside(x.shape[2:]) ** 2)
        grad_square = np.asarray(np.where(above, grad_divisor * slope, np.float32(0)), dtype=np.float32)
        grad: Array = grad_y / divisor
        grad += 2 * x * self.mean_backward(grad_square)
        return grad


class SpatialContrastiveNormalization(Module):
    """SpatialSubtractiveNormalization, then SpatialDivisiveNormalization, with one kernel.

    For (channels, height, width) samples.
    """

    def __init__(
        self,
        channels: int = 1,
        kernel: Kernel | None = None,
        threshold: float = 1e-4,
        thresval: float = 1e-4,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.subtractive = SpatialSubtractiveNormalization(channels, kernel, name="subtractive")
        self.divisive = SpatialDivisiveNormalization(channels, kernel, threshold, thresval, name="divisive")

    def children(self) -> Iterator[Module]:
        yield self.subtractive
        yield self.divisive

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        middle = self.subtractive.build(builder, sources, join(path, "subtractive"))
        return self.divisive.build(builder, middle, join(path, "divisive"))
