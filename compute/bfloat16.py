"""bfloat16 in numpy, which lacks the type: the upper half of a float32, kept in uint16."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_QUIET_BIT = np.uint16(0x40)
_BLOCK = 32768  # elements that stay in a second-level cache


def to_bfloat16(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    """x rounded to the nearest bfloat16, ties to even; uint16 of x's shape. NaN stays NaN."""
    bits = np.ascontiguousarray(x).view(np.uint32).reshape(x.shape)
    # Half a unit of the last place that is kept, less one where that is even: a tie then goes up only if it is odd.
    rounded = ((bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)).astype(
        np.uint16
    )
    # A NaN's payload may sit in the lower half alone, or overflow; its sign and upper half are kept, made quiet.
    return np.where(np.isnan(x), (bits >> np.uint32(16)).astype(np.uint16) | _QUIET_BIT, rounded)


def from_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The float32 values of bfloat16s, exactly."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def round_bfloat16(x: NDArray[np.float32]) -> None:
    """Rounds float32 (n,), contiguous, in place as to_bfloat16 does."""
    for start in range(0, x.size, _BLOCK):
        block = x[start : start + _BLOCK]
        if np.isnan(block).any():
            block[...] = from_bfloat16(to_bfloat16(block))
            continue
        bits = block.view(np.uint32)
        ties = bits >> np.uint32(16)
        ties &= np.uint32(1)
        ties += np.uint32(0x7FFF)
        bits += ties
        bits &= np.uint32(0xFFFF0000)
