"""Memory for kernels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

ALIGNMENT_BYTES = 64
"""A cache line and an AVX-512 register. Kernels that peel unaligned heads would otherwise sum in an order that depends
on where malloc put a buffer, and so give other bits from run to run."""


def aligned(shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Zeros of `shape`, C-contiguous and 64-byte aligned."""
    dtype = np.dtype(dtype)
    size_bytes = dtype.itemsize * math.prod(shape)
    raw = np.zeros(size_bytes + ALIGNMENT_BYTES, dtype=np.uint8)
    start = -raw.ctypes.data % ALIGNMENT_BYTES
    return raw[start : start + size_bytes].view(dtype).reshape(shape)
