"""What codecs have in common, and what they do with slices of the flat vector."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Buffer = bytes | bytearray | memoryview


class Codec(ABC):
    """Makes bytes of float32 values and values of bytes; an object holds settings only."""

    @abstractmethod
    def encoded_bytes(self, size: int) -> int:
        """How many bytes `size` values take, whatever they are."""

    @abstractmethod
    def encode(self, values: Vector) -> Buffer:
        """Bytes of float32 (n,), which is left as it is."""

    @abstractmethod
    def decode(self, data: Buffer, size: int) -> Vector:
        """float32 (size,), as near to what was encoded as the codec allows.

        Raises:
            ValueError: the bytes are not an encoding of so many values.
        """

    def _check(self, data: Buffer, size: int) -> None:
        if len(data) != self.encoded_bytes(size):
            raise ValueError(f"{len(data)} bytes for {size} elements instead of {self.encoded_bytes(size)}")


class Plain(Codec):
    """float32 as it is."""

    def encoded_bytes(self, size: int) -> int:
        return 4 * size

    def encode(self, values: Vector) -> Buffer:
        return np.ascontiguousarray(values, dtype="<f4").data.cast("B") if values.size else b""

    def decode(self, data: Buffer, size: int) -> Vector:
        self._check(data, size)
        return np.frombuffer(data, dtype="<f4")


class SliceCodec:
    """A codec for slices of the flat vector: weights' gradients are encoded, what is behind them travels as it is.

    Behind them are statistics, whose means must not lose what a sparse or coarse gradient may.
    """

    def __init__(self, codec: Codec, weights: int) -> None:
        """
        Args:
            weights: elements of the flat vector that are weights; they come first.
        """
        self.codec = codec
        self._weights = weights
        self._plain = Plain()

    @property
    def plain(self) -> bool:
        """Whether values travel as they are."""
        return isinstance(self.codec, Plain)

    def encoded_bytes(self, begin: int, end: int) -> int:
        """Bytes of elements [begin, end)."""
        split = self._split(begin, end)
        return self.codec.encoded_bytes(split) + self._plain.encoded_bytes(end - begin - split)

    def encode(self, values: Vector, begin: int) -> Buffer:
        """Bytes of the values, which begin at element `begin` of the flat vector."""
        split = self._split(begin, begin + values.size)
        if split == values.size:
            return self.codec.encode(values)
        return b"".join((self.codec.encode(values[:split]), self._plain.encode(values[split:])))

    def decode(self, data: Buffer, begin: int, end: int) -> Vector:
        """Elements [begin, end), float32 (end - begin,).

        Raises:
            ValueError: the bytes are not an encoding of so many values.
        """
        split = self._split(begin, end)
        if split == end - begin:
            return self.codec.decode(data, split)
        coded = self.codec.encoded_bytes(split)
        view = memoryview(data)
        parts = self.codec.decode(view[:coded], split), self._plain.decode(view[coded:], end - begin - split)
        return np.concatenate(parts)

    def _split(self, begin: int, end: int) -> int:
        """How many of the elements [begin, end) are for the codec."""
        if self.plain:
            return end - begin
        return min(max(self._weights - begin, 0), end - begin)
