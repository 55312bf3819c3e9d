"""Schedules one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from compute.errors import InputError
from compute.schedule.schedule import Memory, Schedule, whole
from compute.training_state import TrainingState


class SequentialSchedule(Schedule):
    """Chains schedules: `SequentialSchedule(steps_per_epoch).add(Warmup(0.01), 100).add(Poly(0.5, 5000), 5000)`.

    Each counts steps and epochs from its own start. Its learning_rate is the rate that the one before has come to,
    which is that one's rate at n = max_steps; so with the chain above Poly starts from learning_rate + 0.01 * 100.
    The last one goes on for ever. BigDL's rule, but for Poly, which there counted from the start of the training.
    """

    def __init__(self, steps_per_epoch: int) -> None:
        self.steps_per_epoch = whole("SequentialSchedule: steps_per_epoch", steps_per_epoch, 1)
        self.parts: list[tuple[Schedule, int, int]] = []  # schedule, its first n, the n behind its last

    def add(self, schedule: Schedule, max_steps: int) -> SequentialSchedule:
        """Appends a schedule that runs for `max_steps` steps; returns this object."""
        if not isinstance(schedule, Schedule) or isinstance(schedule, SequentialSchedule):
            raise InputError(f"SequentialSchedule.add takes a schedule that is no chain itself, got {schedule!r}")
        start = self.parts[-1][2] if self.parts else 0
        self.parts.append((schedule, start, start + whole("SequentialSchedule: max_steps", max_steps, 1)))
        return self

    @property
    def feeds_back(self) -> bool:  # type: ignore[override]
        return any(schedule.feeds_back for schedule, _, _ in self.parts)

    def rate(self, learning_rate: float, step: int, epoch: int) -> float:
        return self.rate_with(self.initial(), learning_rate, step, epoch)

    def rate_with(self, memory: Memory, learning_rate: float, step: int, epoch: int) -> float:
        current = self._index(step)
        for index in range(current):
            schedule, start, end = self.parts[index]
            epochs = 1 + end // self.steps_per_epoch - start // self.steps_per_epoch
            learning_rate = schedule.rate_with(_of(memory, index), learning_rate, end - start + 1, epochs)
        schedule = self.parts[current][0]
        return schedule.rate_with(_of(memory, current), learning_rate, *self._local(current, step, epoch))

    def settings(self, step: int, epoch: int) -> Mapping[str, float]:
        index = self._index(step)
        return self.parts[index][0].settings(*self._local(index, step, epoch))

    def possible_settings(self) -> Sequence[Mapping[str, float]]:
        return [settings for schedule, _, _ in self.parts for settings in schedule.possible_settings()]

    def initial(self) -> Memory:
        return {
            f"{index}.{name}": value
            for index, (schedule, _, _) in enumerate(self.parts)
            for name, value in schedule.initial().items()
        }

    def after_step(self, memory: Memory, state: TrainingState) -> Memory:
        index, state = self._seen_by_part(state)
        return _with(memory, index, self.parts[index][0].after_step(_of(memory, index), state))

    def after_validation(self, memory: Memory, state: TrainingState) -> Memory:
        index, state = self._seen_by_part(state)
        return _with(memory, index, self.parts[index][0].after_validation(_of(memory, index), state))

    def check(self, metrics: Sequence[str]) -> None:
        if not self.parts:
            raise InputError("schedule.SequentialSchedule is empty: add schedules with add(schedule, max_steps)")
        for schedule, _, _ in self.parts:
            schedule.check(metrics)

    def _index(self, step: int) -> int:
        if not self.parts:
            raise InputError("schedule.SequentialSchedule is empty: add schedules with add(schedule, max_steps)")
        return next((i for i, (_, _, end) in enumerate(self.parts) if step - 1 < end), len(self.parts) - 1)

    def _local(self, index: int, step: int, epoch: int) -> tuple[int, int]:
        start = self.parts[index][1]
        return step - start, epoch - start // self.steps_per_epoch

    def _seen_by_part(self, state: TrainingState) -> tuple[int, TrainingState]:
        index = self._index(state.step)
        step, epoch = self._local(index, state.step, state.epoch)
        return index, replace(state, step=step, epoch=epoch)


def _of(memory: Memory, index: int) -> Memory:
    prefix = f"{index}."
    return {name[len(prefix) :]: value for name, value in memory.items() if name.startswith(prefix)}


def _with(memory: Memory, index: int, part: Memory) -> Memory:
    return {**memory, **{f"{index}.{name}": value for name, value in part.items()}}
