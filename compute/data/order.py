"""In which order an epoch visits the samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compute.philox import Stream

Indices = NDArray[np.int64]

_POOL_BUCKETS = 64
"""Buckets that are sorted together: the more, the less padding, and the less mixing."""


def epoch_order(n: int, seed: int, epoch: int) -> Indices:
    """A permutation of 0..n-1, int64 (n,): the same on every machine and with every numpy version."""
    return Stream("epoch order", seed, epoch).permutation(n)


def bucket_order(lengths: Indices, bucket: int, seed: int, epoch: int) -> Indices:
    """A permutation of 0..n-1 in which every `bucket` neighbours have like lengths.

    The samples are shuffled and cut into pools of 64 buckets; each pool is sorted by length and cut into buckets; the
    buckets are shuffled. What does not fill a bucket comes last, so that buckets and steps stay aligned.

    Args:
        lengths: int64 (n,).
        bucket: neighbours of like length, usually the batch size.
    """
    shuffled = epoch_order(len(lengths), seed, epoch)
    full = len(lengths) // bucket
    rest = shuffled[full * bucket :]
    pool = bucket * _POOL_BUCKETS
    parts = []
    for begin in range(0, full * bucket, pool):
        members = shuffled[begin : min(begin + pool, full * bucket)]
        parts.append(members[np.argsort(lengths[members], kind="stable")])
    if not parts:
        return rest
    buckets = np.concatenate(parts).reshape(full, bucket)
    return np.concatenate([buckets[Stream("bucket order", seed, epoch).permutation(full)].reshape(-1), rest])


def block_order(sizes: Indices, window: int, seed: int, epoch: int) -> Indices:
    """A permutation of the samples of consecutive blocks that stays within `window` blocks at a time.

    Whoever reads neighbours then needs few blocks in memory. The blocks are shuffled, and the samples within each
    window of blocks.

    Args:
        sizes: samples of each block, int64 (blocks,).
        window: blocks that are mixed; all of them gives `epoch_order`.
    """
    if window >= len(sizes):
        return epoch_order(int(sizes.sum()), seed, epoch)
    begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    blocks = Stream("block order", seed, epoch).permutation(len(sizes))
    parts = []
    for first in range(0, len(blocks), window):
        members = np.concatenate([np.arange(begins[b], begins[b + 1]) for b in blocks[first : first + window]])
        parts.append(members[Stream("window order", seed, epoch, first).permutation(len(members))])
    return np.concatenate(parts)
