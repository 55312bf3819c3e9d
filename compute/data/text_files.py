"""Text lines as samples."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compute.data import files
from compute.data.dataset import Dataset
from compute.data.items import TEXT, Flow, Items, item_array
from compute.data.lines import LineFile
from compute.data.source import Indices, LazySource, Tensors
from compute.errors import InputError


class LineSource(LazySource[LineFile]):
    """The lines of text files; what is opened is their index."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = names

    def _open(self) -> LineFile:
        return LineFile(self.names)

    def __len__(self) -> int:
        return len(self.opened)

    @property
    def input_specs(self) -> Flow:
        return (Items(TEXT),)

    @property
    def target_specs(self) -> Flow:
        return ()

    def read(self, indices: Indices) -> tuple[Tensors, Tensors]:
        return item_array(self.opened.read(indices)), ()

    def lengths(self) -> NDArray[np.int64]:
        return self.opened.sizes

    def describe(self, index: int) -> str:
        return self.opened.describe(index)

    def check(self) -> None:
        _ = self.opened


def text_lines(paths: files.PathLike | Sequence[files.PathLike]) -> Dataset:
    """The lines of UTF-8 text files as texts, without targets; empty lines are left out.

    Only an index of 16 bytes per line is kept in memory. For lines with labels see `data.csv(..., delimiter="\\t")`.

    Args:
        paths: one path or URL, or several.
    """
    return Dataset(LineSource(located("text_lines", paths)))


def located(name: str, paths: files.PathLike | Sequence[files.PathLike]) -> tuple[str, ...]:
    """Names that may travel, of one path or several. Raises InputError if there is none."""
    several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not several:
        raise InputError(f"{name} needs at least one file")
    return tuple(files.locate(path) for path in several)
