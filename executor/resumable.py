"""What the lease book needs to go on from a checkpoint."""

import math
from dataclasses import dataclass, field

from proto.checkpoint_pb2 import ScheduleMemory, TrainingProgress


@dataclass
class Resumable:
    """What the book needs to go on from a checkpoint, beside the parameters.

    Attributes:
        step: last committed step.
        epoch_samples: samples counted so far in the epoch that is under way.
        epoch_digest: sum modulo 2^64 of their index hashes.
        loss: mean loss of the last committed step.
        metrics: of the last validation.
        schedules: what learning-rate schedules have learnt (compute.optim.LearningRates.memories).
    """

    step: int = 0
    epoch_samples: int = 0
    epoch_digest: int = 0
    loss: float = math.nan
    metrics: dict[str, float] = field(default_factory=dict)
    schedules: dict[str, dict[str, float]] = field(default_factory=dict)

    def message(self) -> TrainingProgress:
        """As a checkpoint holds it."""
        return TrainingProgress(
            step=self.step,
            epoch_samples=self.epoch_samples,
            epoch_digest=self.epoch_digest,
            loss=self.loss,
            metrics=self.metrics,
            schedules={name: ScheduleMemory(values=values) for name, values in self.schedules.items()},
        )

    @classmethod
    def of(cls, message: TrainingProgress) -> "Resumable":
        """From a checkpoint."""
        return cls(
            message.step,
            message.epoch_samples,
            message.epoch_digest,
            message.loss,
            dict(message.metrics),
            {name: dict(memory.values) for name, memory in message.schedules.items()},
        )
