"""Random numbers that are the same on every machine and with every numpy version.

Only Philox's raw bits are used: the algorithm (Salmon et al., 2011) fixes them, whereas numpy's distributions may
change between versions. A stream is named by a domain, a seed and up to three indices, so that any worker can draw the
numbers of any step, micro-batch and layer without having drawn those before.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_WORD = 2**64
MAX_INDICES = 3


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

    def uniform64(self, shape: int | tuple[int, ...]) -> NDArray[np.float64]:
        """float64 of `shape`, uniform in [0, 1) with 53 random bits."""
        count = int(np.prod(shape, dtype=np.int64))
        return ((self.bits(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)

    def uniform(self, shape: int | tuple[int, ...]) -> NDArray[np.float32]:
        """float32 of `shape`, uniform in [0, 1) with 24 random bits."""
        count = int(np.prod(shape, dtype=np.int64))
        return ((self.bits(count) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)).reshape(shape)

    def permutation(self, n: int) -> NDArray[np.int64]:
        """A permutation of 0..n-1, int64 (n,)."""
        # A stable sort's result is defined whatever its algorithm, even where two words are equal.
        return np.argsort(self.bits(n), kind="stable").astype(np.int64, copy=False)
