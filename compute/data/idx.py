"""Files in idx format (MNIST, Fashion-MNIST), plain or gzipped.

Layout: magic (big-endian uint32: 0x08 = bytes, then the number of dimensions), one big-endian uint32 per dimension,
then the elements. Images have magic 2051 and dimensions (count, rows, columns), labels have 2049 and (count,).
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from compute.data.files import REMEDY, PathLike, open_stream
from compute.errors import InputError

IMAGES_MAGIC = 2051
LABELS_MAGIC = 2049
_KIND = {IMAGES_MAGIC: "images", LABELS_MAGIC: "labels"}
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class IdxHeader:
    """What an idx file says of itself: the sizes of its dimensions."""

    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements, which are bytes."""
        return math.prod(self.shape)


def read(path: PathLike, magic: int) -> NDArray[np.uint8]:
    """The file's array, uint8.

    Raises:
        InputError: the file is missing, unreadable, cut short, too long, damaged or of another kind.
    """
    path = os.fspath(path)
    with open_stream(path) as stream:
        header = _header(stream, path, magic)
        # Grown as data come, not allocated at once: a damaged header may ask for terabytes.
        data = bytearray()
        for chunk in _chunks(stream, path, header):
            data += chunk
    return np.frombuffer(data, dtype=np.uint8).reshape(header.shape)


def check(path: PathLike, magic: int) -> IdxHeader:
    """Reads the file through without keeping it; returns its header. Raises InputError as `read`."""
    path = os.fspath(path)
    with open_stream(path) as stream:
        header = _header(stream, path, magic)
        for _ in _chunks(stream, path, header):
            pass
    return header


def header(path: PathLike, magic: int) -> IdxHeader:
    """Reads the header only. Raises InputError as `read`, for the part that is read."""
    path = os.fspath(path)
    with open_stream(path) as stream:
        return _header(stream, path, magic)


def _header(stream: BinaryIO, path: str, magic: int) -> IdxHeader:
    head = stream.read(4)
    if len(head) < 4:
        raise InputError(f"{path} is cut short: {len(head)} bytes instead of an idx header; {REMEDY}")
    (found,) = struct.unpack(">I", head)
    if found != magic:
        what = f"idx {_KIND[magic]}"
        other = f", the magic of idx {_KIND[found]}" if found in _KIND else ""
        raise InputError(
            f"{path} does not hold {what}: its magic is {found}{other}, expected {magic}; put the right file there"
        )
    dimensions = magic & 0xFF
    sizes = stream.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise InputError(f"{path} is cut short: {4 + len(sizes)} bytes instead of an idx header; {REMEDY}")
    shape = struct.unpack(f">{dimensions}I", sizes)
    if min(shape[1:], default=1) == 0:
        raise InputError(f"{path} is damaged: its header says {' x '.join(map(str, shape))} elements; {REMEDY}")
    return IdxHeader(shape)


def _chunks(stream: BinaryIO, path: str, header: IdxHeader) -> Iterator[bytes]:
    """The elements in pieces. Raises InputError unless there are exactly as many as the header says."""
    left = header.size
    while left:
        chunk = stream.read(min(left, _CHUNK_BYTES))
        if not chunk:
            shape = " x ".join(map(str, header.shape))
            raise InputError(
                f"{path} is cut short: {header.size - left} bytes of data, its header says {shape} = {header.size}; "
                f"{REMEDY}"
            )
        left -= len(chunk)
        yield chunk
    # Reading to the end also makes gzip compare its checksum.
    if stream.read(1):
        raise InputError(f"{path} is damaged: more than the {header.size} bytes its header says; {REMEDY}")
