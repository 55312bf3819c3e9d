"""Transforms of values, pixel by pixel: scale, normalize, channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compute.data.image import ImageTransform, each
from compute.data.items import IMAGES, Items, Spec
from compute.data.transform import InputTransform
from compute.errors import InputError
from compute.spec import TensorSpec

GREY_WEIGHTS = (0.299, 0.587, 0.114)
"""Of red, green and blue in luma (ITU-R BT.601)."""


class _Values(InputTransform):
    """A transform of numbers of any shape, or of images of any size, to float32."""

    def output_spec(self, spec: Spec) -> Spec:
        if isinstance(spec, Items):
            if spec.kind != IMAGES:
                raise InputError(f"{type(self).__name__} takes numbers, the samples are {spec}")
            self.check_shape((*spec.shape, 1, 1), any_size=True)
            return Items(IMAGES, "float32", spec.shape)
        self.check_shape(spec.shape, any_size=False)
        return TensorSpec(spec.shape)

    def check_shape(self, shape: tuple[int, ...], any_size: bool) -> None:
        """Raises InputError if samples of this shape do not fit. With any_size only the channels count."""

    def change(self, x: Any, stream: Any) -> Any:
        return each(x, self._values)

    def _values(self, x: NDArray[Any]) -> NDArray[np.float32]:
        raise NotImplementedError


class to_float(_Values):
    """float32 of x * scale; by default bytes 0..255 become 0..1."""

    def __init__(self, scale: float = 1 / 255) -> None:
        self.scale = float(scale)

    def _values(self, x: NDArray[Any]) -> NDArray[np.float32]:
        out = np.empty(x.shape, dtype=np.float32)
        np.multiply(x, np.float32(self.scale), out=out, casting="unsafe", dtype=np.float32)
        return out


class normalize(_Values):
    """(x - mean) / std in float32, per channel where mean and std are sequences.

    Bytes are first brought to 0..1, so mean and std are those of pixels between 0 and 1.
    """

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        self.mean = np.atleast_1d(np.asarray(mean, dtype=np.float64))
        self.std = np.atleast_1d(np.asarray(std, dtype=np.float64))
        if self.mean.ndim != 1 or self.mean.shape != self.std.shape:
            raise InputError("normalize: mean and std must be numbers, or one number per channel each")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and (self.std > 0).all()):
            raise InputError(f"normalize: std must be positive and all numbers finite, got {mean} and {std}")

    def check_shape(self, shape: tuple[int, ...], any_size: bool) -> None:
        if self.mean.size > 1 and (len(shape) < 2 or shape[0] != self.mean.size):
            raise InputError(f"normalize has {self.mean.size} means, the samples have shape {shape}")

    def _values(self, x: NDArray[Any]) -> NDArray[np.float32]:
        # x * factor + shift: two passes, and no division.
        unit = 255.0 if x.dtype == np.uint8 else 1.0
        factor = (1.0 / (self.std * unit)).astype(np.float32)
        shift = (-self.mean / self.std).astype(np.float32)
        if factor.size > 1:
            column = (-1, *(1,) * (x.ndim - 2))
            factor, shift = factor.reshape(column), shift.reshape(column)
        else:
            factor, shift = factor[0], shift[0]
        out = np.empty(x.shape, dtype=np.float32)
        np.multiply(x, factor, out=out, casting="unsafe", dtype=np.float32)
        np.add(out, shift, out=out)
        return out


class normalize_pixels(_Values):
    """(x - mean) / std in float32 with a mean, and a std, of its own for every element of a sample.

    Bytes are first brought to 0..1, so mean and std are those of pixels between 0 and 1.

    Args:
        mean: shape of a sample, usually the mean image of the training set.
        std: a number, or of the same shape.
    """

    def __init__(self, mean: ArrayLike, std: ArrayLike = 1.0) -> None:
        self.mean = np.asarray(mean, dtype=np.float32)
        self.std = np.asarray(std, dtype=np.float32)
        if self.std.shape not in ((), self.mean.shape):
            raise InputError(f"normalize_pixels: mean is {self.mean.shape}, std is {self.std.shape}; make them alike")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and (self.std > 0).all()):
            raise InputError("normalize_pixels: std must be positive and all numbers finite")

    def check_shape(self, shape: tuple[int, ...], any_size: bool) -> None:
        if any_size or shape != self.mean.shape:
            found = "images of any size" if any_size else f"samples of shape {shape}"
            raise InputError(f"normalize_pixels has a mean of shape {self.mean.shape}, which does not fit {found}")

    def _values(self, x: NDArray[Any]) -> NDArray[np.float32]:
        out = np.empty(x.shape, dtype=np.float32)
        np.multiply(x, np.float32(1 / 255 if x.dtype == np.uint8 else 1), out=out, casting="unsafe", dtype=np.float32)
        np.subtract(out, self.mean, out=out)
        if self.std.shape or self.std != 1:
            np.divide(out, self.std, out=out)
        return out


class bgr(ImageTransform):
    """Reverses the order of three channels: red, green, blue become blue, green, red, BigDL's order; and back."""

    def image_spec(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        return self.items_spec(channels), height, width

    def items_spec(self, channels: int) -> int:
        if channels != 3:
            raise InputError(f"{type(self).__name__} takes images of 3 channels, these have {channels}")
        return channels

    def change(self, x: Any, stream: Any) -> Any:
        return each(x, lambda images: images[:, ::-1])


class rgb(bgr):
    """The same reversal, for images that come as blue, green, red."""


class grey(ImageTransform):
    """One channel, 0.299 red + 0.587 green + 0.114 blue (ITU-R BT.601); bytes stay bytes, rounded.

    Args:
        order: of the channels that come in, "rgb" or "bgr".
    """

    def __init__(self, order: str = "rgb") -> None:
        if order not in ("rgb", "bgr"):
            raise InputError(f'grey: order must be "rgb" or "bgr", got {order!r}')
        self.weights = GREY_WEIGHTS if order == "rgb" else GREY_WEIGHTS[::-1]

    def image_spec(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        return self.items_spec(channels), height, width

    def items_spec(self, channels: int) -> int:
        if channels != 3:
            raise InputError(f"grey takes images of 3 channels, these have {channels}")
        return 1

    def change(self, x: Any, stream: Any) -> Any:
        return each(x, self._grey)

    def _grey(self, x: NDArray[Any]) -> NDArray[Any]:
        luma = weighted_channels(x, self.weights)
        return np.rint(luma, out=luma).astype(np.uint8) if x.dtype == np.uint8 else luma


def weighted_channels(x: NDArray[Any], weights: Sequence[float]) -> NDArray[np.float32]:
    """Sum over channels of weight * channel: float32 (n, 1, height, width) of x (n, len(weights), height, width)."""
    out = np.empty((len(x), 1, *x.shape[2:]), dtype=np.float32)
    np.multiply(x[:, :1], np.float32(weights[0]), out=out, casting="unsafe", dtype=np.float32)
    for channel, weight in enumerate(weights[1:], 1):
        out += np.multiply(x[:, channel : channel + 1], np.float32(weight), casting="unsafe", dtype=np.float32)
    return out
