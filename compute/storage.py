"""Whole files on local paths and fsspec URLs."""

from __future__ import annotations

import os
import posixpath
import secrets
from collections.abc import Iterable
from typing import Any

from compute.errors import InputError


def read_file(url: str | os.PathLike[str]) -> bytes:
    """All bytes of a file.

    Raises:
        InputError: it is missing or cannot be read.
    """
    place = os.fspath(url)
    try:
        if "://" not in place:
            with open(place, "rb") as file:
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
    try:
        if "://" not in place:
            return os.listdir(place)
        fs, path = _remote(place)
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
    try:
        if "://" not in place:
            _write_local(place, parts)
            return
        fs, path = _remote(place)
        fs.makedirs(posixpath.dirname(path), exist_ok=True)
        fs.pipe_file(path, b"".join(parts))
    except OSError as error:
        raise InputError(f"cannot write {place}: {error.strerror or error}") from None


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
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
