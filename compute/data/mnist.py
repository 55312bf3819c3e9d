"""MNIST and sets in its format, such as Fashion-MNIST."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compute.data import files, idx
from compute.data.dataset import Dataset
from compute.data.source import Indices, LazySource, check_indices
from compute.errors import InputError
from compute.spec import Shape

CLASSES = 10


class MnistSource(LazySource[tuple[NDArray[np.uint8], Indices]]):
    """Images and labels of one part of the set; holds the folder's name until first used, then all of it."""

    def __init__(self, folder: files.PathLike, train: bool) -> None:
        super().__init__()
        self.folder = files.locate(folder)
        self.train = train

    def __len__(self) -> int:
        if self._opened is not None:
            return len(self._opened[0])
        return idx.header(self._path("images"), idx.IMAGES_MAGIC).shape[0]

    @property
    def sample_shape(self) -> Shape:
        if self._opened is not None:
            return self._opened[0].shape[1:]
        _, rows, columns = idx.header(self._path("images"), idx.IMAGES_MAGIC).shape
        return (1, rows, columns)

    @property
    def classes(self) -> int:
        return CLASSES

    def read(self, indices: Indices) -> tuple[NDArray[np.uint8], Indices]:
        images, labels = self.opened
        check_indices(indices, len(images), self.folder)
        return images.take(indices, axis=0), labels.take(indices)

    def check(self) -> None:
        """Reads both files through (a third of a second for 60,000 images) and keeps nothing."""
        images, labels = self._path("images"), self._path("labels")
        self._check_labels(idx.check(images, idx.IMAGES_MAGIC).shape[0], idx.read(labels, idx.LABELS_MAGIC))

    def _open(self) -> tuple[NDArray[np.uint8], Indices]:
        images = idx.read(self._path("images"), idx.IMAGES_MAGIC)
        labels = idx.read(self._path("labels"), idx.LABELS_MAGIC)
        self._check_labels(len(images), labels)
        return images[:, None], labels.astype(np.int64)

    def _check_labels(self, images: int, labels: NDArray[np.uint8]) -> None:
        path = self._path("labels")
        if len(labels) != images:
            raise InputError(
                f"{path} holds {len(labels)} labels, but {self._path('images')} {images} images; "
                "fetch both files of one set"
            )
        if len(labels) and int(labels.max()) >= CLASSES:
            record = int((labels >= CLASSES).argmax())
            raise InputError(
                f"{path} holds label {labels[record]}, expected 0..{CLASSES - 1}, in record {record}; "
                "fetch the file again"
            )

    def describe(self, index: int) -> str:
        return f"{self._path('images')}, record {index}"

    def _path(self, what: str) -> str:
        """The file of images or labels, gzipped or plain; raises InputError if there is neither."""
        folder = self.folder
        stem = f"{'train' if self.train else 't10k'}-{what}-idx{3 if what == 'images' else 1}-ubyte"
        if not files.is_folder(folder):
            raise InputError(f"the data folder {folder} does not exist; name the folder that holds {stem}[.gz]")
        for name in (stem, f"{stem}.gz"):
            if files.is_file(files.join(folder, name)):
                return files.join(folder, name)
        raise InputError(f"{folder} holds neither {stem} nor {stem}.gz; name the folder that holds MNIST's idx files")


def mnist(folder: files.PathLike, train: bool = True) -> Dataset:
    """MNIST's 60,000 training or 10,000 test images as uint8 (1, 28, 28) and labels 0..9, read from idx files.

    Args:
        folder: a path or URL; holds train-images-idx3-ubyte and the other three files, each plain or with .gz. It must
            be at the same place on every machine of the job. Nothing is opened before first use.
    """
    return Dataset(MnistSource(folder, train))
