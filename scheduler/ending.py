"""How a job ends: its outcome, and the way from there to a master that knows nothing of it any more.

RUNNING --Finished, failure--> CLOSING_TASKS -> CLOSING_EXECUTORS -> TEARING_DOWN -> OVER
   `-- stop requested --> STOPPING (waits for the checkpoint) --^
"""

from __future__ import annotations

import enum

from proto import control_pb2
from scheduler import actions as act
from scheduler.job_state import JobState
from scheduler.outcome import Outcome
from scheduler.slots import Task

REPEAT_S = 2.0  #: an order to end gets lost where an agent has not registered with its new master yet


class Phase(enum.Enum):
    RUNNING = "running"
    STOPPING = "stopping"  #: the user wants an end; the checkpoint is being written
    CLOSING_TASKS = "closing tasks"
    CLOSING_EXECUTORS = "closing executors"
    TEARING_DOWN = "tearing down"
    OVER = "over"


class Ending:
    """Part of the framework's state machine; every phase but RUNNING has a deadline."""

    def __init__(self, job: JobState) -> None:
        self._job = job
        self.phase = Phase.RUNNING
        self.outcome = Outcome()
        self._deadline = float("inf")  #: of the present phase
        self._ask_at = float("inf")  #: when what has not ended by itself is told to
        self._signals = 0

    @property
    def begun(self) -> bool:
        """The outcome is known; nothing can change it any more."""
        return self.phase not in (Phase.RUNNING, Phase.STOPPING)

    def fail(
        self, error: str, now: float, detail: str = "", worn_out: bool = False, unusable: bool = False
    ) -> None:
        """The job cannot go on, for what Outcome's attributes of these names say. Only the first failure counts."""
        if not self.begun:
            job = self._job
            signal = self.outcome.signal
            self.outcome = Outcome(
                error, detail, signal, worn_out, step=job.step, epoch=job.epoch, unusable=unusable
            )  # fmt: skip
            self._close(now)

    def finish(self, finished: control_pb2.Finished, now: float) -> None:
        """The servers say that the training is over."""
        if self.begun:
            return
        stopped = finished.reason == control_pb2.Finished.STOPPED
        self.outcome = Outcome(
            error="stopped" if stopped else "",
            signal=self.outcome.signal if stopped else 0,
            checkpointed=stopped and bool(self._job.plan.checkpoint_url),
            step=finished.step,
            epoch=finished.epoch,
            weights_sha256=finished.weights_sha256,
            metrics=dict(finished.metrics),
        )
        self._close(now, gently=True)

    def stop(self, signal: int, now: float) -> None:
        """The user wants an end; the second time, at once."""
        job = self._job
        self._signals += 1
        if self._signals > 1:
            if not self.begun:
                self.outcome = Outcome("interrupted twice", signal=signal, step=job.step, epoch=job.epoch)
            if self.phase not in (Phase.TEARING_DOWN, Phase.OVER):
                self._tear_down(now)
        elif self.phase is Phase.RUNNING:
            self.outcome = Outcome("interrupted", signal=signal, step=job.step, epoch=job.epoch)
            if not job.members.attempt:
                self._close(now)
                return
            self.phase, self._deadline = Phase.STOPPING, now + job.patience.stop_s
            for _, task in job.slots.tasks():
                if job.members.keeps_book(task.task_id) and task.attached:
                    self.send_stop(task)

    def restore(self, phase: Phase, outcome: Outcome, now: float) -> None:
        """Goes on where a driver before this one was."""
        patience = self._job.patience
        self.outcome = outcome
        if phase is Phase.STOPPING:
            self.phase, self._deadline = phase, now + patience.stop_s
        elif phase is Phase.CLOSING_TASKS:
            self._close(now)
        else:  # of executors that are not there any more nobody tells; the teardown ends those that are
            self._tear_down(now)
        self._signals = 1 if outcome.signal else 0

    def over(self, framework_gone: bool = True) -> None:
        """Nothing more is to be done."""
        self.phase = Phase.OVER
        self._job.do(act.Over(self.outcome, framework_gone))

    def superseded(self, by: str) -> None:
        """Over at once: tasks and framework belong to another driver now."""
        words = f"another driver{f' ({by})' if by else ''} has taken over job {self._job.plan.job_id}"
        self.outcome = Outcome(f"{words}; this one leaves it alone", superseded=True)
        self.over(framework_gone=False)

    def advance(self, now: float) -> None:
        """Moves through the phases as far as it goes."""
        job = self._job
        late = now >= self._deadline
        if self.phase is Phase.STOPPING and (late or not job.members.complete(job.slots.seats())):
            self._close(now)
            late = False
        if self.phase is Phase.CLOSING_TASKS and now >= self._ask_at:
            self._ask_at = now + REPEAT_S
            for _, task in job.slots.tasks():
                job.kill(task.task_id, task.agent_id)
        if self.phase is Phase.CLOSING_TASKS and (late or not job.framework_id or not any(job.slots.tasks())):
            self.phase, self._deadline = Phase.CLOSING_EXECUTORS, now + job.patience.close_s
            self._ask_at = now
            late = False
        if self.phase is Phase.CLOSING_EXECUTORS and now >= self._ask_at:
            self._ask_at = now + REPEAT_S
            for executor in job.executors.all():
                job.do(act.ShutdownExecutor(executor.executor_id, executor.agent_id))
        if self.phase is Phase.CLOSING_EXECUTORS and (late or not job.executors.all()):
            self._tear_down(now)
            late = False
        if self.phase is Phase.TEARING_DOWN and late:
            job.note("the master has not confirmed the end of the framework; it removes it by itself within a week")
            self.over(framework_gone=False)

    def send_stop(self, task: Task) -> None:
        """What a task is told in the present phase."""
        stop = control_pb2.Stop(checkpoint=self.phase is Phase.STOPPING, reason=self.outcome.error or "finished")
        self._job.do(act.Send(task.task_id, control_pb2.DriverMessage(stop=stop)))

    def _close(self, now: float, gently: bool = False) -> None:
        """The outcome is known. `gently`: tasks know it too, and get a moment to end by themselves."""
        patience = self._job.patience
        self.phase, self._deadline = Phase.CLOSING_TASKS, now + patience.close_s
        self._ask_at = now + patience.leave_s if gently else now
        for _, task in self._job.slots.tasks():
            if task.attached:
                self.send_stop(task)

    def _tear_down(self, now: float) -> None:
        if not self._job.framework_id:
            self.over()
            return
        self.phase, self._deadline = Phase.TEARING_DOWN, now + self._job.patience.close_s
        self._job.do(act.Teardown())
