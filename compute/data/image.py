"""What transforms of images have in common: a micro-batch of one size, (n, channels, height, width), or items."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.data.items import IMAGES, Items, Spec, is_items, item_array
from compute.data.transform import InputTransform
from compute.errors import InputError
from compute.spec import TensorSpec

Size = int | tuple[int, int]
"""(height, width), or one number for both."""


class ImageTransform(InputTransform):
    """Base of transforms of images: tensors (channels, height, width), or items of any size."""

    def image_spec(self, channels: int, height: int, width: int) -> tuple[int, int, int] | None:
        """Shape after the transform of images of one size; None if it then differs from image to image."""
        return channels, height, width

    def items_spec(self, channels: int) -> tuple[int, int, int] | int:
        """Shape after the transform of images of any size; only the channels if the sizes still differ."""
        return channels

    def output_spec(self, spec: Spec) -> Spec:
        if isinstance(spec, Items) and spec.kind == IMAGES:
            shape = self.items_spec(spec.shape[0])
            if isinstance(shape, int):
                return Items(IMAGES, spec.dtype, (shape,))
            return TensorSpec(shape, spec.dtype)
        if isinstance(spec, Items) or len(spec.shape) != 3:
            raise InputError(f"{type(self).__name__} takes images (channels, height, width), the samples are {spec}")
        dense = self.image_spec(*spec.shape)
        return Items(IMAGES, spec.dtype, spec.shape[:1]) if dense is None else TensorSpec(dense, spec.dtype)


def each(x: NDArray[Any], change: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
    """change(x) for a tensor; for items, change applied to each as a micro-batch of one."""
    if is_items(x):
        return item_array(change(item[None])[0] for item in x)
    return change(x)


def size_pair(name: str, size: Size) -> tuple[int, int]:
    """(height, width) from one number or two. Raises InputError if they are not whole and positive."""
    pair = (size, size) if isinstance(size, int | np.integer) else tuple(size)
    if len(pair) != 2 or not all(isinstance(side, int | np.integer) and side >= 1 for side in pair):
        raise InputError(f"{name}: a size is a whole number of pixels or (height, width), got {size!r}")
    return int(pair[0]), int(pair[1])


def in_range(name: str, what: str, value: float, low: float, high: float = float("inf")) -> float:
    """The number as float. Raises InputError unless it lies in low..high."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not low <= value <= high:
        limits = f"at least {low:g}" if high == float("inf") else f"in {low:g}..{high:g}"
        raise InputError(f"{name}: {what} must be a number {limits}, got {value!r}")
    return float(value)


def interval(name: str, what: str, value: float | Sequence[float], around: float = 1.0) -> tuple[float, float]:
    """(low, high) from a pair, or from one number d as (max(0, around - d), around + d)."""
    if isinstance(value, numbers.Real):
        spread = in_range(name, what, float(value), 0)
        return max(0.0, around - spread), around + spread
    pair = tuple(float(end) for end in value) if isinstance(value, Sequence) and len(value) == 2 else ()
    if len(pair) != 2 or not 0 <= pair[0] <= pair[1] < float("inf"):
        raise InputError(f"{name}: {what} must be a number of at least 0 or a pair (low, high), got {value!r}")
    return pair[0], pair[1]


def unit_floats(x: NDArray[Any]) -> NDArray[np.float32]:
    """New float32 pixels between 0 and 1: bytes are divided by 255, floats are taken to be so already."""
    out = np.empty(x.shape, dtype=np.float32)
    factor = np.float32(1 / 255) if x.dtype == np.uint8 else np.float32(1)
    np.multiply(x, factor, out=out, casting="unsafe", dtype=np.float32)
    return out
