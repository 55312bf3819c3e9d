"""Where samples come from."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from compute.data.items import Flow
from compute.data.order import epoch_order
from compute.errors import InputError
from compute.spec import Shape, TensorSpec

Key = tuple[int, int, int]
"""(seed, step, micro_batch): names the random numbers of a micro-batch."""

Indices = NDArray[np.int64]
"""Indices of samples, int64 (n,)."""

Tensors = NDArray[Any] | tuple[NDArray[Any], ...]
"""A micro-batch's inputs or targets: one array (n, *shape), or a tuple of several; () for no targets."""

Opened = TypeVar("Opened")


class Source(ABC):
    """Where samples come from. Subclass it for one of your own.

    It must hold names, not data, until first used, and pickle small: the driver sends it to the workers. `__len__`,
    `sample_shape` and `read` are enough for samples of one tensor with a whole-numbered label each.
    """

    concurrent = False
    """Whether several threads may call `read` at once; if not, they take turns."""
    varying_length = False
    """Whether the first dimension of a sample may be shorter than its spec says, the same in a micro-batch."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples; may open the files."""

    @property
    def sample_shape(self) -> Shape:
        """Shape of one sample, for samples of one tensor; may open the files."""
        raise NotImplementedError(f"{type(self).__name__} must define sample_shape, or input_specs")

    @property
    def input_specs(self) -> Flow:
        """The tensors of one sample; by default one float32 tensor of `sample_shape`."""
        return (TensorSpec(self.sample_shape),)

    @property
    def target_specs(self) -> Flow:
        """The tensors of one sample's target; by default a label, one int64 number. () if there are none."""
        return (TensorSpec((), "int64"),)

    @abstractmethod
    def read(self, indices: Indices) -> tuple[Tensors, Tensors]:
        """New arrays: samples and targets, each one array (len(indices), *shape) or a tuple of arrays.

        Types may be narrower than those of the specs, bytes for instance: they are converted after the transforms.
        """

    def read_keyed(self, indices: Indices, key: Key) -> tuple[Tensors, Tensors]:
        """What `read` gives, for sources that apply random transforms themselves: `key` names the micro-batch."""
        return self.read(indices)

    def order(self, seed: int, epoch: int) -> Indices:
        """The order in which an epoch visits the samples: a permutation, a pure function of the source, seed, epoch."""
        return epoch_order(len(self), seed, epoch)

    def lengths(self) -> NDArray[np.int64] | None:
        """What is proportional to each sample's length, int64 (len(self),), for bucketing; None if it is not known."""
        return None

    def describe(self, index: int) -> str:
        """Names a sample for a message: its file and record."""
        return f"sample {index}"

    @property
    def classes(self) -> int | None:
        """Number of classes that labels may name, None if unknown."""
        return None

    def check(self) -> None:  # noqa: B027  (most sources in memory have nothing to check)
        """A cheap look at the files. Raises InputError, one line with the remedy."""


class LazySource(Source, Generic[Opened]):
    """A source that opens its files once, when first used. What it opened stays out of pickles."""

    concurrent = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: Opened | None = None

    @abstractmethod
    def _open(self) -> Opened:
        """Opens the files; called once in a process."""

    @property
    def opened(self) -> Opened:
        """What `_open` gave, for any number of threads."""
        opened = self._opened
        if opened is None:
            with self._lock:
                if self._opened is None:
                    self._opened = self._open()
                opened = self._opened
        return opened

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_opened")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        LazySource.__init__(self)


def check_indices(indices: Indices, count: int, what: str) -> None:
    """Raises InputError unless all indices are in 0..count-1; negative ones would silently mean the end."""
    if len(indices) and (int(indices.min()) < 0 or int(indices.max()) >= count):
        raise InputError(f"{what} has samples 0..{count - 1}, asked for {int(indices.min())}..{int(indices.max())}")
