"""Gives back what a job holds that cannot begin: others may be waiting for the other half.

A job needs all of its servers and its least number of workers at once. Two such jobs may each hold half of a cluster
and wait for the other half for ever. So a job that has not begun, and for which nothing more was found for a while,
gives everything back and waits before it takes offers again. Both times are random, or two such jobs would do the same
again at the same time, and grow with every attempt, so that sooner or later one of them finds the other one away for
long enough (as Ethernet's stations do: Metcalfe and Boggs, CACM 1976).
"""

from __future__ import annotations

import random

from scheduler.ending import Ending, Phase
from scheduler.job_state import JobState

GIVEN_BACK = "the job gives back what it holds"  #: why its tasks leave


class Gang:
    """Part of the framework's state machine. Its random numbers come from the job's id: the same job, the same ones."""

    def __init__(self, job: JobState, ending: Ending) -> None:
        self._job = job
        self._ending = ending
        self._random = random.Random(job.plan.job_id)
        self._attempts = 0
        self._held = 0  #: tasks, when last looked
        self._give_back_at: float | None = None
        self._away_until = 0.0

    def away_s(self, now: float) -> float:
        """Seconds for which no offer is to be used; 0 if they may."""
        return max(0.0, self._away_until - now)

    def check(self, now: float) -> None:
        """Called with every tick."""
        held = self._incomplete()
        if not held:
            self._give_back_at = None
        elif self._give_back_at is None or held > self._held:  # it gets on
            self._give_back_at = now + self._some(self._job.patience.gang_hold_s)
        elif now >= self._give_back_at:
            self._give_back(held, now)
        self._held = held

    def _incomplete(self) -> int:
        """Tasks that the job holds, if it lacks others without which it cannot begin."""
        job = self._job
        begun = job.size.started and job.members.attempt > 0
        if begun or self._ending.phase is not Phase.RUNNING:
            return 0
        servers = sum(slot.open and slot.task is None for slot in job.slots.of("server"))
        workers = job.size.minimum - sum(slot.task is not None for slot in job.slots.of("worker"))
        held = [task for _, task in job.slots.tasks() if not task.leaving]
        return len(held) if servers or workers > 0 else 0

    def _give_back(self, held: int, now: float) -> None:
        job = self._job
        away_s = self._some(job.patience.gang_away_s)
        self._attempts += 1
        self._give_back_at, self._away_until = None, now + away_s
        for _, task in job.slots.tasks():
            if task.killed_at is None:
                task.leaving, task.killed_at = GIVEN_BACK, now
                job.kill(task.task_id, task.agent_id)
        tasks = "a task" if held == 1 else f"{held} tasks"
        job.note(f"no room for all that the job needs to begin: gives back {tasks} and tries again in {away_s:.0f} s")

    def _some(self, first_s: float) -> float:
        """A random time, longer with every attempt."""
        longest_s = min(first_s * 2.0**self._attempts, self._job.patience.gang_max_s)
        return self._random.uniform(longest_s / 2, longest_s)
