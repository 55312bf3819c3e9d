"""Cropping: paddings that cut off."""

from __future__ import annotations

from typing import ClassVar

from compute.nn.module import sizes
from compute.nn.padding import AxisPadding, Padded
from compute.nn.spatial import Spatial


class Cropping(Spatial, Padded):
    """Base of croppings of (channels, *size) samples."""

    def __init__(self, crops: tuple[int | tuple[int, int], ...], name: str | None) -> None:
        super().__init__(name)
        self.crops = tuple(sizes(self.kind, "a crop", crop, 2, 0) for crop in crops)

    def paddings(self, rank: int) -> dict[int, AxisPadding]:
        self.check((1,) * rank)
        return {1 + i: AxisPadding(-crop[0], -crop[1], "constant") for i, crop in enumerate(self.crops)}


class Cropping1d(Cropping):
    """Cuts (first, last) elements off (channels, length) samples; one number for both."""

    rank: ClassVar[int] = 1

    def __init__(self, length_crop: int | tuple[int, int] = 1, name: str | None = None) -> None:
        super().__init__((length_crop,), name)


class Cropping2d(Cropping):
    """Cuts (first, last) rows and columns off (channels, height, width) samples; one number for both."""

    rank: ClassVar[int] = 2

    def __init__(
        self,
        height_crop: int | tuple[int, int] = 0,
        width_crop: int | tuple[int, int] = 0,
        name: str | None = None,
    ) -> None:
        super().__init__((height_crop, width_crop), name)


class Cropping3d(Cropping):
    """Cuts (first, last) elements off each dimension of (channels, depth, height, width); one number for both."""

    rank: ClassVar[int] = 3

    def __init__(
        self,
        depth_crop: int | tuple[int, int] = 1,
        height_crop: int | tuple[int, int] = 1,
        width_crop: int | tuple[int, int] = 1,
        name: str | None = None,
    ) -> None:
        super().__init__((depth_crop, height_crop, width_crop), name)
