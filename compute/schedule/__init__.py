"""Learning-rate schedules. Steps and epochs count from 1, as everywhere; formulas use n = step - 1."""

from compute.schedule.by_epoch import EpochDecay, EpochDecayWithWarmUp, EpochSchedule, EpochStep, Regime
from compute.schedule.by_step import (
    CosineWithWarmup,
    Default,
    Exponential,
    MultiStep,
    NaturalExp,
    OneCycle,
    Poly,
    Step,
    Warmup,
)
from compute.schedule.plateau import Plateau
from compute.schedule.schedule import Memory, Schedule
from compute.schedule.sequential import SequentialSchedule

__all__ = [
    "CosineWithWarmup",
    "Default",
    "EpochDecay",
    "EpochDecayWithWarmUp",
    "EpochSchedule",
    "EpochStep",
    "Exponential",
    "Memory",
    "MultiStep",
    "NaturalExp",
    "OneCycle",
    "Plateau",
    "Poly",
    "Regime",
    "Schedule",
    "SequentialSchedule",
    "Step",
    "Warmup",
]
