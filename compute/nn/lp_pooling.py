"""Power-mean pooling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

from compute.errors import InputError
from compute.nn.arithmetic import Power
from compute.nn.container import join
from compute.nn.module import Activity, Builder, Module
from compute.nn.pooling import AvgPool, AvgPool1d, AvgPool2d, AvgPool3d


class LPPool(Module):
    """Base of LPPool1d, LPPool2d and LPPool3d."""

    pool: ClassVar[type[AvgPool]]

    def __init__(
        self,
        norm_type: float,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None = None,
        ceil_mode: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        if isinstance(norm_type, bool) or not isinstance(norm_type, int | float) or not 1 <= norm_type < math.inf:
            raise InputError(f"{self.kind}: norm_type must be a number of at least 1, got {norm_type!r}")
        mean = self.pool(kernel_size, stride, 0, ceil_mode, name="mean")
        root = Power(1 / norm_type, scale=math.prod(mean.kernel_size), name="root")
        self.parts = (Power(norm_type, name="power"), mean, root)

    def children(self) -> Iterator[Module]:
        return iter(self.parts)

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        for part in self.parts:
            sources = part.build(builder, sources, join(path, part.name or ""))
        return sources


_DOC = """ samples, as in torch.nn.

    y[c, p..] = (sum over k.. of x[c, p * stride + k ..]^norm_type)^(1 / norm_type). Where a sum is 0 its gradient is
    NaN, as in PyTorch. Made of nn.Power, an average pooling and nn.Power; sizes as of that pooling.
    """


class LPPool1d(LPPool):
    __doc__ = "Power-mean pooling of (channels, length)" + _DOC
    pool = AvgPool1d


class LPPool2d(LPPool):
    __doc__ = "Power-mean pooling of (channels, height, width)" + _DOC
    pool = AvgPool2d


class LPPool3d(LPPool):
    __doc__ = "Power-mean pooling of (channels, depth, height, width)" + _DOC
    pool = AvgPool3d
