"""Parts of a source, and other orders of it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.data.items import Flow
from compute.data.order import bucket_order
from compute.data.source import Indices, Key, LazySource, Source, Tensors
from compute.errors import InputError
from compute.philox import Stream
from compute.spec import Shape


class _Wrapped(LazySource[Indices]):
    """A source that stands before another one. What is opened is int64: see the subclass."""

    def __init__(self, base: Source) -> None:
        super().__init__()
        self.base = base
        self.concurrent = base.concurrent
        self.varying_length = base.varying_length

    @property
    def sample_shape(self) -> Shape:
        return self.base.sample_shape

    @property
    def input_specs(self) -> Flow:
        return self.base.input_specs

    @property
    def target_specs(self) -> Flow:
        return self.base.target_specs

    @property
    def classes(self) -> int | None:
        return self.base.classes

    def check(self) -> None:
        self.base.check()

    def read(self, indices: Indices) -> tuple[Tensors, Tensors]:
        return self.read_keyed(indices, (0, 0, 0))


class SubsetSource(_Wrapped):
    """Some samples of another source; what is opened are their indices there, int64."""

    def __len__(self) -> int:
        return len(self.opened)

    def read_keyed(self, indices: Indices, key: Key) -> tuple[Tensors, Tensors]:
        return self.base.read_keyed(self.opened[indices], key)

    def order(self, seed: int, epoch: int) -> Indices:
        """The base's order without what is not here, so that what it keeps together stays together."""
        place = np.full(len(self.base), -1, dtype=np.int64)
        place[self.opened] = np.arange(len(self.opened))
        order = place[self.base.order(seed, epoch)]
        return order[order >= 0]

    def lengths(self) -> NDArray[np.int64] | None:
        lengths = self.base.lengths()
        return None if lengths is None else lengths[self.opened]

    def describe(self, index: int) -> str:
        return self.base.describe(int(self.opened[index]))

    @abstractmethod
    def _open(self) -> Indices:
        """Indices in the base."""


class TakeSource(SubsetSource):
    """The first samples."""

    def __init__(self, base: Source, count: int) -> None:
        super().__init__(base)
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
            raise InputError(f"take needs a whole number of at least 1, got {count!r}")
        self.count = int(count)

    def _open(self) -> Indices:
        return np.arange(min(self.count, len(self.base)), dtype=np.int64)


class PickSource(SubsetSource):
    """The samples at given indices."""

    def __init__(self, base: Source, indices: NDArray[Any]) -> None:
        super().__init__(base)
        if indices.ndim != 1 or not len(indices) or indices.dtype.kind not in "iu" or int(indices.min()) < 0:
            raise InputError("subset needs a sequence of whole numbers of at least 0")
        if len(np.unique(indices)) != len(indices):
            raise InputError("subset: an index is named twice, but an epoch visits every sample once; name each once")
        self.indices = indices.astype(np.int64)

    def _open(self) -> Indices:
        if int(self.indices.max()) >= len(self.base):
            raise InputError(f"subset: index {self.indices.max()} of a data set of {len(self.base)} samples")
        return self.indices


class SplitSource(SubsetSource):
    """One of the two parts of a random split; the indices follow from the seed and are in ascending order."""

    def __init__(self, base: Source, fraction: float, seed: int, part: int) -> None:
        super().__init__(base)
        if not 0 < fraction < 1:
            raise InputError(f"split needs a fraction between 0 and 1, got {fraction!r}")
        self.fraction, self.seed, self.part = float(fraction), seed, part

    def _open(self) -> Indices:
        shuffled = Stream("split", self.seed).permutation(len(self.base))
        cut = round(self.fraction * len(self.base))
        return np.sort(shuffled[cut:] if self.part else shuffled[:cut])


class BucketSource(_Wrapped):
    """All samples of another source in an order of like lengths; what is opened are the lengths, int64."""

    def __init__(self, base: Source, bucket: int, lengths: NDArray[Any] | None) -> None:
        super().__init__(base)
        if isinstance(bucket, bool) or not isinstance(bucket, int | np.integer) or bucket < 1:
            raise InputError(f"bucket_by_length needs a whole number of at least 1, got {bucket!r}")
        if lengths is not None and (lengths.ndim != 1 or lengths.dtype.kind not in "iu"):
            raise InputError("bucket_by_length: lengths must be whole numbers, one per sample")
        self.bucket = int(bucket)
        self.given = None if lengths is None else lengths.astype(np.int64)

    def _open(self) -> Indices:
        lengths = self.base.lengths() if self.given is None else self.given
        if lengths is None:
            raise InputError("bucket_by_length: the source does not know its lengths; give lengths=")
        if len(lengths) != len(self.base):
            raise InputError(f"bucket_by_length: {len(lengths)} lengths for {len(self.base)} samples")
        return lengths

    def __len__(self) -> int:
        return len(self.base)

    def check(self) -> None:
        super().check()
        _ = self.opened

    def read_keyed(self, indices: Indices, key: Key) -> tuple[Tensors, Tensors]:
        return self.base.read_keyed(indices, key)

    def order(self, seed: int, epoch: int) -> Indices:
        return bucket_order(self.opened, self.bucket, seed, epoch)

    def lengths(self) -> NDArray[np.int64]:
        return self.opened

    def describe(self, index: int) -> str:
        return self.base.describe(index)
