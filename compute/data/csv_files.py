"""CSV files (RFC 4180): columns of numbers as tensors, or one of texts."""

from __future__ import annotations

import csv as reader
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.data.columns import Columns, Group, groups, missing
from compute.data.dataset import Dataset
from compute.data.files import PathLike
from compute.data.items import TEXT, Flow, Items, item_array
from compute.data.labels import check_labels, whole_classes
from compute.data.lines import LineFile
from compute.data.source import Indices, LazySource, Tensors
from compute.data.text_files import located
from compute.errors import InputError
from compute.spec import TensorSpec

_TYPES = ("float32", "int64", "text")


class _Table:
    """The index of the files, and where each column is."""

    def __init__(self, lines: LineFile, names: list[str]) -> None:
        self.lines, self.names = lines, names


class CsvSource(LazySource[_Table]):
    """The records of CSV files; a batch reads and parses only its own."""

    def __init__(
        self,
        paths: tuple[str, ...],
        inputs: tuple[Group, ...],
        targets: tuple[Group, ...],
        types: tuple[str, str],
        labels: tuple[str, ...],
        classes: int | None,
        header: bool,
        delimiter: str,
    ) -> None:
        super().__init__()
        self.paths, self.inputs, self.targets, self.types = paths, inputs, targets, types
        self.labels, self._classes, self.header, self.delimiter = labels, classes, header, delimiter

    def _open(self) -> _Table:
        lines = LineFile(self.paths, quoted=True, skip=int(self.header))
        if not self.header:
            first = self._cells(lines.read(np.zeros(1, np.int64))[0], lambda: lines.describe(0)) if len(lines) else []
            return _Table(lines, [str(number) for number in range(len(first))])
        heads = []
        for file, head in zip(lines.files, lines.heads, strict=True):
            if not head:
                raise InputError(f"{file.name} is empty; a line of column names is needed, or header=False")
            heads.append([name.strip() for name in self._cells(head[0], lambda file=file: f"{file.name}, its header")])  # type: ignore[misc]
            wanted = [name for group in (*self.inputs, *self.targets) for name in group.names]
            if not set(wanted) <= set(heads[-1]):
                raise missing(file.name, wanted, heads[-1])
            if heads[-1] != heads[0]:
                raise InputError(f"{file.name} has other columns than {lines.files[0].name}; make them alike")
        return _Table(lines, heads[0])

    def __len__(self) -> int:
        return len(self.opened.lines)

    def _specs(self, columns: tuple[Group, ...], dtype: str) -> Flow:
        if dtype == "text":
            return tuple(Items(TEXT) for _ in columns)
        return tuple(TensorSpec((len(group.names),) if group.joined else (), dtype) for group in columns)

    @property
    def input_specs(self) -> Flow:
        return self._specs(self.inputs, self.types[0])

    @property
    def target_specs(self) -> Flow:
        return self._specs(self.targets, self.types[1])

    @property
    def classes(self) -> int | None:
        return self._classes

    def describe(self, index: int) -> str:
        return self.opened.lines.describe(index)

    def lengths(self) -> NDArray[np.int64]:
        return self.opened.lines.sizes

    def read(self, indices: Indices) -> tuple[Tensors, Tensors]:
        names, lines = self.opened.names, self.opened.lines
        rows = []
        for index, text in zip(indices.tolist(), lines.read(indices), strict=True):
            cells = self._cells(text, lambda index=index: self.describe(index))  # type: ignore[misc]
            if len(cells) != len(names):
                raise InputError(f"{self.describe(index)}: {len(cells)} fields instead of {len(names)}; correct it")
            rows.append(cells)
        place = {name: number for number, name in enumerate(names)}
        if not self.header:
            wanted = [name for group in (*self.inputs, *self.targets) for name in group.names]
            if not set(wanted) <= set(names):
                raise missing(self.paths[0], wanted, names)
        x = tuple(self._tensor(group, self.types[0], rows, place, indices) for group in self.inputs)
        target = tuple(self._tensor(group, self.types[1], rows, place, indices) for group in self.targets)
        if self._classes is not None:
            check_labels(target[0], self._classes, indices, self.describe)
        return (x[0] if len(x) == 1 else x), (target[0] if len(target) == 1 else target)

    def check(self) -> None:
        """Goes through the files once, for the index."""
        _ = self.opened

    def _cells(self, text: str, describe: Callable[[], str]) -> list[str]:
        try:
            (cells,) = reader.reader([text], delimiter=self.delimiter, strict=True)
        except (reader.Error, ValueError) as error:
            raise InputError(f"{describe()}: no CSV record ({error}); correct it") from None
        return cells

    def _tensor(
        self, group: Group, dtype: str, rows: list[list[str]], place: dict[str, int], indices: Indices
    ) -> NDArray[Any]:
        columns = [place[name] for name in group.names]
        if dtype == "text":
            return item_array(row[columns[0]] for row in rows)
        words = self.labels if group in self.targets else ()
        kind: Callable[[str], float] = float if dtype == "float32" else int
        if words:
            kind = {label: number for number, label in enumerate(words)}.__getitem__
        values = np.empty((len(rows), len(columns)), dtype=np.float64 if dtype == "float32" else np.int64)
        for number, row in enumerate(rows):
            for position, column in enumerate(columns):
                try:
                    values[number, position] = kind(row[column])
                except (ValueError, KeyError, OverflowError):
                    what = "no number" if dtype == "float32" else "no whole number"
                    what = f"none of the labels {', '.join(words)}" if words else what
                    raise InputError(
                        f"{self.describe(int(indices[number]))}, column {group.names[position]!r}: "
                        f"{row[column]!r} is {what}; correct it"
                    ) from None
        return values if group.joined else values[:, 0]


def csv(
    paths: PathLike | Sequence[PathLike],
    inputs: Columns,
    target: Columns | None = None,
    input_dtype: str = "float32",
    target_dtype: str = "int64",
    classes: int | Sequence[str] | None = None,
    header: bool = True,
    delimiter: str = ",",
) -> Dataset:
    """A data set of CSV files in UTF-8. An index of 16 bytes per record is kept; a batch reads its own records.

    Args:
        paths: one path or URL, or several files with the same columns.
        inputs: names of columns. A name is a tensor of one number; a list of names makes a vector; a tuple of these
            makes several tensors. Without a header the names are "0", "1", ...
        target: likewise; None for none.
        input_dtype: "float32", "int64", or "text" for columns of texts.
        target_dtype: "int64" or "float32".
        classes: the number of classes, if the target is a label; or the labels as they stand in the file, in the
            order of their numbers, if they are words.
        delimiter: one character, "\\t" for tab-separated files.
    """
    if input_dtype not in _TYPES or target_dtype not in _TYPES[:2]:
        raise InputError(f"csv: a type is one of {', '.join(_TYPES)}, got {input_dtype!r} and {target_dtype!r}")
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\n\r':
        raise InputError(f"csv: the delimiter must be one character, got {delimiter!r}")
    x, y = groups("csv", "inputs", inputs), groups("csv", "target", target)
    if input_dtype == "text" and any(group.joined for group in x):
        raise InputError("csv: texts make no vector; name one column, or a tuple of columns")
    words = tuple(classes) if classes is not None and not isinstance(classes, int) else ()
    count = len(words) if words else whole_classes("csv", classes if isinstance(classes, int) else None)
    if count is not None and (len(y) != 1 or y[0].joined or target_dtype != "int64"):
        raise InputError("csv: classes are for a target that is one column of int64 labels")
    names = located("csv", paths)
    return Dataset(CsvSource(names, x, y, (input_dtype, target_dtype), words, count, header, delimiter))
