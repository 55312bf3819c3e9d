"""Which columns of a table become which tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compute.errors import InputError

Columns = str | Sequence[str] | tuple[str | Sequence[str], ...]
"""A name: that column is a tensor. A list of names: columns of numbers that make a vector. A tuple: several tensors."""


@dataclass(frozen=True)
class Group:
    """The columns of one tensor; `joined` if they make a vector, even if it is one column."""

    names: tuple[str, ...]
    joined: bool


def groups(function: str, what: str, columns: Columns | None) -> tuple[Group, ...]:
    """The tensors that `columns` asks for. Raises InputError if it names nothing or is no name."""
    if columns is None:
        return ()
    several = columns if isinstance(columns, tuple) else (columns,)
    made = []
    for item in several:
        names = (item,) if isinstance(item, str) else tuple(item) if isinstance(item, list) else ()
        if not names or not all(isinstance(name, str) for name in names):
            raise InputError(f"{function}: {what} must be a column's name, a list or a tuple of names, got {item!r}")
        made.append(Group(names, not isinstance(item, str)))
    return tuple(made)


def missing(file: str, wanted: Sequence[str], found: Sequence[str]) -> InputError:
    """The error for columns that a file does not have."""
    absent = [name for name in wanted if name not in found]
    have = ", ".join(found[:20]) + (" ..." if len(found) > 20 else "")
    return InputError(f"{file} has no column {absent[0]!r}; it has {have}")
