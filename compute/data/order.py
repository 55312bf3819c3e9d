"""In which order an epoch visits the samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compute.philox import Stream


def epoch_order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of 0..n-1, int64 (n,): the same on every machine and with every numpy version."""
    return Stream("epoch order", seed, epoch).permutation(n)
