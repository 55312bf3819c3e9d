"""Lets layers for (channels, *size) run on (*size, channels)."""

from __future__ import annotations

from compute.errors import InputError
from compute.nn.container import Wrapper, join
from compute.nn.module import Activity, Builder
from compute.nn.selection import Permute


class ChannelsLast(Wrapper):
    """Applies a layer for (channels, *size) samples to (*size, channels): sequences (times, features), for instance.

    nn.ChannelsLast(nn.Conv1d(8, 16, 3)) takes (times, 8) and gives (times - 2, 16). Put nn.Sequential into it where
    several layers follow each other: dimensions are permuted once before and once behind. An output of one dimension,
    as of global pooling, stays as it is.
    """

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        if not isinstance(sources, int):
            raise InputError(f"{self.name or self.kind} takes one input, not a table")
        rank = len(builder.spec(sources).shape)
        if rank < 2:
            raise InputError(f"{self.name or self.kind} takes samples (*size, channels)")
        first = builder.add(Permute(rank - 1, *range(rank - 1)), sources, join(path, "channels_first"))
        output = self._build(builder, first, path)
        if not isinstance(output, int):
            raise InputError(f"the layer in {self.name or self.kind} must have one output")
        rank = len(builder.spec(output).shape)
        if rank < 2:
            return output
        return builder.add(Permute(*range(1, rank), 0), output, join(path, "channels_last"))
