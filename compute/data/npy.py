"""Arrays in .npy and .npz files. Only the rows that are asked for are read; nothing is ever unpickled."""

from __future__ import annotations

import ast
import io
import math
import operator
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.data import files
from compute.data.arrays import spec_of, target_spec_of
from compute.data.dataset import Dataset
from compute.data.items import Flow
from compute.data.labels import check_labels, whole_classes
from compute.data.records import Records
from compute.data.source import Indices, LazySource, Tensors, check_indices
from compute.errors import InputError

_HEADER_BYTES = 1 << 16
_LOCAL_HEADER = struct.Struct("<26xHH")  # a zip member's: lengths of name and extra field (APPNOTE 4.3.7)
_CHECKED_AT_ONCE = 1 << 16
_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {b"\x01": 2, b"\x02": 4, b"\x03": 4}  # of the header's length, by version
_NUMBERS = re.compile(r"[<>=|]?(f[248]|[iu][1248]|b1)")

Names = files.PathLike | tuple[files.PathLike, ...]


@dataclass(frozen=True)
class StoredArray:
    """An array (count, *shape) in a file, of which rows can be read."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    rows: Records

    def read(self, indices: Indices) -> NDArray[Any]:
        """Rows (len(indices), *shape). Raises InputError if the file is cut there."""
        return self.rows.read(indices).reshape(-1).view(self.dtype).reshape(len(indices), *self.shape)

    def empty(self) -> NDArray[Any]:
        """No rows; for the shape and type."""
        return np.empty((0, *self.shape), dtype=self.dtype)


def stored_array(file: files.File, begin: int = 0, end: int | None = None, name: str = "") -> StoredArray:
    """The array of a .npy file, or of the part begin..end of a file.

    Raises:
        InputError: it is no .npy file, cut short, or of a kind that cannot be read by rows.
    """
    name = name or file.name
    end = file.size if end is None else end
    shape, fortran, dtype, header_bytes = _header(file.read(begin, min(_HEADER_BYTES, end - begin)), name)
    if not shape:
        raise InputError(f"{name} holds a single number; an array (n, ...) is needed")
    if fortran and len(shape) > 1:
        raise InputError(f"{name} is stored column by column; write it with np.save(name, np.ascontiguousarray(array))")
    data = begin + header_bytes
    size = dtype.itemsize * math.prod(shape[1:])
    if size == 0:
        raise InputError(f"{name} holds an array of shape {shape}, whose samples are empty")
    if end - data != size * shape[0]:
        what = "cut short" if end - data < size * shape[0] else "damaged"
        where = f", it ends in record {(end - data) // size}" if what == "cut short" else ""
        raise InputError(f"{name} is {what}: {end - data} bytes for an array {shape} of {dtype}{where}; {files.REMEDY}")
    return StoredArray(name, dtype, tuple(shape[1:]), Records(file, data, size, shape[0]))


def _header(head: bytes, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether column by column, type, and size of the header: of a file that begins with `head` (NEP 1).

    numpy's own parser is for files that are whole: on damaged ones it raises whatever its tokenizer does.
    """
    size = _LENGTH_BYTES.get(head[6:7], 0)
    length = int.from_bytes(head[8 : 8 + size], "little")
    text = head[8 + size : 8 + size + length]
    if not head.startswith(_MAGIC) or not size or len(text) < length:
        raise InputError(f"{name} is no .npy file or a damaged one; write it again with np.save")
    try:
        fields = ast.literal_eval(text.decode().strip())
        descr, fortran, shape = (fields[key] for key in ("descr", "fortran_order", "shape"))
        sizes = tuple(operator.index(number) for number in shape)
        if min(sizes, default=0) < 0 or not isinstance(fortran, bool):
            raise ValueError(f"shape {sizes}")
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{name} has a damaged header ({reason}); write it again with np.save") from None
    if not isinstance(descr, str) or not _NUMBERS.fullmatch(descr):
        raise InputError(f"{name} holds {descr}, not numbers; write an array of numbers")
    return sizes, fortran, np.dtype(descr), 8 + size + length


class _MemoryFile(files.File):
    """Bytes in memory."""

    def __init__(self, name: str, data: bytes) -> None:
        super().__init__(name, len(data))
        self._data = data

    def read(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]


class _Reader(io.RawIOBase):
    """A File as a stream, for zipfile."""

    def __init__(self, file: files.File) -> None:
        self._file, self._position = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        if base + offset < 0:
            raise OSError("seek before the beginning")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def member(file: files.File, key: str) -> StoredArray:
    """The array `key` of an .npz file: by rows where it is stored plainly (np.savez), in memory where compressed.

    Raises:
        InputError: there is no such array, or the file is damaged.
    """
    name = f"{file.name}[{key!r}]"
    try:
        with zipfile.ZipFile(io.BufferedReader(_Reader(file))) as archive:
            try:
                info = archive.getinfo(f"{key}.npy")
            except KeyError:
                keys = ", ".join(item.removesuffix(".npy") for item in archive.namelist()) or "nothing"
                raise InputError(f"{file.name} holds no array {key!r} but {keys}; name one of them") from None
            if info.compress_type != zipfile.ZIP_STORED:
                return stored_array(_MemoryFile(file.name, archive.read(info)), name=name)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"{file.name} is no .npz file or a damaged one ({reason}); {files.REMEDY}") from None
    local = file.read(info.header_offset, _LOCAL_HEADER.size)
    if len(local) < _LOCAL_HEADER.size or not local.startswith(b"PK\x03\x04"):
        raise InputError(f"{name} is damaged: it has no header; {files.REMEDY}")
    begin = info.header_offset + _LOCAL_HEADER.size + sum(_LOCAL_HEADER.unpack(local))
    if begin + info.file_size > file.size:
        raise InputError(f"{name} is damaged: it goes beyond the file's end; {files.REMEDY}")
    return stored_array(file, begin, begin + info.file_size, name)


