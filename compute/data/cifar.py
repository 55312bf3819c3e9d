"""CIFAR-10, CIFAR-100 and sets in their binary format.

A record is one or two label bytes and 3072 pixel bytes: 32 x 32 of red, then of green, then of blue, row by row
(https://www.cs.toronto.edu/~kriz/cifar.html). CIFAR-100's labels are coarse (0..19), then fine (0..99).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compute.data import files
from compute.data.dataset import Dataset
from compute.data.records import Records
from compute.data.source import Indices, LazySource, check_indices
from compute.errors import InputError
from compute.spec import Shape

SHAPE = (3, 32, 32)
_PIXELS = 3072
_CHECKED_AT_ONCE = 4096

CIFAR10_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
CIFAR10_TEST = ("test_batch.bin",)


class _Parts:
    """The opened files, one after the other."""

    def __init__(self, parts: list[Records]) -> None:
        self.parts = parts
        self.begins = np.cumsum([0, *(part.count for part in parts)], dtype=np.int64)


class CifarSource(LazySource[_Parts]):
    """The images of some files; each batch reads only its records.

    Args:
        folder: holds the files, itself or in `inner`, the folder that the distributed archive makes.
        labels: classes of each of a record's label bytes.
        label: which of them is the target.
    """

    def __init__(self, folder: files.PathLike, inner: str, names: tuple[str, ...], labels: tuple[int, ...], label: int):
        super().__init__()
        self.folder = files.locate(folder)
        self.inner, self.names, self.labels, self.label = inner, names, labels, label

    def _open(self) -> _Parts:
        folder = self.folder
        if not files.is_folder(folder):
            raise InputError(f"the data folder {folder} does not exist; name the folder that holds {self.names[0]}")
        if not files.is_file(files.join(folder, self.names[0])) and files.is_folder(files.join(folder, self.inner)):
            folder = files.join(folder, self.inner)
        return _Parts([self._records(files.join(folder, name)) for name in self.names])

    def _records(self, name: str) -> Records:
        if not files.is_file(name):
            raise InputError(f"{name} does not exist; name the folder that holds {', '.join(self.names)}")
        file = files.open_file(name)
        size = len(self.labels) + _PIXELS
        count, rest = divmod(file.size, size)
        if rest or not count:
            raise InputError(
                f"{name} is cut short or no CIFAR file: {file.size} bytes are no whole number of records of {size}, "
                f"record {count} has {rest}; {files.REMEDY}"
            )
        return Records(file, 0, size, count)

    def __len__(self) -> int:
        return int(self.opened.begins[-1])

    @property
    def sample_shape(self) -> Shape:
        return SHAPE

    @property
    def classes(self) -> int:
        return self.labels[self.label]

    def read(self, indices: Indices) -> tuple[NDArray[np.uint8], Indices]:
        opened = self.opened
        check_indices(indices, len(self), self.folder)
        of = np.searchsorted(opened.begins, indices, side="right") - 1
        images = np.empty((len(indices), *SHAPE), dtype=np.uint8)
        target = np.empty(len(indices), dtype=np.int64)
        for number in np.unique(of).tolist():
            rows, part = np.flatnonzero(of == number), opened.parts[number]
            own = indices[rows] - opened.begins[number]
            records = part.read(own)
            self._check_labels(part, own, records)
            images[rows] = records[:, len(self.labels) :].reshape(-1, *SHAPE)
            target[rows] = records[:, self.label]
        return images, target

    def describe(self, index: int) -> str:
        opened = self.opened
        part = int(np.searchsorted(opened.begins, index, side="right")) - 1
        return f"{opened.parts[part].file.name}, record {index - int(opened.begins[part])}"

    def check(self) -> None:
        """Looks at the sizes, and at the labels of local files (a quarter of a second for 50,000)."""
        for part in self.opened.parts:
            if files.is_url(part.file.name):
                continue
            for first in range(0, part.count, _CHECKED_AT_ONCE):
                own = np.arange(first, min(first + _CHECKED_AT_ONCE, part.count), dtype=np.int64)
                self._check_labels(part, own, part.read(own))

    def _check_labels(self, part: Records, own: Indices, records: NDArray[np.uint8]) -> None:
        for place, classes in enumerate(self.labels):
            wrong = np.flatnonzero(records[:, place] >= classes)
            if len(wrong):
                raise InputError(
                    f"{part.file.name}, record {own[wrong[0]]}: label {records[wrong[0], place]}, expected "
                    f"0..{classes - 1}; {files.REMEDY}, or name a file of the right set"
                )


def cifar10(folder: files.PathLike, train: bool = True) -> Dataset:
    """CIFAR-10's 50,000 training or 10,000 test images as bytes (3, 32, 32), red, green, blue, and labels 0..9.

    Append `data.bgr()` for BigDL's order of channels.

    Args:
        folder: a path or URL; holds data_batch_1.bin to data_batch_5.bin or test_batch.bin of the binary version, or
            their folder cifar-10-batches-bin. It must be at the same place on every machine of the job.
    """
    names = CIFAR10_TRAIN if train else CIFAR10_TEST
    return Dataset(CifarSource(folder, "cifar-10-batches-bin", names, (10,), 0))


def cifar100(folder: files.PathLike, train: bool = True, coarse: bool = False) -> Dataset:
    """CIFAR-100's images as bytes (3, 32, 32), red, green, blue, and labels 0..99, or the 20 coarse ones.

    Args:
        folder: a path or URL; holds train.bin or test.bin of the binary version, or their folder cifar-100-binary.
    """
    names = ("train.bin" if train else "test.bin",)
    return Dataset(CifarSource(folder, "cifar-100-binary", names, (20, 100), 0 if coarse else 1))
