"""The update of a slice of the flat vector, by a parameter server, or of all of it, by a local training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.layout import ParameterInfo
from compute.optim.clipping import Clip, ClipNorm, ClipValue
from compute.optim.groups import Optimizers, assign, by_prefix
from compute.optim.lbfgs import GRADIENT, LBFGS, PARAMETERS, Move
from compute.optim.optimizer import BLOCK, Array, ElementwiseOptimizer, Optimizer, Rate
from compute.optim.pieces import Pieces
from compute.optim.sums import ExactSum
from compute.optim.treatment import STATISTIC, Treatment, Unit, plan_of, units_of

Kernel = Callable[[Array, Array, dict[str, Array], Rate, Sequence[Array]], None]


class ParameterUpdate:
    """Updates elements [begin, end) of the flat vector in place; the bits do not depend on where it is cut.

    Weights: regularizers first, as part of the gradient that is then clipped (so it is in BigDL, and in PyTorch where
    a penalty is added to the loss): g += l1 * sign(w) + l2 * w. Then clipping; then the optimizer, with its rate times
    the weight's learning_rate_scale, its own weight_decay not clipped. Statistics: running = (1 - momentum) * running
    + momentum * g. Frozen weights and statistics are not touched.

    Clipping by norm, LARS and LBFGS need sums over the whole vector (`needs_sums`): `sums` gives a slice's share,
    the caller adds up those of all slices, and hands the totals to `apply`. `step` does all of it for one slice that
    is the whole vector.

    Attributes:
        state: the optimizers' arrays by name, float32 (end - begin,). Names are shared: an element has one optimizer.
        memory: what optimizers remember beside arrays, by prefix, as JSON takes it; the same on all slices.
        needs_sums: whether `apply` wants totals.
    """

    def __init__(
        self,
        layout: Sequence[ParameterInfo],
        optimizer: Optimizers,
        clip: Clip | None = None,
        begin: int = 0,
        end: int | None = None,
    ) -> None:
        """
        Args:
            layout: of the whole vector (compute.parameter_layout).
            optimizer: one, or one per name prefix.
            begin, end: the slice, in elements; all of it by default. A bound that needs sums is a multiple of
                sum_block.

        Raises:
            InputError: optimizers, layout and clipping do not go together.
        """
        if clip is not None and not isinstance(clip, ClipValue | ClipNorm):
            raise InputError(f"clip must be optim.ClipValue(low, high) or optim.ClipNorm(max_norm), got {clip!r}")
        self._optimizers = by_prefix(optimizer)
        self._prefixes = list(self._optimizers)
        self._groups = list(self._optimizers.values())
        self._clip = clip
        for group in self._groups:
            if isinstance(group, LBFGS) and clip is not None:
                raise InputError("LBFGS cannot work with a clipped gradient: leave clip out, or take another optimizer")
        self._plan = plan_of(layout, assign(layout, self._prefixes), self._groups)
        end = self._plan.size if end is None else end
        self._begin, self._size = begin, end - begin
        runs = self._plan.cut(begin, end)
        self._units = units_of(runs)
        self._regularized = [run for run in runs if run.treatment.l1 or run.treatment.l2]
        self.needs_sums = bool(isinstance(clip, ClipNorm) or self._plan.layers) or any(
            isinstance(group, LBFGS) for group in self._groups
        )
        self._pieces = Pieces(self._plan, len(self._groups), begin, end) if self.needs_sums else None
        self.state: dict[str, Array] = {}
        for index, group in enumerate(self._groups):
            for name, value in group.state_values().items():  # a slice without an element of the group has them, too
                array = self.state.setdefault(name, np.zeros(self._size, dtype=np.float32))
                for run in runs if value else ():
                    if run.treatment.group == index:
                        array[run.begin : run.end] = value
        self.memory: dict[str, Any] = {
            prefix: group.initial_memory() for prefix, group in self._optimizers.items() if isinstance(group, LBFGS)
        }
        self._effective: Array | None = None
        self._scratch: list[Array] = []  # shared with the parts
        self._scratch_size = min(BLOCK, self._size)

    @property
    def kinds(self) -> dict[str, str]:
        """What optimizer each prefix has: a checkpoint's must be the same."""
        return {prefix: group.kind for prefix, group in self._optimizers.items()}

    def rates_at(self, step: int, epoch: int) -> list[float]:
        """The rates of a step in the order of the prefixes, for schedules that do not feed back."""
        return [group.learning_rate_at(step, epoch) for group in self._groups]

    def part(self, begin: int, end: int) -> ParameterUpdate:
        """The update of elements [begin, end) of this slice, on the same state; for updates that need no sums.

        `apply` of parts that make up the slice, in any order, is `apply` of the slice. It holds the arrays that `state`
        has now.
        """
        if self.needs_sums:
            raise ValueError("an update that needs sums over the whole vector has no parts")
        twin = copy(self)
        runs = self._plan.cut(self._begin + begin, self._begin + end)
        twin._begin, twin._size = self._begin + begin, end - begin
        twin._units = units_of(runs)
        twin._regularized = [run for run in runs if run.treatment.l1 or run.treatment.l2]
        twin.state = {name: array[begin:end] for name, array in self.state.items()}
        twin._effective = None
        return twin

    # --- sums -------------------------------------------------------------------------------------------------------

    def sums(self, parameters: Array, gradients: Array) -> list[ExactSum]:
        """This slice's share of the sums that `apply` needs, float32 (end - begin,) each; nothing is changed.

        Which sums they are depends on the settings and `memory` only, so those of all slices fit together.
        """
        pieces = self._pieces
        if pieces is None:
            return []
        with np.errstate(all="ignore"):
            effective = self._regularized_gradient(parameters, gradients)
            vectors = {**self.state, PARAMETERS: parameters, GRADIENT: effective}
            wanted: list[tuple[str, str, list[NDArray[np.intp]]]] = []
            if isinstance(self._clip, ClipNorm):
                wanted.append((GRADIENT, GRADIENT, [pieces.weights]))
            if pieces.layers:
                wanted += [(PARAMETERS, PARAMETERS, pieces.layers), (GRADIENT, GRADIENT, pieces.layers)]
            for group, optimizer, memory in self._remembering():
                wanted += [(a, b, [pieces.groups[group]]) for a, b in optimizer.dots(memory)]
            products = pieces.products(vectors, [(a, b) for a, b, _ in wanted])
            shares = [ExactSum.of(products[a, b][chosen]) for a, b, places in wanted for chosen in places]
            return shares + [pieces.penalty(parameters, group) for group, _, _ in self._remembering()]

    def _remembering(self) -> list[tuple[int, LBFGS, Any]]:
        """Index, optimizer and memory of those that have one."""
        return [
            (index, group, self.memory[prefix])
            for index, (prefix, group) in enumerate(self._optimizers.items())
            if isinstance(group, LBFGS)
        ]

    def _regularized_gradient(self, parameters: Array, gradients: Array) -> Array:
        """The gradient with regularizers, clipped by value; `gradients` itself where neither is asked for."""
        if not self._regularized and not isinstance(self._clip, ClipValue):
            return gradients
        if self._effective is None:
            self._effective = np.empty(self._size, dtype=np.float32)
        effective, work = self._effective, np.empty(min(BLOCK, self._size), dtype=np.float32)
        np.copyto(effective, gradients)
        for run in self._regularized:
            for start in range(run.begin, run.end, BLOCK):
                block = slice(start, min(start + BLOCK, run.end))
                part = effective[block]
                _add_penalty(part, parameters[block], run.treatment, part, work[: part.size])
        self._clip_value(effective)
        return effective

    def _clip_value(self, g: Array) -> None:
        if isinstance(self._clip, ClipValue):
            np.clip(g, np.float32(self._clip.low), np.float32(self._clip.high), out=g)

    # --- the update -------------------------------------------------------------------------------------------------

    def step(
        self, parameters: Array, gradients: Array, step: int, epoch: int, loss: float = 0.0,
        rates: Sequence[float] | None = None,
    ) -> None:  # fmt: skip
        """`apply` for a slice that is the whole vector."""
        totals = [float(share) for share in self.sums(parameters, gradients)] if self.needs_sums else ()
        self.apply(parameters, gradients, step, epoch, rates, totals, loss)

    def apply(
        self,
        parameters: Array,
        gradients: Array,
        step: int,
        epoch: int,
        rates: Sequence[float] | None = None,
        totals: Sequence[float] = (),
        loss: float = 0.0,
    ) -> None:
        """Updates parameters, `state` and `memory`.

        Args:
            parameters: float32 (end - begin,), contiguous; updated.
            gradients: likewise; left as they are. A statistic's element holds its mean over the step.
            step, epoch: from 1.
            rates: learning rates in the order of the prefixes; by default `rates_at(step, epoch)`.
            totals: the sums over all slices; empty unless needs_sums.
            loss: mean loss of the step's samples, for LBFGS.
        """
        if len(totals) == 0 and self.needs_sums:
            raise ValueError("this update needs totals")
        rates = self.rates_at(step, epoch) if rates is None else rates
        now = [group.at(step, epoch) for group in self._groups]
        position = 0
        factor = np.float32(1.0)
        if isinstance(self._clip, ClipNorm):
            factor = np.float32(self._clip.factor(math.sqrt(max(totals[0], 0.0))))
            position = 1
        norms = totals[position : position + 2 * self._plan.layers]
        scales = self._scales(rates, now, norms, float(factor))
        moves = self._decide(rates, totals[position + 2 * self._plan.layers :], loss)
        with np.errstate(all="ignore"):
            for unit in self._units:
                kernel = _kernel(unit, now, step, moves)
                rate: Rate = scales[unit.rates] if isinstance(unit.rates, np.ndarray) else float(scales[unit.rates])
                self._update(unit, kernel, parameters, gradients, rate, factor)

    def _scales(
        self, rates: Sequence[float], now: Sequence[Optimizer], norms: Sequence[float], factor: float
    ) -> NDArray[np.float64]:
        """The rate of every kind of treatment."""
        scales = np.zeros(len(self._plan.kinds), dtype=np.float64)
        for index, (group, scale, layer) in enumerate(self._plan.kinds):
            if group == STATISTIC:
                continue
            scales[index] = rates[group] * scale
            optimizer = now[group]
            if layer >= 0 and isinstance(optimizer, ElementwiseOptimizer):
                weight, gradient = norms[layer], norms[self._plan.layers + layer]
                scales[index] *= optimizer.trust(math.sqrt(max(weight, 0.0)), factor * math.sqrt(max(gradient, 0.0)))
        return scales

    def _decide(self, rates: Sequence[float], totals: Sequence[float], loss: float) -> dict[int, Move]:
        moves = {}
        memories: dict[str, Any] = {}
        remembering = self._remembering()
        penalties = totals[len(totals) - len(remembering) :]
        for (group, optimizer, memory), penalty in zip(remembering, penalties, strict=True):
            count = len(optimizer.dots(memory))
            dots, totals = totals[:count], totals[count:]
            memories[self._prefixes[group]], moves[group] = optimizer.decide(memory, dots, loss + penalty, rates[group])
        self.memory = memories
        return moves

    def _update(
        self, unit: Unit, kernel: Kernel, parameters: Array, gradients: Array, rate: Rate, factor: np.float32
    ) -> None:
        group = unit.treatment.group
        optimizer = None if group == STATISTIC else self._groups[group]
        names = list(optimizer.state_values()) if optimizer else []
        arrays = optimizer.work_arrays if isinstance(optimizer, ElementwiseOptimizer) else 1
        work: list[Array] = []
        for start in range(0, unit.size, BLOCK):
            stop = min(start + BLOCK, unit.size)
            block: Any = slice(unit.begin + start, unit.begin + stop)
            if unit.elements is not None:
                block = unit.elements[start:stop]  # indexing copies
            p, g = parameters[block], gradients[block]
            state = {name: self.state[name][block] for name in names}
            if optimizer:
                g = self._prepared(unit.treatment, p, g, factor)
            if not work or work[0].size != stop - start:
                work = [self._work(1 + index, stop - start) for index in range(arrays)]
            kernel(p, g, state, rate[start:stop] if isinstance(rate, np.ndarray) else rate, work)
            if unit.elements is not None:
                parameters[block] = p
                for name, values in state.items():
                    self.state[name][block] = values

    def _prepared(self, treatment: Treatment, p: Array, g: Array, factor: np.float32) -> Array:
        """The block's gradient with regularizers, clipped."""
        regularized = treatment.l1 or treatment.l2
        if not regularized and not isinstance(self._clip, ClipValue) and factor == 1:
            return g
        out = self._work(0, p.size)
        if regularized:
            _add_penalty(g, p, treatment, out, self._work(1, p.size))
        else:
            np.copyto(out, g)
        self._clip_value(out)
        if factor != 1:
            np.multiply(out, factor, out=out)
        return out

    def _work(self, index: int, size: int) -> Array:
        while len(self._scratch) <= index:
            self._scratch.append(np.empty(self._scratch_size, dtype=np.float32))
        return self._scratch[index][:size]


