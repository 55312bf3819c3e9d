"""What has been committed, and what follows from it: counts, learning rates, and which triggers fire."""

import math
from dataclasses import dataclass, replace

from compute import TrainingSpec, TrainingState
from compute.optim import LearningRates
from executor.lease_actions import Fail
from executor.reduction_tree import DIGEST_MODULUS
from executor.resumable import Resumable
from executor.step_plan import StepPlan
from executor.validation_round import ValidationRound
from proto import control_pb2 as control


@dataclass(frozen=True)
class StepResult:
    """What a step added up.

    Attributes:
        loss: sum of the samples' losses.
        samples: how many contributed.
        digest: sum modulo 2^64 of the hashes of their indices.
    """

    loss: float
    samples: int
    digest: int


class TrainingRecord:
    """See the module.

    Attributes:
        resumable: what a checkpoint of the last committed step must hold.
    """

    def __init__(self, spec: TrainingSpec, plan: StepPlan, attempt: int, epoch_digest: int, start: Resumable) -> None:
        self.resumable = start
        self._spec = spec
        self._plan = plan
        self._attempt = attempt
        self._epoch_digest = epoch_digest
        self._rates = LearningRates(spec.optimizer, start.schedules)

    @property
    def state(self) -> TrainingState:
        """As triggers see it."""
        step = self.resumable.step
        return TrainingState(
            step=step,
            epoch=self._plan.epoch(step),
            epoch_finished=self._plan.ends_epoch(step),
            loss=self.resumable.loss,
            metrics=self.resumable.metrics,
        )

    def told_rates(self, step: int) -> list[float] | None:
        """The learning rates of the step after the last committed one; None where servers know them by themselves."""
        if not self._rates.feeds_back:
            return None
        return list(self._rates.at(step, self._plan.epoch(step)).values())

    def commit(
        self, step: int, result: StepResult, seconds: float, workers: int
    ) -> tuple[control.Progress, Fail | None]:
        """Counts a step; what the driver is to know, and why the job cannot go on, if it cannot."""
        plan, epoch = self._plan, self._plan.epoch(step)
        progress = control.Progress()
        mean = result.loss / result.samples
        if not math.isfinite(mean):
            rate = self._rates.main(step, epoch)
            summary = (
                f"the loss is {mean} at step {step} (epoch {epoch}): the training diverged; "
                f"lower the learning rate ({rate:g}) or look for invalid values in the data"
            )
            return progress, Fail(control.Failure.DIVERGED, summary)
        rates = self._rates.at(step, epoch)
        total = self.resumable.epoch_samples + result.samples
        digest = (self.resumable.epoch_digest + result.digest) % DIGEST_MODULUS
        progress.steps.add(
            step=step,
            epoch=epoch,
            loss=mean,
            samples=result.samples,
            learning_rate=self._rates.main(step, epoch),
            learning_rates=rates if len(rates) > 1 else None,
            seconds=seconds,
            workers=workers,
            attempt=self._attempt,
        )
        if plan.ends_epoch(step):
            exact = total == plan.samples and digest == self._epoch_digest
            progress.epochs.add(epoch=epoch, samples=total, step=step, digest=f"{digest:016x}", exact=exact)
            total, digest = 0, 0
            if not exact:
                summary = f"epoch {epoch} did not count every sample exactly once"
                return progress, Fail(control.Failure.INTERNAL, summary)
        self.resumable = replace(self.resumable, step=step, epoch_samples=total, epoch_digest=digest, loss=mean)
        self._rates.after_step(self.state)
        self._remember_schedules()
        return progress, None

    def validated(self, validation: ValidationRound) -> control.Progress:
        """Takes the metrics of the last committed step's parameters; what the driver is to know."""
        metrics = validation.metrics()
        self.resumable = replace(self.resumable, metrics=metrics)
        self._rates.after_validation(self.state)
        self._remember_schedules()
        step = self.resumable.step
        finished = step // self._plan.steps_per_epoch
        report = control.ValidationReport(step=step, epoch=finished, metrics=metrics, samples=validation.samples)
        return control.Progress(validations=[report])

    def _remember_schedules(self) -> None:
        schedules = {prefix: dict(memory) for prefix, memory in self._rates.memories.items()}
        self.resumable = replace(self.resumable, schedules=schedules)

    # --- triggers ---------------------------------------------------------------------------------------------------

    @property
    def wants_checkpoint(self) -> bool:
        """Whether the checkpoint trigger fires now."""
        when = self._spec.checkpoint_when
        return when is not None and when(self.state)

    @property
    def wants_validation(self) -> bool:
        """Whether the validation trigger fires now; of an inference it always does."""
        validation = self._spec.validation
        return validation is not None and (self._spec.inference or validation.trigger(self.state))

    def pauses(self, step: int) -> bool:
        """Whether a step to come is one after which something else is to be done, as far as its number tells."""
        spec, resumable = self._spec, self.resumable
        state = TrainingState(
            step=step,
            epoch=self._plan.epoch(step),
            epoch_finished=self._plan.ends_epoch(step),
            loss=resumable.loss,
            metrics=resumable.metrics,
        )
        triggers = [spec.end_when, spec.checkpoint_when, spec.validation.trigger if spec.validation else None]
        return state.epoch_finished or any(trigger(state) for trigger in triggers if trigger is not None)

    @property
    def ends(self) -> bool:
        """Whether the job has what it wanted."""
        return self._spec.inference or self._spec.end_when(self.state)
