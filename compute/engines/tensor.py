"""Where a value lies in memory in one plan."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

ROWS = "rows"
"""Row-major with the batch first, float32 or int64: what layers' own formulas, criterions and users see."""

BATCH_LAST = "batch last"
"""(*shape, n), row-major, float32."""


@dataclass(eq=False)
class Tensor:
    """An array and how a value lies in it.

    Attributes:
        layout: ROWS, BATCH_LAST or one of an engine's own.
        shared: somebody else reads it later, so it must not be overwritten; only gradients are ever overwritten.
    """

    array: NDArray[Any]
    layout: Hashable = ROWS
    shared: bool = False
