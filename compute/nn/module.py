"""Base of all layers and containers.

A module only describes: what it makes of an input shape and which parameters it has. It holds no weights and no
buffers; those belong to the compiled program. So a model is cheap to pickle, and one model serves many programs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compute.errors import InputError
from compute.nn.init import Initializer

if TYPE_CHECKING:
    from compute.graph import GraphBuilder

Shape = tuple[int, ...]
"""Shape of one sample, without the batch dimension."""


@dataclass(frozen=True)
class Parameter:
    """A parameter that a layer wants: its name within the layer, its shape and how it starts."""

    name: str
    shape: Shape
    initializer: Initializer


class Module:
    """A layer or a container of layers.

    Args:
        name: how messages, checkpoints and summaries call it. By default its class and its place in the model.
    """

    def __init__(self, name: str | None = None) -> None:
        if name is not None and (not name or "." in name or any(c.isspace() for c in name)):
            raise InputError(f"a layer's name must have no dots or spaces and not be empty, got {name!r}")
        self.name = name

    @property
    def kind(self) -> str:
        """The class's name, for messages and default names."""
        return type(self).__name__

    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape of one output sample.

        Raises:
            InputError: the layer cannot take this shape; the text says what it needs.
        """
        raise NotImplementedError(f"{self.kind} must define output_shape")

    def parameters(self, input_shape: Shape) -> list[Parameter]:
        """The layer's parameters for inputs of this shape; none by default."""
        return []

    def build(self, builder: GraphBuilder, source: int, path: str) -> int:
        """Adds the module to a graph behind node `source`; returns the node that holds its output."""
        return builder.add(self, source, path)


def positive(kind: str, **values: int) -> None:
    """Raises InputError unless every value is a whole number of at least 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{kind}: {name} must be a whole number of at least 1, got {value!r}")


def pair(kind: str, name: str, value: int | tuple[int, int], least: int) -> tuple[int, int]:
    """(height, width) from one number for both or from two; each at least `least`, otherwise InputError."""
    both = (value, value) if isinstance(value, int) else tuple(value)
    if len(both) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) and v >= least for v in both):
        raise InputError(f"{kind}: {name} must be one or two whole numbers of at least {least}, got {value!r}")
    return both[0], both[1]
