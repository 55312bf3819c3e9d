"""Memory for kernels."""

from __future__ import annotations

import ctypes
import math
import mmap
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

ALIGNMENT_BYTES = 64
"""A cache line and an AVX-512 register. Kernels that peel unaligned heads would otherwise sum in an order that depends
on where malloc put a buffer, and so give other bits from run to run."""

HUGE_PAGE_BYTES = 1 << 21
"""x86-64's large page. Arrays of at least half of one get memory of their own, in large pages as far as they fill them:
small ones cost a page fault each when first used, and entries of the TLB ever after."""

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def aligned(shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Zeros of `shape`, C-contiguous and 64-byte aligned; large ones in huge pages where the system has them."""
    size_bytes = np.dtype(dtype).itemsize * math.prod(shape)
    if size_bytes >= HUGE_PAGE_BYTES // 2:
        raw = huge_pages(size_bytes)
    else:
        padded = np.zeros(size_bytes + ALIGNMENT_BYTES, dtype=np.uint8)
        start = -padded.ctypes.data % ALIGNMENT_BYTES
        raw = padded[start : start + size_bytes]
    return raw.view(dtype).reshape(shape)


def huge_pages(size_bytes: int) -> NDArray[np.uint8]:
    """Zeros from the system itself, at the start of a large page; they return to it when the last view is gone."""
    # The kernel need not align what it gives, and what is never touched costs nothing.
    mapping = mmap.mmap(-1, size_bytes + HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = -np.frombuffer(mapping, dtype=np.uint8, count=1).ctypes.data % HUGE_PAGE_BYTES
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # A kernel built without them refuses; small ones do as well.
        with suppress(OSError):
            # Not beyond the last page that is used: the tail then lies in small pages, and no memory is wasted.
            mapping.madvise(mmap.MADV_HUGEPAGE, start, -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE)
    return np.frombuffer(mapping, dtype=np.uint8, count=size_bytes, offset=start)


def keep_freed_memory() -> bool:
    """Has malloc keep what is freed for whoever asks next, and not give it back to the system: for whole processes.

    numpy's and the libraries' own large temporaries then cost page faults once and not in every step. Returns whether
    the C library knows how (glibc does).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # 1 is success. No mappings for single requests, no trimming (sizes are int), no growth in small steps.
    return mallopt is not None and all(
        mallopt(parameter, value) == 1
        for parameter, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, (1 << 31) - 1), (_M_TOP_PAD, 64 << 20))
    )