@dataclass
class _Arrays:
    inputs: tuple[StoredArray, ...]
    targets: tuple[StoredArray, ...]


class StoredSource(LazySource[_Arrays]):
    """Arrays in files, of which each batch reads its rows.

    Args:
        inputs, targets: (file, key) each; the key is None for .npy files.
    """

    def __init__(
        self,
        inputs: tuple[tuple[str, str | None], ...],
        targets: tuple[tuple[str, str | None], ...],
        classes: int | None,
    ) -> None:
        super().__init__()
        self._inputs, self._targets, self._classes = inputs, targets, classes

    def _open(self) -> _Arrays:
        opened: dict[str, files.File] = {}

        def array(name: str, key: str | None) -> StoredArray:
            file = opened.get(name) or opened.setdefault(name, files.open_file(name))
            return stored_array(file) if key is None else member(file, key)

        inputs, targets = (tuple(array(*pair) for pair in pairs) for pairs in (self._inputs, self._targets))
        arrays = _Arrays(inputs, targets)
        first = arrays.inputs[0]
        for other in (*arrays.inputs, *arrays.targets):
            if other.rows.count != first.rows.count:
                raise InputError(
                    f"{other.name} holds {other.rows.count} samples, {first.name} {first.rows.count}; make them fit"
                )
        if self._classes is not None and (len(arrays.targets) != 1 or _no_labels(arrays.targets[0])):
            raise InputError("classes are for a target that holds integer labels (n,)")
        return arrays

    def __len__(self) -> int:
        return self.opened.inputs[0].rows.count

    @property
    def input_specs(self) -> Flow:
        return tuple(spec_of(array.empty()) for array in self.opened.inputs)

    @property
    def target_specs(self) -> Flow:
        return tuple(target_spec_of(array.empty()) for array in self.opened.targets)

    @property
    def classes(self) -> int | None:
        return self._classes

    def read(self, indices: Indices) -> tuple[Tensors, Tensors]:
        arrays = self.opened
        check_indices(indices, len(self), arrays.inputs[0].name)
        x = tuple(array.read(indices) for array in arrays.inputs)
        target = tuple(array.read(indices) for array in arrays.targets)
        if self._classes is not None:
            check_labels(target[0], self._classes, indices, self._describe_target)
        return (x[0] if len(x) == 1 else x), (target[0] if len(target) == 1 else target)

    def describe(self, index: int) -> str:
        return f"{self.opened.inputs[0].name}, record {index}"

    def _describe_target(self, index: int) -> str:
        return f"{self.opened.targets[0].name}, record {index}"

    def check(self) -> None:
        """Looks at the headers and sizes, and at all labels."""
        if self._classes is None:
            return
        for first in range(0, len(self), _CHECKED_AT_ONCE):
            indices = np.arange(first, min(first + _CHECKED_AT_ONCE, len(self)), dtype=np.int64)
            check_labels(self.opened.targets[0].read(indices), self._classes, indices, self._describe_target)


def _no_labels(array: StoredArray) -> bool:
    return array.shape != () or array.dtype.kind not in "iu"


def npy(x: Names, target: Names = (), classes: int | None = None) -> Dataset:
    """A data set of .npy files, (n, *shape) each; a batch reads its rows only, so they may be larger than memory.

    Args:
        x: path or URL of the samples, or a tuple of several for samples of several tensors. Whole numbers of 32 bits
            and more are int64, all others float32.
        target: of the labels (n,) or other targets, or a tuple; () for none. Whole numbers are int64.
        classes: the number of classes, if the target is a label.
    """
    inputs, targets = (
        tuple((files.locate(name), None) for name in (names if isinstance(names, tuple) else (names,)))
        for names in (x, target)
    )
    if not inputs:
        raise InputError("npy needs at least one file of samples")
    return Dataset(StoredSource(inputs, targets, whole_classes("npy", classes)))


def npz(
    path: files.PathLike,
    x: str | tuple[str, ...] = "x",
    target: str | tuple[str, ...] = "y",
    classes: int | None = None,
) -> Dataset:
    """A data set of the arrays of one .npz file. np.savez's are read by rows, np.savez_compressed's kept in memory.

    Args:
        path: path or URL.
        x, target: names of the arrays, or tuples of names; as for `npy`.
    """
    name = files.locate(path)
    inputs, targets = (
        tuple((name, key) for key in (keys if isinstance(keys, tuple) else (keys,))) for keys in (x, target)
    )
    if not inputs:
        raise InputError("npz needs the name of at least one array of samples")
    return Dataset(StoredSource(inputs, targets, whole_classes("npz", classes)))
