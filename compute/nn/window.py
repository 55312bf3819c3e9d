"""Sliding windows, of convolutions and poolings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compute.nn.layer import Array


@dataclass(frozen=True)
class Window:
    """How a window slides over samples with any number of spatial dimensions; all tuples have one entry for each.

    Attributes:
        padding: elements added before the first of each dimension; as many are added behind as the outputs reach.
        dilation: distance of a window's neighbouring elements.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def rank(self) -> int:
        """Number of spatial dimensions."""
        return len(self.kernel)

    @property
    def span(self) -> tuple[int, ...]:
        """Elements from a window's first to its last, both included."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def count(self, size: tuple[int, ...], padding_end: tuple[int, ...], ceil_mode: bool = False) -> tuple[int, ...]:
        """How many windows fit into `size` padded by `padding` and `padding_end`; 0 or less where none does.

        ceil_mode also counts a last one that is cut off, if it starts within the input or the padding before it.
        """
        counts = []
        for n, before, after, span, stride in zip(
            size, self.padding, padding_end, self.span, self.stride, strict=True
        ):
            rest = n + before + after - span
            windows = (-(-rest // stride) if ceil_mode else rest // stride) + 1
            if ceil_mode and (windows - 1) * stride >= n + before:
                windows -= 1
            counts.append(windows)
        return tuple(counts)

    def padded_size(self, size: tuple[int, ...], out: tuple[int, ...]) -> tuple[int, ...]:
        """Size of the padded array that `out` windows slide over."""
        return tuple(
            max(n + before, (o - 1) * stride + span)
            for n, o, before, span, stride in zip(size, out, self.padding, self.span, self.stride, strict=True)
        )

    def overhangs(self, size: tuple[int, ...], out: tuple[int, ...]) -> bool:
        """Whether one of `out` windows reaches over both ends of a dimension of `size`."""
        return any(
            any(step * stride < before and step * stride + span > before + n for step in range(count))
            for n, count, before, span, stride in zip(size, out, self.padding, self.span, self.stride, strict=True)
        )

    def pad(self, x: Array, out: tuple[int, ...], value: float = 0.0) -> Array:
        """x, float32 (n, C, *size), padded with `value` for `out` windows; x itself where nothing is added."""
        size = x.shape[2:]
        padded_size = self.padded_size(size, out)
        if padded_size == size:
            return x
        padded = np.full((*x.shape[:2], *padded_size), value, dtype=np.float32)
        self.crop(padded, size)[...] = x
        return padded

    def crop(self, padded: Array, size: tuple[int, ...]) -> Array:
        """View of the unpadded part of a padded array."""
        inner = tuple(slice(before, before + n) for before, n in zip(self.padding, size, strict=True))
        return padded[(slice(None), slice(None), *inner)]

    def view(self, padded: Array, out: tuple[int, ...]) -> Array:
        """A view of all windows of a padded array (n, C, *size).

        Returns:
            (n, C, *kernel, *out): element [n, c, k.., o..] is padded[n, c, o * stride + k * dilation ..]. Writing to it
            writes to `padded`; elements of different windows may be the same.
        """
        steps = padded.strides[2:]
        return np.lib.stride_tricks.as_strided(
            padded,
            shape=(*padded.shape[:2], *self.kernel, *out),
            strides=(
                *padded.strides[:2],
                *(step * d for step, d in zip(steps, self.dilation, strict=True)),
                *(step * s for step, s in zip(steps, self.stride, strict=True)),
            ),
        )
