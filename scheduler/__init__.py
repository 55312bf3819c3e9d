"""The driver of a job: a Mesos framework that places, launches and watches its tasks."""

from typing import TYPE_CHECKING, Any

from scheduler.outcome import JobFailed, JobResult

if TYPE_CHECKING:
    from scheduler.evaluation_job import EvaluationJob
    from scheduler.job import TrainingJob

__all__ = ["EvaluationJob", "JobFailed", "JobResult", "TrainingJob"]


def __getattr__(name: str) -> Any:
    """Loads the jobs, and with them `compute`, when a script asks for it: the other commands need neither."""
    if name == "TrainingJob":
        from scheduler.job import TrainingJob

        return TrainingJob
    if name == "EvaluationJob":
        from scheduler.evaluation_job import EvaluationJob

        return EvaluationJob
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
