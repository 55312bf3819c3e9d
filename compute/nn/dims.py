"""Dimension arguments: they count the sample's dimensions from 0, or from the end by negative numbers."""

from __future__ import annotations

from compute.errors import InputError


def check_dim(kind: str, dim: int, name: str = "dim") -> int:
    """`dim`; InputError unless it is a whole number."""
    if isinstance(dim, bool) or not isinstance(dim, int):
        raise InputError(f"{kind}: {name} must be a whole number, got {dim!r}")
    return dim


def axis_of(dim: int, rank: int) -> int:
    """Axis in a batch's array of dimension `dim` of samples with `rank` dimensions: the batch's own is axis 0.

    Raises:
        InputError: the samples have no such dimension.
    """
    if not -rank <= dim < rank:
        raise InputError(f"the samples have no dimension {dim}")
    return dim % rank + 1
