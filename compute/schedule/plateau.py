"""A schedule that lowers the rate when the training no longer gets better."""

from __future__ import annotations

import math
from collections.abc import Sequence

from compute.errors import InputError
from compute.schedule.schedule import Memory, Schedule, number, whole
from compute.training_state import TrainingState


class Plateau(Schedule):
    """max(learning_rate * factor ** reductions, min_lr); one more reduction whenever the monitored value has not got
    better for more than `patience` observations in a row. As torch.optim.lr_scheduler.ReduceLROnPlateau (Keras' and
    BigDL's differ from it in that the first observation after a reduction counts as a bad one whatever it is).

    Args:
        monitor: "loss" (the mean of the steps' losses, observed at the end of each epoch) or the name of a metric of
            the validation (observed at each validation).
        mode: "min" or "max", what is better.
        threshold: a value is better than the best if it is below best - threshold (above best + threshold for "max");
            with threshold_mode "rel", below best * (1 - threshold) (above best * (1 + threshold)).
        cooldown: observations after a reduction that do not count.
        min_lr: the rate is never reduced below this.
    """

    feeds_back = True

    def __init__(
        self,
        monitor: str = "loss",
        factor: float = 0.1,
        patience: int = 10,
        mode: str = "min",
        threshold: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
        threshold_mode: str = "abs",
    ) -> None:
        if not isinstance(monitor, str) or not monitor:
            raise InputError(f'schedule.Plateau: monitor must be "loss" or a metric\'s name, got {monitor!r}')
        if mode not in ("min", "max"):
            raise InputError(f'schedule.Plateau: mode must be "min" or "max", got {mode!r}')
        if threshold_mode not in ("abs", "rel"):
            raise InputError(f'schedule.Plateau: threshold_mode must be "abs" or "rel", got {threshold_mode!r}')
        self.monitor, self.mode, self.threshold_mode = monitor, mode, threshold_mode
        self.factor = number("Plateau: factor", factor, 0, 1, strictly=True)
        self.patience = whole("Plateau: patience", patience, 0)
        self.threshold = number("Plateau: threshold", threshold, 0)
        self.cooldown = whole("Plateau: cooldown", cooldown, 0)
        self.min_lr = number("Plateau: min_lr", min_lr, 0)

    def rate(self, learning_rate: float, step: int, epoch: int) -> float:
        return learning_rate  # before anything was observed

    def rate_with(self, memory: Memory, learning_rate: float, step: int, epoch: int) -> float:
        reductions = memory["reductions"]
        if not reductions:
            return learning_rate
        return min(learning_rate, max(learning_rate * float(self.factor**reductions), self.min_lr))

    def initial(self) -> Memory:
        worst = math.inf if self.mode == "min" else -math.inf
        return {
            "best": worst, "bad": 0, "cooling": 0, "reductions": 0,
            "observed": 0, "loss_sum": 0.0, "loss_steps": 0,
        }  # fmt: skip

    def after_step(self, memory: Memory, state: TrainingState) -> Memory:
        if self.monitor != "loss":
            return memory
        total, steps = memory["loss_sum"] + state.loss, memory["loss_steps"] + 1
        if not state.epoch_finished:
            return {**memory, "loss_sum": total, "loss_steps": steps}
        return {**self._observe(memory, total / steps, state.step), "loss_sum": 0.0, "loss_steps": 0}

    def after_validation(self, memory: Memory, state: TrainingState) -> Memory:
        if self.monitor == "loss":
            return memory
        return self._observe(memory, state.metrics[self.monitor], state.step)

    def check(self, metrics: Sequence[str]) -> None:
        if self.monitor != "loss" and self.monitor not in metrics:
            known = ", ".join(["loss", *metrics])
            raise InputError(
                f"schedule.Plateau monitors {self.monitor!r}, but there is only {known}: "
                "add a validation with that metric, or monitor another value"
            )

    def _observe(self, memory: Memory, value: float, step: int) -> Memory:
        if step <= memory["observed"]:  # a resumed run validates its first step again
            return memory
        best, bad, cooling = memory["best"], memory["bad"], memory["cooling"]
        if self._is_better(value, best):
            best, bad = value, 0
        else:
            bad += 1
        if cooling > 0:
            cooling, bad = cooling - 1, 0
        reductions = memory["reductions"]
        if bad > self.patience:
            reductions, cooling, bad = reductions + 1, self.cooldown, 0
        return {
            **memory, "best": best, "bad": bad, "cooling": cooling, "reductions": reductions, "observed": step,
        }  # fmt: skip

    def _is_better(self, value: float, best: float) -> bool:
        if math.isinf(best):
            return math.isfinite(value)
        margin = self.threshold if self.threshold_mode == "abs" else self.threshold * best
        return value < best - margin if self.mode == "min" else value > best + margin
