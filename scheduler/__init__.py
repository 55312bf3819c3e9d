"""The driver of a job: a Mesos framework that places, launches and watches its tasks."""

from typing import TYPE_CHECKING, Any

from scheduler.outcome import JobFailed, JobResult

if TYPE_CHECKING:
    from scheduler.job import TrainingJob

__all__ = ["JobFailed", "JobResult", "TrainingJob"]


def __getattr__(name: str) -> Any:
    """Loads TrainingJob, and with it `compute`, when a script asks for it: the other commands need neither."""
    if name == "TrainingJob":
        from scheduler.job import TrainingJob

        return TrainingJob
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
