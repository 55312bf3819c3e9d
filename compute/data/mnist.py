"""MNIST and sets in its format, such as Fashion-MNIST."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.data import idx
from compute.data.dataset import Dataset
from compute.data.source import Indices, Source
from compute.errors import InputError

CLASSES = 10


class MnistSource(Source):
    """Images and labels of one part of the set; holds the folder's name until first used."""

    def __init__(self, folder: str, train: bool) -> None:
        # The working directory of a worker is another one than the script's.
        self.folder = os.path.abspath(os.path.expanduser(folder))
        self.train = train
        self._loaded: tuple[NDArray[np.uint8], Indices] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}

    def __len__(self) -> int:
        if self._loaded is not None:
            return len(self._loaded[0])
        return idx.header(self._path("images"), idx.IMAGES_MAGIC).shape[0]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        if self._loaded is not None:
            return self._loaded[0].shape[1:]
        _, rows, columns = idx.header(self._path("images"), idx.IMAGES_MAGIC).shape
        return (1, rows, columns)

    @property
    def classes(self) -> int:
        return CLASSES

    def read(self, indices: Indices) -> tuple[NDArray[np.uint8], Indices]:
        if self._loaded is None:
            self._loaded = self._load()
        images, labels = self._loaded
        return images.take(indices, axis=0), labels.take(indices)

    def check(self) -> None:
        """Reads both files through (a third of a second for 60,000 images) and keeps nothing."""
        images, labels = self._path("images"), self._path("labels")
        self._check_labels(idx.check(images, idx.IMAGES_MAGIC).shape[0], idx.read(labels, idx.LABELS_MAGIC))

    def _load(self) -> tuple[NDArray[np.uint8], Indices]:
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
            raise InputError(f"{path} holds label {labels.max()}, expected 0..{CLASSES - 1}; fetch the file again")

    def _path(self, what: str) -> Path:
        """The file of images or labels, gzipped or plain; raises InputError if there is neither."""
        folder = Path(self.folder)
        stem = f"{'train' if self.train else 't10k'}-{what}-idx{3 if what == 'images' else 1}-ubyte"
        if not folder.is_dir():
            raise InputError(f"the data folder {folder} does not exist; name the folder that holds {stem}[.gz]")
        for name in (stem, f"{stem}.gz"):
            if (folder / name).is_file():
                return folder / name
        raise InputError(f"{folder} holds neither {stem} nor {stem}.gz; name the folder that holds MNIST's idx files")


def mnist(folder: str | os.PathLike[str], train: bool = True) -> Dataset:
    """MNIST's 60,000 training or 10,000 test images as uint8 (1, 28, 28) and labels 0..9, read from idx files.

    Args:
        folder: holds train-images-idx3-ubyte and the other three files, each plain or with .gz. It must be at the same
            place on every machine of the job. Nothing is opened before first use.
    """
    return Dataset(MnistSource(os.fspath(folder), train))
