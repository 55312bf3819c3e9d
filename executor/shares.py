"""How much of a step's remaining work each worker should take, so that all are done as early as can be."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]

LEASE_OVERHEAD = 0.25  # cost of a lease in micro-batches, as far as shares go: a push to every server
SIMILAR = 1.25  # workers within this factor of the median count as equal: estimates are noisy, extra leases cost
_HALVINGS = 40


@lru_cache(maxsize=64)
def _costs(leaves: int) -> Times:
    """Time of 0, 1, ... micro-batches in units of one; a share that is no power of two takes several leases."""
    shares = np.arange(leaves + 1)
    leases = np.array([int(share).bit_count() for share in shares])
    costs: Times = shares + LEASE_OVERHEAD * leases
    return np.minimum.accumulate(costs[::-1])[::-1]  # more work never takes less time


def shares(leaves: int, available: Times, leaf_s: Times) -> NDArray[np.int64]:
    """What each worker can do by the earliest time at which together they can have done it all.

    Args:
        leaves: micro-batches to be done, at least 1.
        available: when each worker is free, in seconds on any clock; float64 (workers,), at least one.
        leaf_s: seconds that a micro-batch takes each.

    Returns:
        Micro-batches, int64 (workers,); they add up to `leaves` at the least.
    """
    costs = _costs(leaves)
    available = available - np.min(available)  # or differences are lost in a clock's large numbers

    def done_by(time: float) -> NDArray[np.int64]:
        done = np.searchsorted(costs, (time - available) / leaf_s * (1 + 1e-12), side="right") - 1
        return np.maximum(done, 0)

    low, high = 0.0, float(np.max(available + leaf_s * costs[-1]))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if int(np.sum(done_by(middle))) >= leaves:
            high = middle
        else:
            low = middle
    return done_by(high * (1 + 1e-9))