def _kernel(unit: Unit, now: Sequence[Optimizer], step: int, moves: Mapping[int, Move]) -> Kernel:
    """What updates a block: (parameters, gradients, state, rate, scratch)."""
    if unit.treatment.group == STATISTIC:
        return partial(_update_statistic, momentum=unit.treatment.momentum)
    optimizer = now[unit.treatment.group]
    if isinstance(optimizer, ElementwiseOptimizer):
        chosen = optimizer

        def update(p: Array, g: Array, state: dict[str, Array], rate: Rate, work: Sequence[Array]) -> None:
            chosen.update_block(p, g, state, rate, step, work)

        return update
    move = moves[unit.treatment.group]
    return lambda p, g, state, rate, work: move.apply({**state, PARAMETERS: p, GRADIENT: g})


def _update_statistic(
    p: Array, g: Array, state: dict[str, Array], rate: Rate, work: Sequence[Array], momentum: float
) -> None:
    np.multiply(p, np.float32(1.0 - momentum), out=p)
    np.multiply(g, np.float32(momentum), out=work[0])
    np.add(p, work[0], out=p)


def _add_penalty(g: Array, p: Array, treatment: Treatment, out: Array, work: Array) -> None:
    """out = g + l1 * sign(p) + l2 * p; out may be g."""
    if treatment.l1:
        np.sign(p, out=work)
        np.multiply(work, np.float32(treatment.l1), out=work)
        np.add(g, work, out=out)
        g = out
    if treatment.l2:
        np.multiply(p, np.float32(treatment.l2), out=work)
        np.add(g, work, out=out)
