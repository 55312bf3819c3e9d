"""The pieces of a slice whose products are summed: blocks of the flat vector, cut where the treatment changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from compute.optim.optimizer import Array
from compute.optim.sums import ExactSum, sum_block
from compute.optim.treatment import STATISTIC, Plan

CHUNK = 1 << 15
"""Elements multiplied at a time, in float64."""

SIGN_OF = "sign of "

Indices = NDArray[np.intp]


class Pieces:
    """Pieces are the same wherever the vector is cut, as long as it is cut at multiples of `sum_block`.

    Attributes:
        weights: the pieces that are weights and not frozen.
        groups: the pieces of each optimizer.
        layers: the pieces of each parameter that has a rate of its own.
    """

    def __init__(self, plan: Plan, groups: int, begin: int, end: int) -> None:
        """
        Raises:
            ValueError: a bound is not a multiple of the block.
        """
        block = sum_block(plan.size)
        if any(bound % block and bound != plan.size for bound in (begin, end)):
            raise ValueError(f"[{begin}, {end}) is not cut at multiples of {block}")
        runs = plan.cut(begin, end)
        bounds = [np.arange(0, end - begin, block), [run.begin for run in runs], [run.end for run in runs]]
        starts = np.unique(np.concatenate([np.asarray(b, dtype=np.intp) for b in bounds]))
        self._starts = starts[starts < end - begin]
        self._ends = np.append(self._starts[1:], end - begin).astype(np.intp)
        count = self._starts.size
        group, layer = np.full(count, STATISTIC), np.full(count, -1)
        self._l1, self._l2 = np.zeros(count), np.zeros(count)
        for run in runs:
            inside = slice(*np.searchsorted(self._starts, (run.begin, run.end)))
            group[inside], layer[inside] = run.treatment.group, plan.kinds[run.rate].layer
            self._l1[inside], self._l2[inside] = run.treatment.l1, run.treatment.l2
        self.weights: Indices = np.flatnonzero(group != STATISTIC)
        self.groups: list[Indices] = [np.flatnonzero(group == index) for index in range(groups)]
        # A layer's pieces lie together, the layers in ascending order, with others in between.
        order = np.flatnonzero(layer >= 0)
        splits = np.searchsorted(layer[order], np.arange(1, plan.layers))
        self.layers: list[Indices] = np.split(order, splits) if plan.layers else []

    def products(
        self, vectors: Mapping[str, Array], pairs: Iterable[tuple[str, str]]
    ) -> dict[tuple[str, str], NDArray[np.float64]]:
        """For each pair of vectors the dot product of each piece, float64 (pieces,).

        The products of two float32 are exact in float64; numpy adds those of a piece pairwise, in an order that its
        length alone fixes.
        """
        out = {pair: np.empty(self._starts.size, dtype=np.float64) for pair in pairs}
        first = 0
        while first < self._starts.size:
            begin = int(self._starts[first])
            last = max(int(np.searchsorted(self._ends, begin + CHUNK, side="right")), first + 1)
            end = int(self._ends[last - 1])
            wide: dict[str, NDArray[np.float64]] = {}
            for name in {name for pair in out for name in pair}:
                part = vectors[name.removeprefix(SIGN_OF)][begin:end].astype(np.float64)
                wide[name] = np.sign(part) if name.startswith(SIGN_OF) else part
            for (a, b), sums in out.items():
                np.add.reduceat(wide[a] * wide[b], self._starts[first:last] - begin, out=sums[first:last])
            first = last
        return out

    def penalty(self, parameters: Array, group: int) -> ExactSum:
        """l1 * sum of |w| + l2 / 2 * sum of w**2, of an optimizer's weights: what regularizers add to the loss."""
        pieces = self.groups[group]
        l1, l2 = self._l1[pieces], self._l2[pieces]
        if not (l1.any() or l2.any()):
            return ExactSum()
        absolute, square = ("w", SIGN_OF + "w"), ("w", "w")
        sums = self.products({"w": parameters}, [absolute, square])
        return ExactSum.of(l1 * sums[absolute][pieces] + l2 / 2.0 * sums[square][pieces])
