"""Transforms that cover parts of an image, or put it on a larger ground."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.data.image import ImageTransform, Size, each, in_range, size_pair
from compute.data.items import item_array
from compute.errors import InputError


class fill(ImageTransform):
    """Fills one rectangle of every image with `value` (BigDL's Filler).

    Args:
        top, left, bottom, right: edges as shares of height and width, 0..1.
        value: in the units of the pixels as they come.
    """

    def __init__(self, top: float, left: float, bottom: float, right: float, value: float = 255) -> None:
        self.box = tuple(in_range("fill", "an edge", edge, 0, 1) for edge in (top, left, bottom, right))
        if top >= bottom or left >= right:
            raise InputError(f"fill: the rectangle is empty: top {top}, left {left}, bottom {bottom}, right {right}")
        self.value = value

    def change(self, x: Any, stream: Any) -> Any:
        return each(x, self._fill)

    def _fill(self, x: NDArray[Any]) -> NDArray[Any]:
        height, width = x.shape[2:]
        top, left, bottom, right = self.box
        out = x.copy()
        out[:, :, round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = self.value
        return out


class cutout(ImageTransform):
    """Fills a random rectangle of each image, whose centre may be any pixel (DeVries and Taylor, 2017).

    Args:
        size: (height, width) of the rectangle, or one number for both; it is cut at the edges.
        value: in the units of the pixels as they come.
    """

    random = True

    def __init__(self, size: Size, value: float = 0) -> None:
        self.size = size_pair("cutout", size)
        self.value = value

    def change(self, x: Any, stream: Any) -> Any:
        high, wide = self.size
        centers = stream.uniform64((len(x), 2)).tolist()
        out = item_array(image.copy() for image in x) if x.dtype == object else x.copy()
        for image, (y_u, x_u) in zip(out, centers, strict=True):
            top = int(y_u * image.shape[1]) - high // 2
            left = int(x_u * image.shape[2]) - wide // 2
            image[:, max(top, 0) : max(top + high, 0), max(left, 0) : max(left + wide, 0)] = self.value
        return out


class random_expand(ImageTransform):
    """Puts each image at a random place on a ground that is 1 to `max_ratio` times as high and wide (Liu et al., 2016).

    The sizes then differ: append `resize((height, width))` or a crop.

    Args:
        max_ratio: at least 1.
        value: of the ground, a number or one per channel, in the units of the pixels as they come.
        p: probability with which an image is expanded at all.
    """

    random = True

    def __init__(self, max_ratio: float = 4.0, value: float | Sequence[float] = 0, p: float = 1.0) -> None:
        self.max_ratio = in_range("random_expand", "max_ratio", max_ratio, 1)
        self.value = np.atleast_1d(np.asarray(value))
        self.p = in_range("random_expand", "p", p, 0, 1)

    def image_spec(self, channels: int, height: int, width: int) -> None:
        self.items_spec(channels)

    def items_spec(self, channels: int) -> int:
        if self.value.shape not in ((1,), (channels,)):
            raise InputError(f"random_expand has {self.value.size} values, the images {channels} channels")
        return channels

    def change(self, x: Any, stream: Any) -> Any:
        draws = stream.uniform64((len(x), 4)).tolist()
        return item_array(self._expand(image, *draw) for image, draw in zip(x, draws, strict=True))

    def _expand(self, image: NDArray[Any], p_u: float, ratio_u: float, top_u: float, left_u: float) -> NDArray[Any]:
        if p_u >= self.p:
            return image
        channels, height, width = image.shape
        ratio = 1 + ratio_u * (self.max_ratio - 1)
        high, wide = int(height * ratio), int(width * ratio)
        top, left = int(top_u * (high - height + 1)), int(left_u * (wide - width + 1))
        ground = np.empty((channels, high, wide), dtype=image.dtype)
        ground[:] = self.value.reshape(-1, 1, 1)
        ground[:, top : top + height, left : left + width] = image
        return ground
