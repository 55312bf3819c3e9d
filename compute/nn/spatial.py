"""What layers over (channels, *size) samples have in common."""

from __future__ import annotations

from typing import ClassVar

from compute.errors import InputError
from compute.nn.layer import UnaryLayer
from compute.spec import Shape

SIZE_NAMES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
"""How messages call the spatial dimensions."""


class Spatial(UnaryLayer):
    """Base of layers whose samples are (channels, *size), as PyTorch has them.

    Sequences (times, channels) and images (height, width, channels) go through nn.ChannelsLast(layer).

    Attributes:
        rank: number of spatial dimensions.
    """

    rank: ClassVar[int]

    def check(self, input_shape: Shape, channels: int | None = None) -> tuple[int, ...]:
        """The sizes of a sample.

        Raises:
            InputError: its rank is wrong, or it has not `channels` channels.
        """
        if len(input_shape) != 1 + self.rank or channels not in (None, input_shape[0]):
            first = "channels" if channels is None else str(channels)
            raise InputError(f"needs ({', '.join((first, *SIZE_NAMES[self.rank]))})")
        return input_shape[1:]
