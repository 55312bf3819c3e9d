"""Tensors of sequences whose lengths differ."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.data.items import SEQUENCES, Flow, Items, Spec
from compute.data.source import Key, Tensors
from compute.data.transform import Transform
from compute.errors import InputError
from compute.spec import TensorSpec, as_arrays

_CUTS = ("end", "start", "error")


class pad(Transform):
    """Sequences become a tensor (n, length, ...): shorter ones are filled up at the end, longer ones are cut.

    Inputs that are sequences are padded, and targets that are. By default a micro-batch is only as long as its longest
    sequence; `bucket_by_length` makes these alike.

    Args:
        length: the longest that there may be.
        value: what inputs are filled up with.
        target_value: what targets are filled up with; make it the criterion's ignored label. `value` by default.
        longest: False for `length` always.
        multiple: with `longest`, lengths are rounded up to a multiple of this, so that there are fewer of them: a model
            is planned anew for each.
        truncate: which part of a longer sequence is left out: "end", "start", or "error" to refuse it.
        with_lengths: adds the lengths as a further input, int64, at least 1: padding behind them is no data.
    """

    def __init__(
        self,
        length: int,
        value: float = 0,
        target_value: float | None = None,
        longest: bool = True,
        multiple: int = 1,
        truncate: str = "end",
        with_lengths: bool = False,
    ) -> None:
        for name, number in (("length", length), ("multiple", multiple)):
            if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
                raise InputError(f"pad: {name} must be a whole number of at least 1, got {number!r}")
        if truncate not in _CUTS:
            raise InputError(f"pad: truncate must be one of {', '.join(_CUTS)}, got {truncate!r}")
        self.length, self.multiple = int(length), int(multiple)
        self.value, self.target_value = value, value if target_value is None else target_value
        self.varying_length = longest
        self.truncate, self.with_lengths = truncate, with_lengths

    def output_specs(self, inputs: Flow, targets: Flow) -> tuple[Flow, Flow]:
        if not any(_is_sequence(spec) for spec in inputs):
            said = ", ".join(str(spec) for spec in inputs)
            raise InputError(f"pad takes sequences, the samples are {said}; put data.to_ids(vocabulary) before it")
        padded, answers = (tuple(self._spec(spec) for spec in flow) for flow in (inputs, targets))
        return ((*padded, TensorSpec((), "int64")) if self.with_lengths else padded), answers

    def _spec(self, spec: Spec) -> Spec:
        return TensorSpec((self.length, *spec.shape), spec.dtype) if _is_sequence(spec) else spec

    def __call__(self, x: Tensors, target: Tensors, key: Key, place: str) -> tuple[Tensors, Tensors]:
        inputs, targets = as_arrays(x), as_arrays(target)
        ragged = [array for array in (*inputs, *targets) if array.dtype == object]
        lengths = np.array([[len(item) for item in array] for array in ragged], dtype=np.int64)
        if self.truncate == "error" and int(lengths.max(initial=0)) > self.length:
            raise InputError(
                f"pad({self.length}): a sequence of {lengths.max()}; make length larger, or truncate"
            )
        size = self.length
        if self.varying_length:
            most = max(int(lengths.max(initial=1)), 1)
            size = min(-(-most // self.multiple) * self.multiple, self.length)
        padded = tuple(self._pad(array, size, self.value) for array in inputs)
        answers = tuple(self._pad(array, size, self.target_value) for array in targets)
        if self.with_lengths:
            padded = (*padded, np.clip(lengths[0], 1, size))
        return (padded[0] if len(padded) == 1 else padded), (answers[0] if len(answers) == 1 else answers)

    def _pad(self, array: NDArray[Any], size: int, value: float) -> NDArray[Any]:
        if array.dtype != object:
            return array
        out: NDArray[Any] = np.full((len(array), size, *array[0].shape[1:]), value, dtype=array[0].dtype)
        for row, item in zip(out, array, strict=True):
            part = item[-size:] if self.truncate == "start" else item[:size]
            row[: len(part)] = part
        return out


def _is_sequence(spec: Spec) -> bool:
    return isinstance(spec, Items) and spec.kind == SEQUENCES
