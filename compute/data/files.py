"""Files by local path or fsspec URL, read at any position. Local paths do without fsspec altogether.

Every error that a user can mend becomes an InputError that names the file.
"""

from __future__ import annotations

import gzip
import os
import stat
import threading
import weakref
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

from compute.errors import InputError

PathLike = str | os.PathLike[str]

REMEDY = "fetch the file again"
_GZIP_LEAST_BYTES = 18  # header and trailer (RFC 1952)


def is_url(name: str) -> bool:
    """Whether a name is a URL for fsspec and no local path."""
    return "://" in name


def locate(name: PathLike) -> str:
    """The name as it may travel to other machines: an absolute path, since workers run elsewhere, or a URL."""
    if not isinstance(name, str | os.PathLike):
        raise InputError(f"a file or folder is named by a path or a URL, got {name!r}")
    text = os.fspath(name)
    return text if is_url(text) else os.path.abspath(os.path.expanduser(text))


def join(folder: str, name: str) -> str:
    """The name of a file in a folder; `name` may have slashes."""
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else os.path.join(folder, name)


@contextmanager
def errors_of(name: str) -> Iterator[None]:
    """Turns what goes wrong in reading `name` into InputError."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{name} does not exist; check the name") from None
    except PermissionError as error:
        raise InputError(f"cannot read {name}: {error.strerror or error}; check its permissions") from None
    except OSError as error:
        if is_url(name) and not isinstance(error, IsADirectoryError | NotADirectoryError):
            raise  # a network's trouble is no mistake of the user's
        raise InputError(f"cannot read {name}: {error.strerror or error}; check its permissions") from None


class File(ABC):
    """A file that is open for reading at any position, by several threads at once."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        """Bytes."""

    @abstractmethod
    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on; fewer if the file ends before."""

    def read_ranges(self, offsets: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        """`read` of each pair."""
        return [self.read(offset, size) for offset, size in zip(offsets, sizes, strict=True)]


class _LocalFile(File):
    def __init__(self, name: str) -> None:
        with errors_of(name):
            self._descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._descriptor)
            status = os.fstat(self._descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{name} is a folder; name a file")
        super().__init__(name, status.st_size)

    def read(self, offset: int, size: int) -> bytes:
        with errors_of(self.name):
            data = os.pread(self._descriptor, size, offset)
            if len(data) == size:
                return data
            parts = [data]  # a signal or 2 GiB at once: go on where it stopped
            while data and sum(map(len, parts)) < size:
                done = sum(map(len, parts))
                data = os.pread(self._descriptor, size - done, offset + done)
                parts.append(data)
            return b"".join(parts)


class _RemoteFile(File):
    def __init__(self, name: str) -> None:
        self._system, self._path = filesystem(name)
        with errors_of(name):
            info = self._system.info(self._path)
        if info["type"] == "directory":
            raise InputError(f"{name} is a folder; name a file")
        if info["size"] is None:
            raise InputError(f"the server of {name} does not tell its size; copy the file elsewhere")
        super().__init__(name, int(info["size"]))

    def read(self, offset: int, size: int) -> bytes:
        with errors_of(self.name):
            # fsspec takes an end beyond the file's for granted in some systems and refuses it in others.
            end = min(offset + size, self.size)
            return bytes(self._system.cat_file(self._path, start=offset, end=end)) if end > offset else b""

    def read_ranges(self, offsets: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        ends = [min(offset + size, self.size) for offset, size in zip(offsets, sizes, strict=True)]
        with errors_of(self.name):
            # One call: systems behind a network then fetch all of them at a time.
            found = self._system.cat_ranges([self._path] * len(ends), list(offsets), ends, on_error="raise")
        return [bytes(data) for data in found]


def filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path in it.

    Raises:
        InputError: the protocol is unknown or needs a package that is not installed.
    """
    from fsspec.core import url_to_fs  # here, since local paths do not need it

    try:
        system, path = url_to_fs(url)
    except (ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"cannot open {url}: {reason}; check the protocol, or install what it needs") from None
    return system, path


def open_file(name: str) -> File:
    """Opens a file. Raises InputError if it does not exist or cannot be read."""
    return _RemoteFile(name) if is_url(name) else _LocalFile(name)


def is_file(name: str) -> bool:
    """Whether a file of that name exists."""
    if is_url(name):
        system, path = filesystem(name)
        return bool(system.isfile(path))
    return os.path.isfile(name)


def is_folder(name: str) -> bool:
    """Whether a folder of that name exists."""
    if is_url(name):
        system, path = filesystem(name)
        return bool(system.isdir(path))
    return os.path.isdir(name)


def walk(folder: str) -> list[str]:
    """Names of all files below a folder, relative to it, with slashes, sorted.

    Raises:
        InputError: there is no such folder.
    """
    if is_url(folder):
        system, path = filesystem(folder)
        if not system.isdir(path):
            raise InputError(f"{folder} does not exist or is no folder; check the name")
        prefix = system._strip_protocol(path).rstrip("/") + "/"
        return sorted(name.removeprefix(prefix) for name in system.find(path))
    if not os.path.isdir(folder):
        raise InputError(f"{folder} does not exist or is no folder; check the name")
    found = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        inner = os.path.relpath(place, folder).replace(os.sep, "/")
        found += [name if inner == "." else f"{inner}/{name}" for name in names]
    return sorted(found)


def read_bytes(name: str) -> bytes:
    """A whole file; one that ends in .gz is unpacked."""
    with open_stream(name) as stream:
        return stream.read()


@contextmanager
def open_stream(name: str) -> Iterator[BinaryIO]:
    """Opens a file for reading from its beginning; one that ends in .gz is unpacked on the way."""
    with errors_of(name):
        raw: Any
        if is_url(name):
            system, path = filesystem(name)
            raw = system.open(path, "rb")
        else:
            raw = open(name, "rb")  # noqa: SIM115 - closed below, as the other
        with raw:
            if not name.endswith(".gz"):
                yield raw
                return
            try:
                with gzip.GzipFile(fileobj=raw) as stream:
                    yield stream  # type: ignore[misc]
            except EOFError:
                raise InputError(f"{name} is cut short: the gzip stream ends early; {REMEDY}") from None
            except (gzip.BadGzipFile, zlib.error) as error:
                size = raw.seek(0, os.SEEK_END)
                if size < _GZIP_LEAST_BYTES:
                    raise InputError(f"{name} is cut short: {size} bytes are no gzip file; {REMEDY}") from None
                raise InputError(f"{name} is a damaged gzip file ({error}); {REMEDY}") from None


class Opener:
    """Keeps the files open that were used last; for any number of threads."""

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._files: dict[str, File] = {}

    def __call__(self, name: str) -> File:
        """The file, opened now or before. Raises InputError as `open_file`."""
        with self._lock:
            file = self._files.pop(name, None)
            if file is None:
                file = open_file(name)
            self._files[name] = file  # the last used comes last
            if len(self._files) > self._most:
                del self._files[next(iter(self._files))]
            return file
