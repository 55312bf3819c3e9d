"""Several data sets one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.data.dataset import Dataset
from compute.data.items import Flow
from compute.data.source import Indices, Key, LazySource, Tensors
from compute.errors import InputError
from compute.spec import Arrays, as_arrays


class ConcatSource(LazySource[Indices]):
    """Data sets with their transforms, one after the other; what is opened is where each begins, int64 (parts + 1,)."""

    def __init__(self, parts: tuple[Dataset, ...]) -> None:
        super().__init__()
        self.parts = parts
        self.concurrent = all(part.source.concurrent for part in parts)
        self.varying_length = any(part.varying_length for part in parts)

    def _open(self) -> Indices:
        flows = [part.flow for part in self.parts]
        for number, flow in enumerate(flows):
            if flow != flows[0]:
                said = [", ".join(str(spec) for spec in (*inputs, *targets)) for inputs, targets in (flows[0], flow)]
                raise InputError(f"concat: part 0 gives {said[0]}, part {number} gives {said[1]}; make them alike")
        return np.cumsum([0, *(len(part) for part in self.parts)], dtype=np.int64)

    def __len__(self) -> int:
        return int(self.opened[-1])

    @property
    def input_specs(self) -> Flow:
        return self.parts[0].flow[0]

    @property
    def target_specs(self) -> Flow:
        return self.parts[0].flow[1]

    @property
    def classes(self) -> int | None:
        classes = [part.classes for part in self.parts]
        known = [count for count in classes if count is not None]
        return max(known) if len(known) == len(classes) else None

    def check(self) -> None:
        _ = self.opened
        for part in self.parts:
            part.source.check()
        if all(len(part) for part in self.parts):  # one sample of each
            self.read(self.opened[:-1])

    def describe(self, index: int) -> str:
        part, own = self._locate(index)
        return self.parts[part].source.describe(own)

    def lengths(self) -> NDArray[np.int64] | None:
        known = [length for part in self.parts if (length := part.source.lengths()) is not None]
        return np.concatenate(known) if len(known) == len(self.parts) else None

    def read(self, indices: Indices) -> tuple[Tensors, Tensors]:
        return self.read_keyed(indices, (0, 0, 0))

    def read_keyed(self, indices: Indices, key: Key) -> tuple[Tensors, Tensors]:
        of = np.searchsorted(self.opened, indices, side="right") - 1
        rows: list[Indices] = []
        pieces: list[tuple[Tensors, Tensors]] = []
        for number in np.unique(of).tolist():
            mine = np.flatnonzero(of == number)
            own = indices[mine] - self.opened[number]
            rows.append(mine)
            pieces.append(self.parts[number].transformed(own, key, f"{number}."))
        if len(pieces) == 1:
            return pieces[0]
        count = len(indices)
        x = _merge(rows, [as_arrays(x) for x, _ in pieces], count)
        return x, _merge(rows, [as_arrays(target) for _, target in pieces], count)

    def _locate(self, index: int) -> tuple[int, int]:
        part = int(np.searchsorted(self.opened, index, side="right")) - 1
        return part, index - int(self.opened[part])


def _merge(rows: list[Indices], pieces: list[Arrays], count: int) -> Tensors:
    """Each tensor of the parts put together: rows[k] are the samples that pieces[k] holds."""
    merged: list[NDArray[Any]] = []
    for tensors in zip(*pieces, strict=True):
        if len({tensor.shape[1:] for tensor in tensors}) != 1:
            raise InputError("concat: the parts are padded to different lengths; pad behind concat, not before it")
        # Bytes and floats must not meet: later transforms take bytes for 0..255 and floats for 0..1.
        types = sorted({str(tensor.dtype) for tensor in tensors})
        if len(types) != 1:
            raise InputError(f"concat: the parts give {' and '.join(types)}; give them the same transforms of values")
        whole: NDArray[Any] = np.empty((count, *tensors[0].shape[1:]), dtype=tensors[0].dtype)
        for mine, tensor in zip(rows, tensors, strict=True):
            whole[mine] = tensor
        merged.append(whole)
    return merged[0] if len(merged) == 1 else tuple(merged)


def concat(*parts: Dataset) -> Dataset:
    """The samples of several data sets, each with its own transforms, one data set after the other.

    Raises:
        InputError: an argument is no data set; on first use, if their samples differ in shape or type.
    """
    if not parts or not all(isinstance(part, Dataset) for part in parts):
        raise InputError("concat takes data sets: data.concat(first, second)")
    return Dataset(ConcatSource(parts))
