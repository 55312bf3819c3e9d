"""Predictions as files `part-<first sample>-<end>.npz` below a directory or fsspec URL, each with arrays of outputs.

Whoever computes a part writes it as a whole, and two who compute the same part write the same bytes.
"""

from __future__ import annotations

import io
import os
import posixpath
import re
import zipfile
from typing import Any

import numpy as np

from compute.errors import InputError
from compute.spec import Arrays
from compute.storage import list_files, read_file, write_file

_NAME = re.compile(r"part-(\d{12})-(\d{12})\.npz")


def write_part(url: str, first: int, outputs: Arrays) -> None:
    """Writes the outputs, (n, *shape) each, of the samples from `first` on. Raises InputError if that fails."""
    buffer = io.BytesIO()
    np.savez(buffer, *outputs)
    end = first + len(outputs[0])
    write_file(posixpath.join(url, f"part-{first:012d}-{end:012d}.npz"), (buffer.getvalue(),))


def read_predictions(url: str | os.PathLike[str]) -> Any:
    """All outputs in the order of the samples: an array (n, *shape), or a tuple where the network has several.

    Raises:
        InputError: a part is missing or damaged.
    """
    place = os.fspath(url)
    found = sorted(
        (int(match[1]), int(match[2]), name) for name in list_files(place) if (match := _NAME.fullmatch(name))
    )
    if not found:
        raise InputError(f"{place} holds no predictions")
    parts = []
    end = 0
    for first, last, name in found:
        if first != end:
            raise InputError(f"{place} lacks the predictions of samples {end} to {first - 1}; predict again")
        parts.append(_read_part(posixpath.join(place, name)))
        end = last
    joined = tuple(np.concatenate(column) for column in zip(*parts, strict=True))
    return joined[0] if len(joined) == 1 else joined


def _read_part(place: str) -> Arrays:
    try:
        with np.load(io.BytesIO(read_file(place)), allow_pickle=False) as arrays:
            return tuple(arrays[f"arr_{index}"] for index in range(len(arrays.files)))
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{place} is damaged ({error}); predict again") from None
