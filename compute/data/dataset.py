"""Data sets: a source of samples and the transforms behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError

if TYPE_CHECKING:
    from compute.data.transform import Transform

Key = tuple[int, int, int]
"""(seed, step, micro_batch): names the random numbers of a micro-batch."""
Labels = NDArray[np.int64]


class Source(ABC):
    """Where samples come from. Subclass it for one of your own.

    It must hold names, not data, until first used, and pickle small: the driver sends it to the workers.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples; may open the files."""

    @property
    @abstractmethod
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample; may open the files."""

    @abstractmethod
    def read(self, indices: Labels) -> tuple[NDArray[Any], Labels]:
        """New arrays: samples (len(indices), *sample_shape) of any numeric type, and int64 labels."""

    @property
    def classes(self) -> int | None:
        """Number of classes that labels may name, None if unknown."""
        return None

    def check(self) -> None:  # noqa: B027  (most sources in memory have nothing to check)
        """A cheap look at the files. Raises InputError, one line with the remedy."""


class Dataset:
    """A source and its transforms; `dataset >> transform` appends one."""

    def __init__(self, source: Source, transforms: tuple[Transform, ...] = ()) -> None:
        self.source = source
        self.transforms = transforms

    def __rshift__(self, transform: Transform) -> Dataset:
        from compute.data.transform import Transform

        if not isinstance(transform, Transform):
            raise InputError(f"after >> there must be a data.Transform, got {transform!r}")
        return Dataset(self.source, (*self.transforms, transform))

    def __len__(self) -> int:
        return len(self.source)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample after the transforms."""
        shape = self.source.sample_shape
        for transform in self.transforms:
            shape = transform.output_shape(shape)
        return tuple(shape)

    @property
    def classes(self) -> int | None:
        """Number of classes that labels may name, None if unknown."""
        return self.source.classes

    def check(self) -> None:
        """Looks at the source's files and runs the first sample through the transforms.

        Raises:
            InputError: one line that says what was found where, and the remedy.
        """
        self.source.check()
        if len(self) == 0:
            raise InputError("the data set has no samples")
        x, _ = self.batch(np.zeros(1, dtype=np.int64), (0, 0, 0))
        if x.shape[1:] != self.sample_shape:
            raise InputError(
                f"the transforms promise samples of shape {self.sample_shape} but make {x.shape[1:]}; "
                "mend output_shape of your own transform"
            )

    def batch(self, indices: Labels, key: Key) -> tuple[NDArray[np.float32], Labels]:
        """The samples at `indices`, float32 (n, *sample_shape), and their labels, int64 (n,).

        Args:
            indices: int64 (n,), each in 0..len(self)-1.
            key: (seed, step, micro_batch); random transforms draw from it, so that any worker gets the same batch.
        """
        x, target = self.source.read(indices)
        for place, transform in enumerate(self.transforms):
            x, target = transform(x, target, key, place)
        return np.ascontiguousarray(x, dtype=np.float32), np.ascontiguousarray(target, dtype=np.int64)
