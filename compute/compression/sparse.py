"""Only the largest elements travel."""

from __future__ import annotations

import math

import numpy as np

from compute.compression.codec import Buffer, Codec, Vector


class TopK(Codec):
    """The share `ratio` of the elements, the largest by absolute value: places, uint32 rising, then float32 values."""

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio

    def kept(self, size: int) -> int:
        """Elements that are kept of `size`."""
        return min(math.ceil(self.ratio * size), size)

    def encoded_bytes(self, size: int) -> int:
        return 8 * self.kept(size)

    def encode(self, values: Vector) -> Buffer:
        kept = self.kept(values.size)
        if kept == values.size:
            places = np.arange(kept)
        else:
            magnitudes = np.abs(values)
            magnitudes[np.isnan(magnitudes)] = np.inf  # so that it does not go unnoticed
            threshold = np.partition(magnitudes, values.size - kept)[values.size - kept]
            above = np.flatnonzero(magnitudes > threshold)
            ties = np.flatnonzero(magnitudes == threshold)[: kept - above.size]
            places = np.sort(np.concatenate((above, ties)))
        return places.astype("<u4").tobytes() + values[places].astype("<f4").tobytes()

    def decode(self, data: Buffer, size: int) -> Vector:
        self._check(data, size)
        kept = self.kept(size)
        places = np.frombuffer(data, dtype="<u4", count=kept)
        if kept and (int(places[-1]) >= size or not np.all(places[1:] > places[:-1])):
            raise ValueError("places are not in the slice, or not rising")
        values = np.zeros(size, dtype=np.float32)
        values[places] = np.frombuffer(data, dtype="<f4", offset=4 * kept)
        return values
