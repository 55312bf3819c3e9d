"""Transforms of samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.data.dataset import Key, Labels
from compute.errors import InputError
from compute.philox import Stream


class Transform:
    """Base of all transforms; subclass it for one of your own and override `apply` (and `output_shape` if it changes).

        class AddNoise(data.Transform):
            def apply(self, x, target, stream):
                return x + 0.1 * stream.uniform(x.shape), target
    """

    def output_shape(self, sample_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one sample after the transform; unchanged by default."""
        return sample_shape

    def apply(self, x: NDArray[Any], target: Labels, stream: Stream) -> tuple[NDArray[Any], Labels]:
        """Transforms a micro-batch x (n, *shape), target int64 (n,); x may be overwritten.

        Results must depend on nothing but the arguments; `stream` gives this micro-batch's random numbers.
        """
        raise NotImplementedError(f"{type(self).__name__} must define apply")

    def __call__(self, x: NDArray[Any], target: Labels, key: Key, place: int) -> tuple[NDArray[Any], Labels]:
        """Applies the transform at `place` of a pipeline to the micro-batch named by `key`."""
        return self.apply(x, target, Stream(f"transform {place}", *key))


class _Deterministic(Transform):
    """A transform without random numbers: spares making the stream."""

    def __call__(self, x: NDArray[Any], target: Labels, key: Key, place: int) -> tuple[NDArray[Any], Labels]:
        return self._transform(x), target

    def _transform(self, x: NDArray[Any]) -> NDArray[np.float32]:
        raise NotImplementedError


class to_float(_Deterministic):
    """float32 of x * scale; by default bytes 0..255 become 0..1."""

    def __init__(self, scale: float = 1 / 255) -> None:
        self.scale = float(scale)

    def _transform(self, x: NDArray[Any]) -> NDArray[np.float32]:
        out = np.empty(x.shape, dtype=np.float32)
        np.multiply(x, np.float32(self.scale), out=out, casting="unsafe", dtype=np.float32)
        return out


class normalize(_Deterministic):
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

    def output_shape(self, sample_shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.mean.size > 1 and (len(sample_shape) < 2 or sample_shape[0] != self.mean.size):
            raise InputError(f"normalize has {self.mean.size} means, the samples have shape {sample_shape}")
        return sample_shape

    def _transform(self, x: NDArray[Any]) -> NDArray[np.float32]:
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
