"""Penalties on parameters, whose gradient is added to that of the loss."""

from __future__ import annotations

from compute.described import Described
from compute.errors import InputError


class Regularizer(Described):
    """l1 * sum |w| + l2 / 2 * sum w^2: adds l1 * sign(w) + l2 * w to the gradient."""

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        if not (0 <= l1 < float("inf") and 0 <= l2 < float("inf")):
            raise InputError(f"a regularizer's factors must be numbers that are not negative, got {l1} and {l2}")
        self.l1, self.l2 = float(l1), float(l2)


def L1(factor: float) -> Regularizer:
    """factor * sum |w|."""
    return Regularizer(l1=factor)


def L2(factor: float) -> Regularizer:
    """factor / 2 * sum w^2."""
    return Regularizer(l2=factor)


def L1L2(l1: float, l2: float) -> Regularizer:
    """Both penalties."""
    return Regularizer(l1, l2)
