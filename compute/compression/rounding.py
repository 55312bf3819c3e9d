"""Codecs that round each element for itself; what is rounded already travels without loss."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from compute.bfloat16 import from_bfloat16, round_bfloat16
from compute.compression.codec import Buffer, Codec, Vector

FP16_SCALE = np.float32(2.0**10)
"""Gradients from 6e-8 to 64 keep eleven bits, down to 6e-11 fewer. A power of two, so that scaling rounds nothing."""

_FP16_MAX = np.float32(65504)
_BLOCK = 32768


class Rounding(Codec):
    """Base of both."""

    def encoded_bytes(self, size: int) -> int:
        return 2 * size

    @abstractmethod
    def round(self, values: Vector) -> None:
        """Rounds float32 (n,) in place to what `encode` keeps."""


class BFloat16(Rounding):
    """The upper half of a float32."""

    def round(self, values: Vector) -> None:
        round_bfloat16(values)

    def encode(self, values: Vector) -> Buffer:
        out = np.empty(values.size, dtype="<u2")
        for start in range(0, values.size, _BLOCK):
            block = values[start : start + _BLOCK].copy()
            round_bfloat16(block)
            np.right_shift(block.view(np.uint32), 16, out=out[start : start + _BLOCK], casting="unsafe")
        return out.tobytes()

    def decode(self, data: Buffer, size: int) -> Vector:
        self._check(data, size)
        return from_bfloat16(np.frombuffer(data, dtype="<u2"))


class Float16(Rounding):
    """IEEE 754 binary16 of the scaled value, the nearest, ties to even; what is too large becomes the largest."""

    def round(self, values: Vector) -> None:
        for start in range(0, values.size, _BLOCK):
            block = values[start : start + _BLOCK]
            np.divide(self._halves(block), FP16_SCALE, out=block, dtype=np.float32)

    def encode(self, values: Vector) -> Buffer:
        out = np.empty(values.size, dtype="<f2")
        for start in range(0, values.size, _BLOCK):
            out[start : start + _BLOCK] = self._halves(values[start : start + _BLOCK])
        return out.tobytes()

    def decode(self, data: Buffer, size: int) -> Vector:
        self._check(data, size)
        values = np.frombuffer(data, dtype="<f2").astype(np.float32)
        values /= FP16_SCALE
        return values

    @staticmethod
    def _halves(values: Vector) -> NDArray[np.float16]:
        with np.errstate(over="ignore", under="ignore"):
            scaled = values * FP16_SCALE
            np.clip(scaled, -_FP16_MAX, _FP16_MAX, out=scaled)
            return scaled.astype("<f2")
