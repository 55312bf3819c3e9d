"""The state of a training that triggers and schedules see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TrainingState:
    """Where training stands after a step.

    Attributes:
        step: the last finished step, from 1; 0 before the first.
        epoch: the epoch which that step belonged to, from 1.
        epoch_finished: whether that step was its epoch's last.
        loss: mean loss of that step's samples.
        metrics: results of the last validation, by metric name.
    """

    step: int
    epoch: int
    epoch_finished: bool
    loss: float
    metrics: Mapping[str, float] = field(default_factory=dict)
