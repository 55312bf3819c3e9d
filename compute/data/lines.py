"""Text files, line by line or record by record: an index of where each begins, and reads of those asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from compute.data import files
from compute.data.source import Indices, check_indices
from compute.errors import InputError

_BLOCK_BYTES = 1 << 22
_NEWLINE, _RETURN, _QUOTE = 10, 13, 34
_BOM = b"\xef\xbb\xbf"


class LineFile:
    """The records of some text files. UTF-8; empty lines are left out.

    Args:
        names: paths or URLs.
        quoted: whether a newline between two double quotes belongs to the record (RFC 4180), as in CSV files.
        skip: records at the beginning of each file that are none of the data.

    Raises:
        InputError: a file cannot be read, is compressed, or ends within quotes.
    """

    def __init__(self, names: tuple[str, ...], quoted: bool = False, skip: int = 0) -> None:
        self.files = [_open(name) for name in names]
        indexed = [_index(file, quoted) for file in self.files]
        self.heads = [[self._text(file, *pair) for pair in zip(*(part[:skip].tolist() for part in pairs), strict=True)]
                      for file, pairs in zip(self.files, indexed, strict=True)]  # fmt: skip
        self.begins = np.concatenate([starts[skip:] for starts, _ in indexed])
        self.sizes = np.concatenate([sizes[skip:] for _, sizes in indexed])
        """Where each record begins in its file, and its bytes without the newline: int64 (records,)."""
        self._first = np.cumsum([0, *(max(len(starts) - skip, 0) for starts, _ in indexed)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.begins)

    def read(self, indices: Indices) -> list[str]:
        """The records' texts. Raises InputError, naming the record, where one is cut or not UTF-8."""
        check_indices(indices, len(self), self.files[0].name)
        texts = [""] * len(indices)
        of = np.searchsorted(self._first, indices, side="right") - 1
        for number in np.unique(of).tolist():
            rows = np.flatnonzero(of == number)
            begins, sizes = self.begins[indices[rows]].tolist(), self.sizes[indices[rows]].tolist()
            pieces = self.files[number].read_ranges(begins, sizes)
            for row, piece, size in zip(rows.tolist(), pieces, sizes, strict=True):
                if len(piece) < size:
                    raise InputError(f"{self.describe(int(indices[row]))}: the file was cut since it was first read")
                texts[row] = _decode(piece, lambda row=row: self.describe(int(indices[row])))  # type: ignore[misc]
        return texts

    def describe(self, index: int) -> str:
        """File, record and place of a record."""
        number = int(np.searchsorted(self._first, index, side="right")) - 1
        record = index - int(self._first[number])
        return f"{self.files[number].name}, record {record} (byte {self.begins[index]})"

    @staticmethod
    def _text(file: files.File, begin: int, size: int) -> str:
        return _decode(file.read(begin, size), lambda: f"{file.name}, byte {begin}")


def _decode(data: bytes, describe: Callable[[], str]) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{describe()}: not UTF-8 ({error.reason}); convert the file to UTF-8") from None


def _open(name: str) -> files.File:
    if name.endswith((".gz", ".bz2", ".xz", ".zst")):
        raise InputError(f"{name} is compressed and cannot be read from the middle; unpack it")
    return files.open_file(name)


def _index(file: files.File, quoted: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each record that is not empty begins, and its size without the newline: int64 (records,) each."""
    ends: list[NDArray[np.int64]] = []
    shorter: list[NDArray[np.int64]] = []  # 1 where a carriage return stands before the newline
    quotes = offset = 0
    last = _NEWLINE
    while offset < file.size:
        data = file.read(offset, _BLOCK_BYTES)
        if not data:
            raise InputError(f"{file.name} was cut while it was read")
        block = np.frombuffer(data, dtype=np.uint8)
        found = np.flatnonzero(block == _NEWLINE)
        if quoted:
            seen = np.cumsum(block == _QUOTE)
            found = found[(quotes + seen[found]) % 2 == 0]
            quotes += int(seen[-1])
        before = np.where(found > 0, block[found - 1], last)
        ends.append(found + offset)
        shorter.append((before == _RETURN).astype(np.int64))
        last = int(block[-1])
        offset += len(block)
    if quotes % 2:
        raise InputError(f'{file.name} is damaged: it ends within double quotes; close them, or write "" for a quote')
    if last != _NEWLINE:  # the last line need not end in one
        ends.append(np.array([offset], dtype=np.int64))
        shorter.append(np.array([int(last == _RETURN)], dtype=np.int64))
    end = np.concatenate([np.empty(0, np.int64), *ends])
    begin = np.concatenate([[0], end[:-1] + 1]).astype(np.int64)[: len(end)]
    if file.size and file.read(0, 3) == _BOM:
        begin[0] = 3
    size = end - begin - np.concatenate([np.empty(0, np.int64), *shorter])
    return begin[size > 0], size[size > 0]
