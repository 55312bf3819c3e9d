"""Which elements of the flat vector are updated alike, and in what order they are best gone through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.layout import ParameterInfo
from compute.optim.lbfgs import LBFGS
from compute.optim.optimizer import Optimizer

SHORT = 2048
"""Runs shorter than this are gathered with others of their treatment: copying them costs less than a call for each."""

STATISTIC = -1


class Treatment(NamedTuple):
    """What is done to an element.

    Attributes:
        group: index of its optimizer; STATISTIC for a statistic.
        l1, l2: its regularizers.
        momentum: of a statistic.
    """

    group: int
    l1: float = 0.0
    l2: float = 0.0
    momentum: float = 0.0


class RateKind(NamedTuple):
    """What the learning rate of an element depends on: its optimizer, its scale, its layer where that matters."""

    group: int
    scale: float = 1.0
    layer: int = -1


class Run(NamedTuple):
    """Elements [begin, end) that are treated alike; `rate` is an index into Plan.kinds."""

    begin: int
    end: int
    treatment: Treatment
    rate: int


@dataclass(frozen=True)
class Plan:
    """The whole vector, frozen parameters left out.

    Attributes:
        runs: ascending.
        kinds: the kinds of learning rate.
        layers: how many parameters have a rate of their own (LARS).
        size: elements of the vector.
    """

    runs: tuple[Run, ...]
    kinds: tuple[RateKind, ...]
    layers: int
    size: int

    def cut(self, begin: int, end: int) -> list[Run]:
        """The runs of elements [begin, end), counted from `begin`."""
        return [
            run._replace(begin=max(run.begin, begin) - begin, end=min(run.end, end) - begin)
            for run in self.runs
            if run.begin < end and run.end > begin
        ]


def plan_of(layout: Sequence[ParameterInfo], assigned: Sequence[int], optimizers: Sequence[Optimizer]) -> Plan:
    """How the parameters of a layout are treated, `assigned` being the optimizer of each.

    Raises:
        InputError: a parameter asks for what its optimizer cannot do.
    """
    runs: list[Run] = []
    kinds: dict[RateKind, int] = {}
    layers = offset = 0
    for info, group in zip(layout, assigned, strict=True):
        if info.offset != offset:
            raise ValueError(f"parameter {info.name} begins at {info.offset}, not at {offset}")
        offset += math.prod(info.shape)
        if info.frozen:
            continue
        if info.kind == "statistic":
            treatment, kind = Treatment(STATISTIC, momentum=info.momentum), RateKind(STATISTIC)
        else:
            treatment, kind = Treatment(group, info.l1, info.l2), RateKind(group, info.learning_rate_scale)
            if isinstance(optimizers[group], LBFGS) and info.learning_rate_scale != 1.0:
                raise InputError(
                    f"{info.name} has a learning_rate_scale of {info.learning_rate_scale:g}, which LBFGS cannot heed: "
                    "leave it 1, or give the layer another optimizer"
                )
            if getattr(optimizers[group], "layerwise", False):
                kind = kind._replace(layer=layers)
                layers += 1
        rate = kinds.setdefault(kind, len(kinds))
        last = runs[-1] if runs else None
        if last is not None and (last.end, last.treatment, last.rate) == (info.offset, treatment, rate):
            runs[-1] = last._replace(end=offset)
        elif offset > info.offset:
            runs.append(Run(info.offset, offset, treatment, rate))
    return Plan(tuple(runs), tuple(kinds), layers, offset)


@dataclass(frozen=True)
class Unit:
    """Elements that one loop over blocks updates.

    Attributes:
        treatment: of all of them.
        begin, size: where they lie, if they lie together.
        elements: else their indices, intp (size,).
        rates: index into Plan.kinds for all of them, or intp (size,).
    """

    treatment: Treatment
    begin: int
    size: int
    elements: NDArray[np.intp] | None
    rates: int | NDArray[np.intp]


def units_of(runs: Sequence[Run]) -> list[Unit]:
    """The long runs as they are, the short ones of each treatment together."""
    units = [_alone(run) for run in runs if run.end - run.begin >= SHORT]
    short = sorted((run for run in runs if run.end - run.begin < SHORT), key=lambda run: run.treatment)
    for treatment, group in groupby(short, key=lambda run: run.treatment):
        alike = list(group)
        if len(alike) == 1:
            units.append(_alone(alike[0]))
            continue
        elements = np.concatenate([np.arange(run.begin, run.end, dtype=np.intp) for run in alike])
        rates: int | NDArray[np.intp] = alike[0].rate
        if len({run.rate for run in alike}) > 1:
            rates = np.repeat(
                np.array([run.rate for run in alike], dtype=np.intp), [run.end - run.begin for run in alike]
            )
        units.append(Unit(treatment, 0, elements.size, elements, rates))
    return units


def _alone(run: Run) -> Unit:
    return Unit(run.treatment, run.begin, run.end - run.begin, None, run.rate)
