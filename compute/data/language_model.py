"""Windows over a stream of tokens, for language models."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compute.data import files
from compute.data.dataset import Dataset
from compute.data.items import Flow
from compute.data.npy import StoredArray, stored_array
from compute.data.source import Indices, LazySource, check_indices
from compute.errors import InputError
from compute.spec import TensorSpec


class LanguageModelSource(LazySource[StoredArray | NDArray[np.int64]]):
    """Window i is tokens[i * length : (i + 1) * length], its target the same one token later."""

    def __init__(self, tokens: NDArray[np.int64] | str, length: int) -> None:
        super().__init__()
        self.tokens, self.length = tokens, length

    def _open(self) -> StoredArray | NDArray[np.int64]:
        if not isinstance(self.tokens, str):
            return self.tokens
        array = stored_array(files.open_file(self.tokens))
        if array.shape or array.dtype.kind not in "iu":
            raise InputError(f"{self.tokens} holds {array.dtype} (n, {array.shape}); token ids (n,) are needed")
        return array

    def __len__(self) -> int:
        tokens = self.opened
        count = tokens.rows.count if isinstance(tokens, StoredArray) else len(tokens)
        return max(count - 1, 0) // self.length

    @property
    def input_specs(self) -> Flow:
        return (TensorSpec((self.length,), "int64"),)

    @property
    def target_specs(self) -> Flow:
        return self.input_specs

    def read(self, indices: Indices) -> tuple[NDArray[Any], NDArray[Any]]:
        check_indices(indices, len(self), "the token stream")
        places = indices[:, None] * self.length + np.arange(self.length + 1)
        tokens = self.opened
        windows = tokens.read(places.reshape(-1)) if isinstance(tokens, StoredArray) else tokens[places]
        windows = windows.reshape(places.shape)
        return windows[:, :-1], windows[:, 1:]

    def describe(self, index: int) -> str:
        name = self.tokens if isinstance(self.tokens, str) else "the token stream"
        return f"{name}, window {index}"

    def check(self) -> None:
        if not len(self):
            raise InputError(f"language_model: fewer than {self.length + 1} tokens; make length smaller")


def language_model(tokens: ArrayLike | str | os.PathLike[str], length: int) -> Dataset:
    """Windows of `length` tokens of a stream, one behind the other; the target of each token is the next one.

    Both are int64 (length,). What does not fill a window at the end is left out.

    Args:
        tokens: ids (n,), which travel with the job; or path or URL of a .npy file of them, of which only windows are
            read.
    """
    if isinstance(length, bool) or not isinstance(length, int | np.integer) or length < 1:
        raise InputError(f"language_model: length must be a whole number of at least 1, got {length!r}")
    if isinstance(tokens, str | os.PathLike):
        return Dataset(LanguageModelSource(files.locate(tokens), int(length)))
    array = np.asarray(tokens)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(f"language_model takes token ids (n,), got {array.dtype} {array.shape}")
    return Dataset(LanguageModelSource(array.astype(np.int64), int(length)))
