"""Few bits for each element, and what they stand for once for each block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compute.compression.codec import Buffer, Codec, Vector

BLOCK = 1024
"""Elements that share what their bits stand for; the last block of a slice may be shorter."""


def _blocks(values: Vector) -> NDArray[np.float32]:
    """(blocks, BLOCK), the last one filled up with zeros."""
    count = -(-values.size // BLOCK)
    if count * BLOCK == values.size:
        return values.reshape(count, BLOCK)
    out = np.zeros((count, BLOCK), dtype=np.float32)
    out.reshape(-1)[: values.size] = values
    return out


class Quantized8(Codec):
    """For each block float32 scale = max |x| / 127, then for each element int8 round(x / scale)."""

    def encoded_bytes(self, size: int) -> int:
        return 4 * -(-size // BLOCK) + size

    def encode(self, values: Vector) -> Buffer:
        blocks = _blocks(values)
        with np.errstate(all="ignore"):
            scales = np.max(np.abs(blocks), axis=1, initial=0.0) / np.float32(127)
            quotients = np.divide(blocks, scales[:, None], where=scales[:, None] != 0, out=np.zeros_like(blocks))
            levels = np.clip(np.rint(quotients, out=quotients), -127, 127).astype(np.int8)
        return b"".join((scales.astype("<f4").tobytes(), levels.reshape(-1)[: values.size].tobytes()))

    def decode(self, data: Buffer, size: int) -> Vector:
        self._check(data, size)
        count = -(-size // BLOCK)
        scales = np.frombuffer(data, dtype="<f4", count=count)
        levels = np.frombuffer(data, dtype=np.int8, offset=4 * count)
        with np.errstate(all="ignore"):
            values: Vector = np.multiply(levels, np.repeat(scales, BLOCK)[:size], dtype=np.float32)
        return values


class OneBit(Codec):
    """For each block the float32 means of its elements >= 0 and of those < 0; then one bit for each, 1: >= 0.

    Bits begin with the highest of a byte, and every block but the last fills BLOCK / 8 bytes.
    """

    def encoded_bytes(self, size: int) -> int:
        return 8 * -(-size // BLOCK) + -(-size // 8)

    def encode(self, values: Vector) -> Buffer:
        blocks = _blocks(values)
        with np.errstate(all="ignore"):
            upper = blocks >= 0
            sums = np.sum(np.where(upper, blocks, 0), axis=1), np.sum(np.where(upper, 0, blocks), axis=1)
            above = np.count_nonzero(upper, axis=1)
            if values.size % BLOCK:
                above[-1] -= BLOCK - values.size % BLOCK  # zeros that fill the last block up
            below = np.minimum(BLOCK, values.size - BLOCK * np.arange(len(blocks))) - above
            means = np.stack([sums[0] / np.maximum(above, 1), sums[1] / np.maximum(below, 1)], axis=1)
        bits = np.packbits(upper.reshape(-1)[: values.size])
        return means.astype("<f4").tobytes() + bits.tobytes()

    def decode(self, data: Buffer, size: int) -> Vector:
        self._check(data, size)
        count = -(-size // BLOCK)
        means = np.frombuffer(data, dtype="<f4", count=2 * count).reshape(count, 2)
        bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8, offset=8 * count), count=size).view(bool)
        upper, lower = np.repeat(means[:, 0], BLOCK)[:size], np.repeat(means[:, 1], BLOCK)[:size]
        return np.where(bits, upper, lower).astype(np.float32)
