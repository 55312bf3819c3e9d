"""Transforms that move pixels: crops, flips, padding, resizing. Random ones draw for every image of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.data.image import ImageTransform, Size, each, in_range, interval, size_pair
from compute.data.items import is_items, item_array
from compute.data.resampling import resample
from compute.errors import InputError

_ATTEMPTS = 10


class center_crop(ImageTransform):
    """The middle of each image, `size` = (height, width) or one number for both."""

    def __init__(self, size: Size) -> None:
        self.size = size_pair("center_crop", size)

    def image_spec(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        _fits("center_crop", self.size, height, width)
        return (channels, *self.size)

    def items_spec(self, channels: int) -> tuple[int, int, int]:
        return (channels, *self.size)

    def change(self, x: Any, stream: Any) -> Any:
        return np.stack([self._crop(image) for image in x]) if is_items(x) else self._crop(x)

    def _crop(self, x: NDArray[Any]) -> NDArray[Any]:
        _fits("center_crop", self.size, *x.shape[-2:])
        top, left = (x.shape[-2] - self.size[0]) // 2, (x.shape[-1] - self.size[1]) // 2
        return x[..., top : top + self.size[0], left : left + self.size[1]]


class random_crop(ImageTransform):
    """A random part of each image, after a border of `padding` pixels of `value` was put around it.

    `random_crop(32, padding=4)` is the usual augmentation of CIFAR-10 (He et al., 2015, section 4.2).

    Args:
        size: (height, width), or one number for both.
        padding: pixels on every side.
        value: of the border, in the units of the pixels as they come.
    """

    random = True

    def __init__(self, size: Size, padding: int = 0, value: float = 0) -> None:
        self.size = size_pair("random_crop", size)
        self.padding = int(in_range("random_crop", "padding", padding, 0))
        self.value = value

    def image_spec(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        _fits("random_crop", self.size, height + 2 * self.padding, width + 2 * self.padding)
        return (channels, *self.size)

    def items_spec(self, channels: int) -> tuple[int, int, int]:
        return (channels, *self.size)

    def change(self, x: Any, stream: Any) -> Any:
        heights, widths = _sizes(x)
        high, wide = self.size
        first = x[0]
        # From the image's own corner: negative in the border.
        tops = _below(stream, heights + 2 * self.padding - high + 1) - self.padding
        lefts = _below(stream, widths + 2 * self.padding - wide + 1) - self.padding
        out = np.full((len(x), first.shape[0], high, wide), self.value, dtype=first.dtype)
        for image, target, top, left in zip(x, out, tops.tolist(), lefts.tolist(), strict=True):
            _fits("random_crop", self.size, image.shape[1] + 2 * self.padding, image.shape[2] + 2 * self.padding)
            y, z = max(top, 0), max(left, 0)
            part = image[:, y : max(top + high, 0), z : max(left + wide, 0)]
            target[:, y - top : y - top + part.shape[1], z - left : z - left + part.shape[2]] = part
        return out


class random_horizontal_flip(ImageTransform):
    """Each image mirrored left to right with probability p."""

    random = True

    def __init__(self, p: float = 0.5) -> None:
        self.p = in_range("random_horizontal_flip", "p", p, 0, 1)

    def change(self, x: Any, stream: Any) -> Any:
        flip = stream.uniform64(len(x)) < self.p
        if is_items(x):
            return item_array(image[..., ::-1] if mirrored else image for image, mirrored in zip(x, flip, strict=True))
        chosen = np.flatnonzero(flip)
        out = x.copy()
        out[chosen] = x[chosen][..., ::-1]
        return out


class pad_image(ImageTransform):
    """A border of `padding` pixels of `value` on every side.

    Args:
        padding: pixels, or (top, bottom, left, right).
        value: of the border, in the units of the pixels as they come.
    """

    def __init__(self, padding: int | Sequence[int], value: float = 0) -> None:
        sides = (padding,) * 4 if isinstance(padding, int | np.integer) else tuple(padding)
        if len(sides) != 4 or not all(isinstance(side, int | np.integer) and side >= 0 for side in sides):
            raise InputError(f"pad_image: padding is a number of pixels or (top, bottom, left, right), got {padding!r}")
        self.sides = tuple(int(side) for side in sides)
        self.value = value

    def image_spec(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        top, bottom, left, right = self.sides
        return channels, height + top + bottom, width + left + right

    def change(self, x: Any, stream: Any) -> Any:
        top, bottom, left, right = self.sides
        border = ((0, 0), (0, 0), (top, bottom), (left, right))
        return each(x, lambda images: np.pad(images, border, constant_values=self.value))


class resize(ImageTransform):
    """Images of another size, by bilinear interpolation with antialiasing, as Pillow's and torchvision's.

    Args:
        size: (height, width); or one number, which the shorter side becomes while the aspect stays.
    """

    def __init__(self, size: Size) -> None:
        self.size = size_pair("resize", size)
        self.shorter = self.size[0] if isinstance(size, int | np.integer) else None

    def image_spec(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        return (channels, *self._size(height, width))

    def items_spec(self, channels: int) -> tuple[int, int, int] | int:
        return (channels, *self.size) if self.shorter is None else channels

    def change(self, x: Any, stream: Any) -> Any:
        resized = [resample(image, self._size(*image.shape[1:])) for image in x]
        return item_array(resized) if is_items(x) and self.shorter is not None else np.stack(resized)

    def _size(self, height: int, width: int) -> tuple[int, int]:
        if self.shorter is None:
            return self.size
        # As torchvision: the longer side is cut to whole pixels.
        if height <= width:
            return self.shorter, max(self.shorter * width // height, 1)
        return max(self.shorter * height // width, 1), self.shorter


class random_resized_crop(ImageTransform):
    """A random part of each image, of random area and aspect, resized to `size` (Szegedy et al., 2014, section 6).

    Args:
        size: (height, width), or one number for both.
        scale: least and largest share of the image's area.
        ratio: least and largest aspect, width / height.
    """

    random = True

    def __init__(
        self, size: Size, scale: Sequence[float] = (0.08, 1.0), ratio: Sequence[float] = (3 / 4, 4 / 3)
    ) -> None:
        self.size = size_pair("random_resized_crop", size)
        self.scale = interval("random_resized_crop", "scale", tuple(scale))
        self.ratio = interval("random_resized_crop", "ratio", tuple(ratio))
        if not 0 < self.scale[0] <= self.scale[1] <= 1 or self.ratio[0] <= 0:
            raise InputError(f"random_resized_crop: scale must be in 0..1 and ratio positive, got {scale} and {ratio}")

    def image_spec(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        return (channels, *self.size)

    def items_spec(self, channels: int) -> tuple[int, int, int]:
        return (channels, *self.size)

    def change(self, x: Any, stream: Any) -> Any:
        # The same count of numbers for every image, so that one image's luck does not move another's.
        draws = stream.uniform64((len(x), _ATTEMPTS, 4))
        return np.stack([self._one(image, draw) for image, draw in zip(x, draws, strict=True)])

    def _one(self, image: NDArray[Any], draws: NDArray[np.float64]) -> NDArray[Any]:
        height, width = image.shape[1:]
        logs = math.log(self.ratio[0]), math.log(self.ratio[1])
        for area_u, ratio_u, top_u, left_u in draws.tolist():
            area = height * width * (self.scale[0] + area_u * (self.scale[1] - self.scale[0]))
            aspect = math.exp(logs[0] + ratio_u * (logs[1] - logs[0]))
            wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < wide <= width and 0 < high <= height:
                top, left = int(top_u * (height - high + 1)), int(left_u * (width - wide + 1))
                return resample(image[:, top : top + high, left : left + wide], self.size)
        # No part of the asked-for shape fits: the largest one in the middle whose aspect is allowed.
        wide, high = width, height
        if width / height < self.ratio[0]:
            high = max(min(round(width / self.ratio[0]), height), 1)
        elif width / height > self.ratio[1]:
            wide = max(min(round(height * self.ratio[1]), width), 1)
        top, left = (height - high) // 2, (width - wide) // 2
        return resample(image[:, top : top + high, left : left + wide], self.size)


def _sizes(x: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Heights and widths, int64 (n,) each."""
    if is_items(x):
        both = np.array([image.shape[1:] for image in x], dtype=np.int64).reshape(-1, 2)
        return both[:, 0], both[:, 1]
    return np.full(len(x), x.shape[2], dtype=np.int64), np.full(len(x), x.shape[3], dtype=np.int64)


def _below(stream: Any, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    """A random whole number in 0..bound-1 for each bound, int64."""
    drawn: NDArray[np.int64] = (stream.uniform64(len(bounds)) * np.maximum(bounds, 1)).astype(np.int64)
    return drawn


def _fits(name: str, size: tuple[int, int], height: int, width: int) -> None:
    if size[0] > height or size[1] > width:
        raise InputError(
            f"{name} of {size[0]} x {size[1]} does not fit into an image of {height} x {width}; "
            "put data.resize before it, or make it smaller"
        )
