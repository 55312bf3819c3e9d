"""Whole files on local paths and fsspec URLs."""

from __future__ import annotations

import os
import posixpath
import secrets
import shutil
from collections.abc import Callable, Iterable
from typing import Any

from compute.errors import InputError


def read_file(url: str | os.PathLike[str]) -> bytes:
    """All bytes of a file.

    Raises:
        InputError: it is missing or cannot be read.
    """
    place = os.fspath(url)
    local = _local(place)
    try:
        if local is not None:
            with open(local, "rb") as file:
                return file.read()
        fs, path = _remote(place)
        return bytes(fs.cat_file(path))
    except FileNotFoundError:
        raise InputError(f"{place} does not exist; check its name") from None
    except OSError as error:
        raise InputError(f"cannot read {place}: {error.strerror or error}") from None


def list_files(url: str | os.PathLike[str]) -> list[str]:
    """Names in a directory, in no order; none where it does not exist.

    Raises:
        InputError: it cannot be read.
    """
    place = os.fspath(url)
    local = _local(place)
    try:
        if local is not None:
            return os.listdir(local)
        fs, path = _remote(place)
        fs.invalidate_cache()  # some remember listings: what other processes have written since would be missed
        return [posixpath.basename(name.rstrip("/")) for name in fs.ls(path, detail=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(f"cannot read {place}: {error.strerror or error}") from None


def write_file(url: str | os.PathLike[str], parts: Iterable[bytes | memoryview]) -> None:
    """Writes a file as a whole: on a local file system beside its place, synced and renamed; elsewhere as one object.

    Raises:
        InputError: the place cannot be written to.
    """
    place = os.fspath(url)
    local = _local(place)
    try:
        if local is not None:
            _write_local(local, parts)
            return
        fs, path = _remote(place)
        fs.makedirs(posixpath.dirname(path), exist_ok=True)
        fs.pipe_file(path, b"".join(parts))
    except OSError as error:
        raise InputError(f"cannot write {place}: {error.strerror or error}") from None


def delete_file(url: str | os.PathLike[str]) -> None:
    """Deletes a file, for good when it returns; one that is not there is no matter.

    Raises:
        InputError: it cannot be deleted.
    """

    def unlink(path: str) -> None:
        os.unlink(path)
        _sync_directory(os.path.dirname(os.path.abspath(path)))

    _delete(os.fspath(url), unlink, lambda fs, path: fs.rm_file(path))


def delete_directory(url: str | os.PathLike[str]) -> None:
    """Deletes a directory with all that is in it; one that is not there is no matter.

    Raises:
        InputError: it cannot be deleted.
    """

    def remove(fs: Any, path: str) -> None:
        fs.invalidate_cache()
        fs.rm(path, recursive=True)

    _delete(os.fspath(url), shutil.rmtree, remove)


def _delete(place: str, local: Callable[[str], None], remote: Callable[[Any, str], None]) -> None:
    path = _local(place)
    try:
        if path is not None:
            local(path)
        else:
            remote(*_remote(place))
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise InputError(f"cannot delete {place}: {error.strerror or error}") from None


def _local(place: str) -> str | None:
    """The path of a place on a local file system; None for other URLs. (fsspec writes local files in place.)"""
    scheme, separator, path = place.partition("://")
    if not separator:
        return place
    return path if scheme in ("file", "local") else None


def _remote(url: str) -> tuple[Any, str]:
    import fsspec  # not for local paths: it costs 50 ms and 10 MB

    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise InputError(f"cannot use the URL {url}: {error}") from None
    return fs, path


def _write_local(place: str, parts: Iterable[bytes | memoryview]) -> None:
    directory, name = os.path.split(os.path.abspath(place))
    os.makedirs(directory, exist_ok=True)
    beside = os.path.join(directory, f".{name}.{secrets.token_hex(4)}")
    try:
        with open(beside, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, place)
    except OSError:
        if os.path.exists(beside):
            os.unlink(beside)
        raise
    _sync_directory(directory)


def _sync_directory(directory: str) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
