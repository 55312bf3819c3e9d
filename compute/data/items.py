"""What flows between transforms before it is a tensor: strings, token lists, sequences and images of any size.

A micro-batch of such items is an object array (n,); a transform such as `pad` or `resize` makes a tensor of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.spec import Shape, Specs, TensorSpec

TEXT = "text"
TOKENS = "tokens"
SEQUENCES = "sequences"
IMAGES = "images"

_REMEDY = {
    TEXT: "append data.tokenize() and what follows it",
    TOKENS: "append data.to_ids(vocabulary) and data.pad(length)",
    SEQUENCES: "append data.pad(length)",
    IMAGES: "append data.resize((height, width)) or a crop of a fixed size",
}


@dataclass(frozen=True)
class Items:
    """Spec of items that are no tensor yet.

    Attributes:
        kind: TEXT (str), TOKENS (list of str), SEQUENCES (arrays (length, *shape), the lengths differ) or
            IMAGES (arrays (channels, height, width), the sizes differ).
        dtype: type of the tensor that they will be, "float32" or "int64".
        shape: of one element of a sequence, () for token ids; (channels,) of images.
    """

    kind: str
    dtype: str = "float32"
    shape: Shape = ()

    def __str__(self) -> str:
        return {TEXT: "text", TOKENS: "lists of tokens"}.get(self.kind, f"{self.kind} of any size")


Spec = TensorSpec | Items
Flow = tuple[Spec, ...]
"""The specs of inputs or targets between two transforms; `compute.spec.Specs` is the special case of tensors only."""


def tensors_only(flow: Flow, what: str) -> Specs:
    """The flow as the specs of tensors. Raises InputError, with the missing transform, if there are other items."""
    specs = []
    for spec in flow:
        if isinstance(spec, Items):
            raise InputError(f"the data set's {what} are {spec}, which no model takes; {_REMEDY[spec.kind]}")
        specs.append(spec)
    return tuple(specs)


def item_array(items: Iterable[Any]) -> NDArray[Any]:
    """An object array (n,) of items, even where they are arrays of equal shapes."""
    listed = list(items)
    array = np.empty(len(listed), dtype=object)
    for position, item in enumerate(listed):
        array[position] = item
    return array


def is_items(x: Any) -> bool:
    """Whether a micro-batch holds items rather than a tensor."""
    return isinstance(x, np.ndarray) and x.dtype == object
