"""Lines of --verbose about where the workers' time goes."""

import logging

import pytest

from proto import control_pb2
from scheduler.outcome import Outcome
from scheduler.step_times import StepTimes, mean_seconds


def progress(compute_s: float) -> control_pb2.Progress:
    step = control_pb2.StepReport(step=1)
    step.times["job.worker-1.1"].CopyFrom(control_pb2.WorkerTimes(compute=compute_s, wait=0.002))
    return control_pb2.Progress(steps=[step])


def test_a_line_per_worker_every_few_seconds(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    times = StepTimes(lambda: now[0])
    with caplog.at_level(logging.INFO):
        times.progress(progress(0.1))
        times.progress(progress(0.3))
        assert not caplog.messages
        now[0] = 5.0
        times.progress(progress(0.2))
        line = "job.worker-1.1: ms per step: data 0.0, compute 200.0, push 0.0, wait 2.0, pull 0.0"
        assert caplog.messages == [line]
        times.finish(Outcome())
        assert caplog.messages == [line], "said twice"


def test_nothing_is_made_of_nothing() -> None:
    assert mean_seconds([]) == {}
