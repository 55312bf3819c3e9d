"""Random numbers that are the same on every machine and with every numpy version.

Only Philox's raw bits are used: the algorithm (Salmon et al., 2011) fixes them, whereas numpy's distributions may
change between versions. A stream is named by a domain, a seed and up to three indices, so that any worker can draw the
numbers of any step, micro-batch and layer without having drawn those before.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

_WORD = 2**64
MAX_INDICES = 3

_NORMALS_AT_ONCE = 1 << 14
"""Few enough that the arrays in between stay in the processor's cache."""


class Stream:
    """Independent random numbers named by (domain, seed, *indices).

    Args:
        domain: what the numbers are for, e.g. "epoch order"; different domains are independent.
        seed: 0 <= seed < 2**64.
        indices: up to three integers, 0 <= index < 2**64.

    Raises:
        ValueError: more than three indices, or one out of range.
    """

    def __init__(self, domain: str, seed: int, *indices: int) -> None:
        if len(indices) > MAX_INDICES:
            raise ValueError(f"at most {MAX_INDICES} indices, got {len(indices)}")
        if not all(0 <= int(word) < _WORD for word in (seed, *indices)):
            raise ValueError(f"seed and indices must be in 0..2**64-1, got {(seed, *indices)}")
        domain_word = int.from_bytes(hashlib.sha256(domain.encode()).digest()[:8], "little")
        padded = (*indices, *(0,) * (MAX_INDICES - len(indices)))
        # The counter's lowest word runs; the other three hold the indices, so streams never overlap.
        counter = np.array([0, *padded], dtype=np.uint64)
        self._bits = np.random.Philox(key=np.array([seed, domain_word], dtype=np.uint64), counter=counter)

    def bits(self, count: int) -> NDArray[np.uint64]:
        """The next `count` 64-bit words, uint64 (count,)."""
        return np.asarray(self._bits.random_raw(count), dtype=np.uint64)

    def words8(self, count: int) -> NDArray[np.uint8]:
        """The next `count` 8-bit words, uint8 (count,), each uniform in 0..255; eight from each 64-bit word."""
        return np.frombuffer(self.bits(-(-count // 8)).astype("<u8", copy=False), dtype=np.uint8)[:count]

    def words16(self, count: int) -> NDArray[np.uint16]:
        """The next `count` 16-bit words, uint16 (count,), each uniform in 0..65535; four from each 64-bit word."""
        return np.frombuffer(self.bits(-(-count // 4)).astype("<u8", copy=False), dtype="<u2")[:count]

    def uniform64(self, shape: int | tuple[int, ...]) -> NDArray[np.float64]:
        """float64 of `shape`, uniform in [0, 1) with 53 random bits."""
        count = int(np.prod(shape, dtype=np.int64))
        return ((self.bits(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)

    def uniform(self, shape: int | tuple[int, ...]) -> NDArray[np.float32]:
        """float32 of `shape`, uniform in [0, 1) with 24 random bits."""
        count = int(np.prod(shape, dtype=np.int64))
        return ((self.bits(count) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)).reshape(shape)

    def normal(self, shape: int | tuple[int, ...]) -> NDArray[np.float32]:
        """float32 of `shape`, normal with mean 0 and variance 1 (Box and Muller, 1958).

        Computed in float64 by additions, multiplications, divisions and square roots only, which IEEE 754 defines to
        the bit; logarithms and cosines of numpy differ between machines.
        """
        count = int(np.prod(shape, dtype=np.int64))
        result = np.empty(-(-count // 2) * 2, dtype=np.float32)
        for start in range(0, len(result), _NORMALS_AT_ONCE):
            part = result[start : start + _NORMALS_AT_ONCE]
            pairs = len(part) // 2
            uniform = self.uniform64(2 * pairs)
            radius = np.sqrt(-2.0 * _log(1.0 - uniform[:pairs]))
            cosine, sine = _cosine_and_sine_of_turns(uniform[pairs:])
            part[:pairs] = radius * cosine
            part[pairs:] = radius * sine
        return result[:count].reshape(shape)

    def permutation(self, n: int) -> NDArray[np.int64]:
        """A permutation of 0..n-1, int64 (n,)."""
        # A stable sort's result is defined whatever its algorithm, even where two words are equal.
        return np.argsort(self.bits(n), kind="stable").astype(np.int64, copy=False)


def _log(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """log(x) for normal x > 0, by IEEE 754's basic operations."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < 0.7071067811865476
    mantissa = np.where(small, 2.0 * mantissa, mantissa)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square = s * s
    # log(m) = 2 artanh(s) = 2 (s + s^3/3 + s^5/5 + ...); |s| <= 0.172, so the terms left out are below 2^-53.
    series = np.full_like(s, 1.0 / 19)
    for k in (17, 15, 13, 11, 9, 7, 5, 3, 1):
        series = series * square + 1.0 / k
    logarithm: NDArray[np.float64] = (exponent - small.astype(np.int32)) * 0.6931471805599453 + 2.0 * s * series
    return logarithm


def _cosine_and_sine_of_turns(turns: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """cos and sin of 2 pi turns, up to their common sign, for turns in [0, 1), by IEEE 754's basic operations."""
    quarter = (turns - 0.5) * 1.5707963267948966  # a quarter of the angle, at most pi / 4
    square = quarter * quarter
    cosine, sine = np.full_like(square, -1.0 / 87178291200), np.full_like(square, -1.0 / 1307674368000)
    for power, k in enumerate((12, 10, 8, 6, 4, 2, 0)):  # Taylor's series: 1/k! and 1/(k+1)!
        sign = -1.0 if (6 - power) % 2 else 1.0
        cosine = cosine * square + sign / math.factorial(k)
        sine = sine * square + sign / math.factorial(k + 1)
    sine = sine * quarter
    for _ in range(2):
        cosine, sine = 1.0 - 2.0 * sine * sine, 2.0 * sine * cosine
    return cosine, sine
