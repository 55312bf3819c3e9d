"""Sliding windows, of convolutions and poolings."""

from __future__ import annotations

import numpy as np

from compute.nn.layer import Array


def windows(padded: Array, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...] = ()) -> Array:
    """A view of all windows of a padded image, for any number of spatial dimensions.

    Args:
        padded: (n, C, *size).
        dilation: distance of a window's elements; 1 by default.

    Returns:
        (n, C, *kernel, *out): element [n, c, k.., o..] is padded[n, c, o * stride + k * dilation ..]. Writing to it
        writes to `padded`; elements of different windows may be the same.
    """
    dilation = dilation or (1,) * len(kernel)
    spatial = range(len(kernel))
    out = tuple((padded.shape[2 + i] - (kernel[i] - 1) * dilation[i] - 1) // stride[i] + 1 for i in spatial)
    steps = padded.strides[2:]
    return np.lib.stride_tricks.as_strided(
        padded,
        shape=(*padded.shape[:2], *kernel, *out),
        strides=(
            *padded.strides[:2],
            *(steps[i] * dilation[i] for i in spatial),
            *(steps[i] * stride[i] for i in spatial),
        ),
    )
