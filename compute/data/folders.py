"""Folders of image or text files, one subfolder per class."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.data import files
from compute.data.dataset import Dataset
from compute.data.image_files import decode_image
from compute.data.items import IMAGES, TEXT, Flow, Items, item_array
from compute.data.source import Indices, LazySource, Tensors, check_indices
from compute.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


class _Listing:
    """The files found: their names as UTF-8 bytes, relative to the folder, and their labels."""

    def __init__(self, names: NDArray[np.bytes_], labels: Indices, classes: list[str]) -> None:
        self.names, self.labels, self.classes = names, labels, classes


class FolderSource(LazySource[_Listing]):
    """The files below a folder, listed when first used; classes are its subfolders in the order of their names."""

    suffixes: tuple[str, ...] = ()

    def __init__(self, folder: files.PathLike) -> None:
        super().__init__()
        self.folder = files.locate(folder)

    def _open(self) -> _Listing:
        found = [name for name in files.walk(self.folder) if "/" in name and not _hidden(name)]
        if self.suffixes:
            found = [name for name in found if name.lower().endswith(self.suffixes)]
        if not found:
            what = f" that end in {', '.join(self.suffixes)}" if self.suffixes else ""
            raise InputError(f"{self.folder} has no subfolders with files{what}; make one subfolder per class")
        classes = sorted({name.split("/", 1)[0] for name in found})
        number = {name: label for label, name in enumerate(classes)}
        labels = np.array([number[name.split("/", 1)[0]] for name in found], dtype=np.int64)
        return _Listing(np.array([name.encode("utf-8", "surrogateescape") for name in found]), labels, classes)

    def __len__(self) -> int:
        return len(self.opened.labels)

    @property
    def classes(self) -> int:
        return len(self.opened.classes)

    def describe(self, index: int) -> str:
        return files.join(self.folder, bytes(self.opened.names[index]).decode("utf-8", "surrogateescape"))

    def check(self) -> None:
        _ = self.opened

    def read(self, indices: Indices) -> tuple[Tensors, Tensors]:
        check_indices(indices, len(self), self.folder)
        names = [self.describe(index) for index in indices.tolist()]
        return item_array(self.decode(files.read_bytes(name), name) for name in names), self.opened.labels[indices]

    @abstractmethod
    def decode(self, data: bytes, name: str) -> Any:
        """The item in a file. Raises InputError, naming it, where it is damaged."""


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


class ImageFolderSource(FolderSource):
    """Image files of any size."""

    suffixes = IMAGE_SUFFIXES

    def __init__(self, folder: files.PathLike, channels: int) -> None:
        super().__init__(folder)
        if channels not in (1, 3):
            raise InputError(f"image_folder: channels must be 1 (grey) or 3 (red, green, blue), got {channels!r}")
        self.channels = channels

    @property
    def input_specs(self) -> Flow:
        return (Items(IMAGES, "float32", (self.channels,)),)

    def decode(self, data: bytes, name: str) -> NDArray[np.uint8]:
        return decode_image(data, name, self.channels)


class TextFolderSource(FolderSource):
    """Text files."""

    def __init__(self, folder: files.PathLike, encoding: str) -> None:
        super().__init__(folder)
        self.encoding = encoding

    @property
    def input_specs(self) -> Flow:
        return (Items(TEXT),)

    def decode(self, data: bytes, name: str) -> str:
        try:
            return data.decode(self.encoding)
        except UnicodeDecodeError as error:
            raise InputError(f"{name} is not {self.encoding} ({error.reason}); name its encoding") from None
        except LookupError:
            raise InputError(f"text_folder: there is no encoding {self.encoding!r}; the usual one is utf-8") from None


def image_folder(folder: files.PathLike, channels: int = 3) -> Dataset:
    """Image files, in one subfolder per class: bytes (channels, height, width) of any size, and labels 0, 1, ...

    The classes are the subfolders in the order of their names; files may lie deeper. Append `data.resize((h, w))`, or
    `data.resize(s)` and a crop, or `data.random_resized_crop(size)`.

    Args:
        folder: path or URL.
        channels: 3 for red, green, blue, 1 for grey; files of another kind are converted.
    """
    return Dataset(ImageFolderSource(folder, channels))


def text_folder(folder: files.PathLike, encoding: str = "utf-8") -> Dataset:
    """Text files, in one subfolder per class, as 20 Newsgroups comes: texts, and labels 0, 1, ...

    Args:
        folder: path or URL.
        encoding: of all files.
    """
    return Dataset(TextFolderSource(folder, encoding))
