"""What criterions check, and how they say it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.spec import Specs, TensorSpec


def refuse(values: NDArray[Any], wrong: NDArray[np.bool_], message: str) -> None:
    """Raises InputError if an element of `wrong`, (n, ...) as `values`, is true.

    Args:
        message: what the values must be; "value of sample place" goes before it.
    """
    if wrong.any():
        place = tuple(int(index) for index in np.argwhere(wrong)[0])
        raise InputError(f"{values[place]:g} of sample {place[0]} of the batch{position(place)} {message}", place[0])


def position(place: tuple[int, ...]) -> str:
    """Where within the sample an index (sample, 1, 2) is, for a message."""
    return f" at position {', '.join(map(str, place[1:]))}" if len(place) > 1 else ""


def describe(specs: Specs) -> str:
    """Specs for a message."""
    return ", ".join(str(spec) for spec in specs)


def counted(kind: str, outputs: Specs, targets: Specs, wanted: int, wanted_targets: int | None) -> None:
    """Raises InputError unless there are so many outputs and targets; None for any number of targets."""
    if len(outputs) != wanted:
        raise InputError(
            f"{kind} needs {wanted} output{'s' * (wanted > 1)} of the network, got {len(outputs)}: {describe(outputs)}"
        )
    if wanted_targets is not None and len(targets) != wanted_targets:
        raise InputError(
            f"{kind} needs {wanted_targets} target{'s' * (wanted_targets > 1)} per sample, "
            f"the data set has {len(targets)}: {describe(targets)}"
        )


def float_outputs(kind: str, outputs: Specs) -> None:
    """Raises InputError if an output holds whole numbers."""
    if any(spec.dtype != "float32" for spec in outputs):
        raise InputError(f"{kind} needs float32 outputs of the network, got {describe(outputs)}")


def same_shape(kind: str, output: TensorSpec, target: TensorSpec) -> None:
    """Raises InputError unless the shapes are equal, dimensions of size 1 aside."""
    if [size for size in output.shape if size > 1] != [size for size in target.shape if size > 1]:
        raise InputError(f"{kind} needs targets of the output's shape {output.shape}, the data set has {target.shape}")


def some_dimensions(kind: str, output: TensorSpec) -> None:
    """Raises InputError if the output is one number per sample, so that there is no last dimension."""
    if not output.shape:
        raise InputError(f"{kind} needs outputs (..., size), the network gives one number per sample")


def number(kind: str, name: str, value: float, least: float | None = None, above: float | None = None) -> float:
    """The setting as a float; InputError unless it is finite, at least `least` and larger than `above`."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not np.isfinite(value):
        raise InputError(f"{kind}: {name} must be a number, got {value!r}")
    if least is not None and value < least:
        raise InputError(f"{kind}: {name} must be at least {least:g}, got {value!r}")
    if above is not None and value <= above:
        raise InputError(f"{kind}: {name} must be more than {above:g}, got {value!r}")
    return float(value)


def weights(kind: str, name: str, value: Any) -> NDArray[np.float64] | None:
    """Weights as a float64 array, None as None; InputError unless they are numbers that are not negative."""
    if value is None:
        return None
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{kind}: {name} must be numbers, got {value!r}") from None
    if not array.size or not np.all(np.isfinite(array)) or np.any(array < 0):
        raise InputError(f"{kind}: {name} must be numbers that are not negative, got {value!r}")
    return array


def broadcastable(kind: str, name: str, weight: NDArray[np.float64] | None, output: TensorSpec) -> None:
    """Raises InputError unless there is no weight or it broadcasts to the output's shape."""
    if weight is None:
        return
    try:
        fits = np.broadcast_shapes(weight.shape, output.shape) == output.shape
    except ValueError:
        fits = False
    if not fits:
        raise InputError(f"{kind}: {name} of shape {weight.shape} does not fit a sample's output {output.shape}")


def vectors(kind: str, outputs: Specs) -> None:
    """Raises InputError unless all outputs are float32 vectors of one size."""
    float_outputs(kind, outputs)
    if any(len(spec.shape) != 1 or spec.shape != outputs[0].shape for spec in outputs):
        raise InputError(f"{kind} needs outputs (size,), all of one size, got {describe(outputs)}")
