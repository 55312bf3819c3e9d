"""Rows that are scaled down to a largest norm where they are longer, as embeddings' max_norm wants it."""

from __future__ import annotations

import numpy as np

from compute.errors import InputError
from compute.nn.layer import Array

TINY = np.float32(1e-7)
"""Added to norms before a division, as in torch.renorm."""


class MaxNorm:
    """y = w * min(1, max_norm / (norm(w) + 1e-7)) for rows w (m, dim), norm(w) = (sum |w|^p)^(1/p).

    Where torch.nn.Embedding and BigDL's LookupTable shorten the weight itself while they look it up, the weight stays
    as it is here, for it belongs to the parameter servers: outputs are the same, and the gradient is that of y.

    Raises:
        InputError: max_norm or norm_type is no positive number.
    """

    def __init__(self, kind: str, max_norm: float, norm_type: float) -> None:
        for name, value in (("max_norm", max_norm), ("norm_type", norm_type)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise InputError(f"{kind}: {name} must be a positive number, got {value!r}")
        self.limit, self.power = np.float32(max_norm), np.float32(norm_type)

    def forward(self, rows: Array) -> Array:
        """The rows, none longer than max_norm."""
        return rows * self._factor(self._norm(rows))

    def backward(self, rows: Array, grad: Array) -> Array:
        """The gradient for the rows, given that for what `forward` gave."""
        norm = self._norm(rows)
        found: Array = grad * self._factor(norm)
        # y = w c / (N + e) with dN/dw = sign(w) |w|^(p-1) / N^(p-1).
        along = (grad * rows).sum(axis=1, keepdims=True)
        slope = np.sign(rows) * (np.abs(rows) / np.maximum(norm, TINY)) ** (self.power - 1)
        found -= np.where(norm > self.limit, along * self.limit / np.square(norm + TINY), np.float32(0)) * slope
        return found

    def _norm(self, rows: Array) -> Array:
        """(m, 1)."""
        if self.power == 2:
            norms: Array = np.sqrt(np.einsum("md,md->m", rows, rows))[:, None]
        else:
            norms = (np.abs(rows) ** self.power).sum(axis=1, keepdims=True) ** (1 / self.power)
        return norms

    def _factor(self, norm: Array) -> Array:
        factor: Array = np.where(norm > self.limit, self.limit / (norm + TINY), np.float32(1))
        return factor
