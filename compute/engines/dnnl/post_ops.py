"""What a primitive computes on its result before it stores it."""

from __future__ import annotations

from dataclasses import dataclass

from compute.engines.dnnl.constants import Binary
from compute.engines.dnnl.descriptor import Descriptor


@dataclass(frozen=True)
class SumPostOp:
    """destination = result + scale * what the destination held before."""

    scale: float = 1.0


@dataclass(frozen=True)
class EltwisePostOp:
    """An element-wise function of the result, an `Eltwise`."""

    algorithm: int
    alpha: float = 0.0
    beta: float = 0.0


@dataclass(frozen=True)
class BinaryPostOp:
    """A function of the result and a further argument, which `post_op_argument` numbers."""

    algorithm: Binary
    source: Descriptor


PostOp = SumPostOp | EltwisePostOp | BinaryPostOp
