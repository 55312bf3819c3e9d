"""Sums over the flat vector that do not depend on how it is cut into slices.

The products of a piece of the vector are added in float64 in an order that only the piece fixes; the pieces' sums are
added exactly, as integers, on however many servers; the total is rounded once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SCALE = 1074 + 52
"""Exact sums count in units of 2 ** -_SCALE, of which every finite float64 is a multiple, as is its frexp mantissa."""

_UNIT = 1 << _SCALE
_FEW = 32


def sum_block(parameters: int) -> int:
    """Elements of the blocks at whose bounds a flat vector of `parameters` elements may be cut into slices.

    Small enough for tens of slices of a small model, and the same for any number of them.
    """
    return max(1, min(1024, parameters // 64))


@dataclass(frozen=True)
class ExactSum:
    """A sum of float64 numbers without any rounding.

    Attributes:
        units: the sum of the finite ones, in units of 2 ** -1126.
        special: the sum of those that are infinite or NaN.
    """

    units: int = 0
    special: float = 0.0

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> ExactSum:
        """The sum of float64 (n,)."""
        finite = np.isfinite(values)
        special = 0.0
        if not finite.all():
            special = sum(values[~finite].tolist())
            values = values[finite]
        mantissas, exponents = np.frexp(values)
        whole = (mantissas * 2.0**53).astype(np.int64)
        if values.size <= _FEW:
            pairs = zip(whole.tolist(), exponents.tolist(), strict=True)
            return cls(sum(m << (e - 53 + _SCALE) for m, e in pairs), special)
        units = 0
        for exponent in np.unique(exponents).tolist():
            same = whole[exponents == exponent]
            # Two halves, so that no sum of int64 overflows.
            total = (int(np.sum(same >> 32)) << 32) + int(np.sum(same & 0xFFFFFFFF))
            units += total << (exponent - 53 + _SCALE)
        return cls(units, special)

    def __add__(self, other: ExactSum) -> ExactSum:
        return ExactSum(self.units + other.units, self.special + other.special)

    def __float__(self) -> float:
        """The sum, rounded once to the nearest float64 (ties to even)."""
        if self.special != 0:
            return self.special
        try:
            return self.units / _UNIT
        except OverflowError:
            return math.inf if self.units > 0 else -math.inf
