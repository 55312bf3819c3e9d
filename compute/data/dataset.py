"""Data sets: a source of samples and the transforms behind it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.data.items import Flow, tensors_only
from compute.data.source import Indices, Key, Source, Tensors
from compute.data.subset import BucketSource, PickSource, SplitSource, TakeSource
from compute.data.transform import Transform
from compute.errors import InputError
from compute.spec import Arrays, Shape, Specs, TensorSpec

_TRANSIENT = ("_lock", "_specs")


class Dataset:
    """A source and its transforms; `dataset >> transform` appends one."""

    def __init__(self, source: Source, transforms: tuple[Transform, ...] = ()) -> None:
        self.source = source
        self.transforms = transforms
        self._specs: tuple[Flow, Flow] | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _TRANSIENT}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._specs = None
        self._lock = threading.Lock()

    def __rshift__(self, transform: Transform) -> Dataset:
        if not isinstance(transform, Transform):
            raise InputError(f"after >> there must be a data.Transform, got {transform!r}")
        return Dataset(self.source, (*self.transforms, transform))

    def __len__(self) -> int:
        return len(self.source)

    # --- what it gives ----------------------------------------------------------------------------------------------

    @property
    def flow(self) -> tuple[Flow, Flow]:
        """Specs of inputs and targets after the transforms; they need not be tensors yet."""
        if self._specs is None:
            inputs, targets = self.source.input_specs, self.source.target_specs
            for transform in self.transforms:
                inputs, targets = transform.output_specs(inputs, targets)
            self._specs = tuple(inputs), tuple(targets)
        return self._specs

    @property
    def input_specs(self) -> Specs:
        """The tensors of one sample after the transforms. Raises InputError if they are not tensors yet."""
        return tensors_only(self.flow[0], "samples")

    @property
    def target_specs(self) -> Specs:
        """The tensors of one sample's target after the transforms; () if there are none."""
        return tensors_only(self.flow[1], "targets")

    @property
    def sample_shape(self) -> Shape:
        """Shape of one sample after the transforms, for samples of one tensor. Raises InputError for others."""
        specs = self.input_specs
        if len(specs) != 1:
            raise InputError(f"the samples have {len(specs)} tensors and no one shape; see input_specs")
        return specs[0].shape

    @property
    def varying_length(self) -> bool:
        """Whether the first dimension of a sample may be shorter than its spec says, the same in a micro-batch."""
        return self.source.varying_length or any(transform.varying_length for transform in self.transforms)

    @property
    def classes(self) -> int | None:
        """Number of classes that labels may name, None if unknown."""
        classes = self.source.classes
        for transform in self.transforms:
            classes = transform.output_classes(classes)
        return classes

    def order(self, seed: int, epoch: int) -> Indices:
        """The order in which an epoch visits the samples, int64 (len(self),): every one once, the same everywhere."""
        return self.source.order(seed, epoch)

    def check(self) -> None:
        """Looks at the source's files and runs the first sample through the transforms.

        Raises:
            InputError: one line that says what was found where, and the remedy.
        """
        self.source.check()
        if len(self) == 0:
            raise InputError("the data set has no samples")
        self.batch(np.zeros(1, dtype=np.int64), (0, 0, 0))

    def batch(self, indices: Indices, key: Key) -> tuple[Tensors, Tensors]:
        """The samples at `indices` and their targets.

        Args:
            indices: int64 (n,), each in 0..len(self)-1.
            key: (seed, step, micro_batch); random transforms draw from it, so that any worker gets the same batch.

        Returns:
            Inputs and targets, each one contiguous array (n, *shape) of the spec's type, or a tuple of them where there
            are several tensors, () where there are none.

        Raises:
            InputError: a file is damaged, a transform does not keep its promise, or there is a NaN or an infinity.
        """
        # First: what is wrong with the specs is better told before what is wrong with the arrays.
        specs, target_specs = self.input_specs, self.target_specs
        x, target = self.transformed(indices, key)
        inputs = self._tensors(x, specs, "samples", indices)
        targets = self._tensors(target, target_specs, "targets", indices)
        return (inputs[0] if len(inputs) == 1 else inputs), (targets[0] if len(targets) == 1 else targets)

    def transformed(self, indices: Indices, key: Key, place: str = "") -> tuple[Tensors, Tensors]:
        """What comes out of the transforms, before it is converted. `place` goes before the transforms' places."""
        if self.source.concurrent:
            x, target = self.source.read_keyed(indices, key)
        else:
            with self._lock:
                x, target = self.source.read_keyed(indices, key)
        for number, transform in enumerate(self.transforms):
            x, target = transform(x, target, key, f"{place}{number}")
        return x, target

    def _tensors(self, value: Tensors, specs: Specs, what: str, indices: Indices) -> Arrays:
        arrays = tuple(value) if isinstance(value, tuple | list) else (value,)  # of anything, if a transform errs
        if len(arrays) != len(specs):
            raise InputError(
                f"the transforms promise {len(specs)} tensors of {what} but make {len(arrays)}; "
                "mend output_specs of your own transform"
            )
        return tuple(self._tensor(array, spec, what, indices) for array, spec in zip(arrays, specs, strict=True))

    def _tensor(self, array: NDArray[Any], spec: TensorSpec, what: str, indices: Indices) -> NDArray[Any]:
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub" or len(array) != len(indices):
            kind = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise InputError(f"the transforms make {what} that are no array of {len(indices)} of {spec}, but {kind}")
        if array.shape[1:] != spec.shape and not self._shorter(array.shape[1:], spec.shape):
            raise InputError(
                f"the transforms promise {what} of shape {spec.shape} but make {array.shape[1:]}; "
                "mend output_shape of your own transform"
            )
        if spec.dtype == "int64":
            if array.dtype.kind == "f":
                raise InputError(f"the transforms promise int64 {what} but make {array.dtype}; mend output_specs")
            return np.ascontiguousarray(array, dtype=np.int64)
        with np.errstate(over="ignore"):  # found below
            tensor = np.ascontiguousarray(array, dtype=np.float32)
        # The sum of finite numbers is rarely not finite, and quicker to have than a look at each.
        if array.dtype.kind == "f" and not _sum_is_finite(tensor):
            bad = np.flatnonzero(~np.isfinite(tensor).reshape(len(tensor), -1).all(axis=1))
            if len(bad):
                where = self.source.describe(int(indices[bad[0]]))
                raise InputError(f"{where}: the {what} hold a NaN or an infinity; correct the data or the transforms")
        return tensor

    def _shorter(self, shape: Shape, spec: Shape) -> bool:
        fits = len(shape) == len(spec) > 0 and shape[1:] == spec[1:] and 1 <= shape[0] <= spec[0]
        return fits and self.varying_length

    # --- parts of it ------------------------------------------------------------------------------------------------

    def take(self, count: int) -> Dataset:
        """The first `count` samples, or all if there are fewer."""
        return Dataset(TakeSource(self.source, count), self.transforms)

    def subset(self, indices: Sequence[int] | NDArray[Any]) -> Dataset:
        """The samples at `indices`, each named once; they travel with the job."""
        return Dataset(PickSource(self.source, np.asarray(indices)), self.transforms)

    def split(self, fraction: float, seed: int = 1) -> tuple[Dataset, Dataset]:
        """Two data sets without a common sample: `fraction` of the samples, drawn by `seed`, and the others."""
        first, second = (Dataset(SplitSource(self.source, fraction, seed, part), self.transforms) for part in (0, 1))
        return first, second

    def bucket_by_length(self, bucket: int, lengths: Sequence[int] | NDArray[Any] | None = None) -> Dataset:
        """The same samples, visited so that every `bucket` neighbours have like lengths; less padding for sequences.

        Args:
            bucket: usually the batch size; then all samples of a step have like lengths.
            lengths: of all samples, (len(self),); needed where the source does not know them.
        """
        known = None if lengths is None else np.asarray(lengths)
        return Dataset(BucketSource(self.source, bucket, known), self.transforms)


def _sum_is_finite(tensor: NDArray[Any]) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(tensor.sum()))
