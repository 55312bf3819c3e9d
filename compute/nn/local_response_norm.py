"""Local response normalization, across channels and within them."""

from __future__ import annotations

import numpy as np

from compute.errors import InputError
from compute.nn.layer import Array, Arrayed, LayerContext, UnaryLayer
from compute.nn.module import positive
from compute.spec import Shape


class ResponseNorm(UnaryLayer):
    """Base of the two: y = x / (k + alpha * mean of x^2 over a window)^beta, x being 0 outside."""

    def __init__(self, size: int, alpha: float, beta: float, k: float, name: str | None) -> None:
        super().__init__(name)
        positive(self.kind, size=size)
        if not k >= 0 or not alpha >= 0:
            raise InputError(f"{self.kind}: alpha and k must not be negative, got {alpha!r} and {k!r}")
        self.size, self.alpha, self.beta, self.k = size, float(alpha), float(beta), float(k)

    def window_mean(self, x: Array, before: int, after: int) -> Array:
        """Mean over the window around each element, `before` elements back to `after` elements on."""
        raise NotImplementedError

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        base = self.window_mean(x * x, self.size // 2, (self.size - 1) // 2)
        base *= np.float32(self.alpha)
        base += np.float32(self.k)
        context.saved["base"] = base
        y: Array = x * base ** np.float32(-self.beta)
        return y

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        base = context.saved["base"]
        power = base ** np.float32(-self.beta)
        # x reaches the outputs in whose windows it lies: the window turned around.
        spread = self.window_mean(grad_y * x * power / base, (self.size - 1) // 2, self.size // 2)
        spread *= x
        spread *= np.float32(-2 * self.alpha * self.beta)
        spread += grad_y * power
        return spread


class LocalResponseNorm(ResponseNorm):
    """y = x / (k + alpha / size * sum of x^2 over `size` channels around its own)^beta, as torch.nn.LocalResponseNorm.

    Samples (channels, ...). Of an even `size`, the one more lies before. BigDL's SpatialCrossMapLRN.
    Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks (2012), section 3.3.
    """

    def __init__(
        self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, name: str | None = None
    ) -> None:
        super().__init__(size, alpha, beta, k, name)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) < 1:
            raise InputError("needs (channels, ...)")
        return input_shape

    def window_mean(self, x: Array, before: int, after: int) -> Array:
        return _window_sum(x, 1, before, after) / np.float32(self.size)


class WithinChannelLRN(ResponseNorm):
    """y = x / (1 + alpha / size^2 * sum of x^2 over the size x size square around it)^beta.

    Samples (channels, height, width); `size` is odd. BigDL's SpatialWithinChannelLRN, Caffe's WITHIN_CHANNEL.
    """

    def __init__(self, size: int = 5, alpha: float = 1.0, beta: float = 0.75, name: str | None = None) -> None:
        super().__init__(size, alpha, beta, 1.0, name)
        if size % 2 == 0:
            raise InputError(f"WithinChannelLRN: size must be odd, got {size}")

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            raise InputError("needs (channels, height, width)")
        return input_shape

    def window_mean(self, x: Array, before: int, after: int) -> Array:
        return _window_sum(_window_sum(x, 2, before, after), 3, before, after) / np.float32(self.size**2)


def _window_sum(x: Array, axis: int, before: int, after: int) -> Array:
    """Sum of the elements from `before` back to `after` on along an axis, those outside being 0."""
    total = x.copy()
    by_axis, source = np.moveaxis(total, axis, 0), np.moveaxis(x, axis, 0)
    size = len(source)
    for shift in range(1, min(before, size - 1) + 1):
        by_axis[shift:] += source[:-shift]
    for shift in range(1, min(after, size - 1) + 1):
        by_axis[:-shift] += source[shift:]
    return total
