"""Random changes of colour. They take bytes, or floats between 0 and 1, and give float32 between 0 and 1.

Put them before `normalize`. Every image draws its own numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.data.image import ImageTransform, each, in_range, interval, unit_floats
from compute.data.items import IMAGES, Items, Spec, is_items
from compute.data.pixels import GREY_WEIGHTS, weighted_channels
from compute.errors import InputError
from compute.spec import TensorSpec

Floats = NDArray[np.float32]

# Principal components of ImageNet's RGB pixels between 0 and 1 (Krizhevsky et al., 2012; values of fb.resnet.torch).
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


class _Colors(ImageTransform):
    """Base: draws a row of numbers per image, then changes images (n, 3, height, width) in float32."""

    random = True

    def output_spec(self, spec: Spec) -> Spec:
        changed = super().output_spec(spec)
        if changed.shape[0] != 3:
            raise InputError(f"{type(self).__name__} takes images of 3 channels, red, green, blue; these are {spec}")
        return Items(IMAGES, "float32", changed.shape) if isinstance(changed, Items) else TensorSpec(changed.shape)

    def change(self, x: Any, stream: Any) -> Any:
        drawn = self.draw(len(x), stream)
        if is_items(x):
            rows = iter(drawn)
            return each(x, lambda image: self.recolor(unit_floats(image), next(rows)[None]))
        return self.recolor(unit_floats(x), drawn)

    def draw(self, count: int, stream: Any) -> NDArray[np.float64]:
        """Random numbers, float64 (count, k)."""
        raise NotImplementedError

    def recolor(self, x: Floats, drawn: NDArray[np.float64]) -> Floats:
        """The changed images; x may be overwritten."""
        raise NotImplementedError


class color_jitter(_Colors):
    """Random brightness, contrast and saturation, in an order drawn for every image.

    brightness: f x;  contrast: f x + (1 - f) mean of the image's luma;  saturation: f x + (1 - f) luma of the pixel;
    each then cut to 0..1. The factor f is uniform in [1 - d, 1 + d], not below 0, for a number d, in [low, high] for a
    pair; 0 leaves the property alone.

    Args:
        brightness, contrast, saturation: a number or a pair each. BigDL's are 0.4.
    """

    def __init__(
        self,
        brightness: float | Sequence[float] = 0.4,
        contrast: float | Sequence[float] = 0.4,
        saturation: float | Sequence[float] = 0.4,
    ) -> None:
        self.ranges = [
            interval("color_jitter", name, value)
            for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation))
        ]

    def draw(self, count: int, stream: Any) -> NDArray[np.float64]:
        drawn: NDArray[np.float64] = stream.uniform64((count, 6))
        low, high = np.array(self.ranges).T
        drawn[:, :3] = low + drawn[:, :3] * (high - low)
        drawn[:, 3:] = np.argsort(drawn[:, 3:], axis=1, kind="stable")
        return drawn

    def recolor(self, x: Floats, drawn: NDArray[np.float64]) -> Floats:
        for place in range(3):
            for what, (low, high) in enumerate(self.ranges):
                rows = np.flatnonzero(drawn[:, 3 + place] == what)
                if len(rows) and not low == high == 1:
                    factor = drawn[rows, what].astype(np.float32).reshape(-1, 1, 1, 1)
                    x[rows] = _jitter(x[rows], what, factor)
        return x


def _jitter(x: Floats, what: int, factor: Floats) -> Floats:
    luma = weighted_channels(x, GREY_WEIGHTS) if what else None
    x *= factor
    if luma is not None:
        x += (1 - factor) * (luma.mean(axis=(1, 2, 3), keepdims=True) if what == 1 else luma)
    return np.clip(x, 0, 1, out=x)


class hue(_Colors):
    """Turns the hue of each image by a random angle in [-delta, delta]; 0.5 is half the circle of colours."""

    def __init__(self, delta: float = 0.1) -> None:
        self.delta = in_range("hue", "delta", delta, 0, 0.5)

    def draw(self, count: int, stream: Any) -> NDArray[np.float64]:
        drawn: NDArray[np.float64] = (2 * stream.uniform64((count, 1)) - 1) * self.delta
        return drawn

    def recolor(self, x: Floats, drawn: NDArray[np.float64]) -> Floats:
        return turn_hue(x, drawn.astype(np.float32).reshape(-1, 1, 1))


def turn_hue(x: Floats, turn: Floats) -> Floats:
    """RGB (n, 3, height, width) in 0..1 with the HSV hue turned by `turn` circles; saturation and value stay."""
    red, green, blue = x[:, 0], x[:, 1], x[:, 2]
    value, least = x.max(axis=1), x.min(axis=1)
    chroma = value - least
    safe = np.where(chroma == 0, np.float32(1), chroma)
    sector = np.where(
        value == red,
        (green - blue) / safe,
        np.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    angle = np.mod(sector + 6 * turn, np.float32(6))
    # HSV to RGB without cases: channel n = value - chroma * clip(min(k, 4 - k), 0, 1), k = (n + angle) mod 6.
    out = np.empty_like(x)
    for channel, offset in enumerate((5, 3, 1)):
        k = np.mod(angle + offset, np.float32(6))
        out[:, channel] = value - chroma * np.clip(np.minimum(k, 4 - k), 0, 1)
    return out


class lighting(_Colors):
    """Noise along the principal components of ImageNet's colours (Krizhevsky et al., 2012, section 4.1).

    To every pixel of an image is added sum_k a_k eigenvalue_k eigenvector_k, a_k normal with standard deviation `std`.
    The result is not cut to 0..1.
    """

    def __init__(self, std: float = 0.1) -> None:
        self.std = in_range("lighting", "std", std, 0)

    def draw(self, count: int, stream: Any) -> NDArray[np.float64]:
        # The inverse distribution function; half a step above 0, where it is infinite.
        from scipy.special import ndtri  # here, since it costs every process 0.2 s and 40 MB

        drawn: NDArray[np.float64] = self.std * ndtri(stream.uniform64((count, 3)) + 2.0**-54)
        return drawn

    def recolor(self, x: Floats, drawn: NDArray[np.float64]) -> Floats:
        shift = (drawn * np.array(EIGENVALUES)) @ np.array(EIGENVECTORS).T
        x += shift.astype(np.float32).reshape(-1, 3, 1, 1)
        return x
