"""Event files, read back with TensorBoard's own reader."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from proto import control_pb2 as pb
from scheduler.outcome import Outcome
from scheduler.summary import Summary


def steps(first, last, attempt=1):
    reports = [
        pb.StepReport(step=n, epoch=1, loss=1 / n, samples=64, seconds=0.5, learning_rate=0.1, attempt=attempt)
        for n in range(first, last + 1)
    ]
    return pb.Progress(steps=reports)


def validation(step, accuracy):
    report = pb.ValidationReport(step=step, epoch=1)
    report.metrics["Top1Accuracy"] = accuracy
    return pb.Progress(validations=[report])


def read(directory):
    accumulator = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {tag: [(e.step, e.value) for e in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}


def write(directory, *progress):
    summary = Summary(directory)
    for part in progress:
        summary.progress(part)
    summary.finish(Outcome())


def test_one_point_per_step_and_per_validation(tmp_path):
    write(tmp_path, steps(1, 5), validation(5, 0.5), steps(6, 10), validation(10, 0.75))
    train = read(tmp_path / "train")
    assert set(train) == {"Loss", "Throughput", "LearningRate"}
    assert [n for n, _ in train["Loss"]] == list(range(1, 11))
    assert train["Loss"][3] == (4, 0.25)
    assert train["Throughput"][0] == (1, 128)
    assert train["LearningRate"][9] == (10, pytest.approx(0.1))
    assert read(tmp_path / "validation") == {"Top1Accuracy": [(5, 0.5), (10, 0.75)]}


def test_replayed_steps_are_not_written_twice(tmp_path):
    write(tmp_path, steps(1, 8), validation(5, 0.5), steps(4, 10, attempt=2), validation(5, 0.5), validation(10, 1))
    assert [n for n, _ in read(tmp_path / "train")["Loss"]] == list(range(1, 11))
    assert [n for n, _ in read(tmp_path / "validation")["Top1Accuracy"]] == [5, 10]


def test_a_resumed_run_continues_where_it_begins_and_hides_what_was_lost(tmp_path):
    write(tmp_path, steps(1, 8), validation(4, 0.25), validation(8, 0.3))
    write(tmp_path, steps(6, 12), validation(8, 0.5), validation(12, 0.75))
    loss = read(tmp_path / "train")["Loss"]
    assert [n for n, _ in loss] == list(range(1, 13))
    assert read(tmp_path / "validation")["Top1Accuracy"] == [(4, 0.25), (8, 0.5), (12, 0.75)]


def test_a_new_run_in_the_same_folder_starts_afresh(tmp_path):
    write(tmp_path, steps(1, 8))
    write(tmp_path, steps(1, 3))
    assert [n for n, _ in read(tmp_path / "train")["Loss"]] == [1, 2, 3]


def test_a_run_without_steps_leaves_no_file(tmp_path):
    write(tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


def test_each_of_several_optimizers_has_its_rate(tmp_path):
    report = pb.StepReport(step=1, epoch=1, samples=64, seconds=0.5, learning_rate=0.1)
    report.learning_rates[""] = 0.1
    report.learning_rates["features.conv_0"] = 0.01
    write(tmp_path, pb.Progress(steps=[report]))
    train = read(tmp_path / "train")
    assert set(train) == {"Loss", "Throughput", "LearningRate", "LearningRate/features.conv_0"}
    assert train["LearningRate/features.conv_0"] == [(1, pytest.approx(0.01))]


def test_where_the_workers_time_went(tmp_path):
    progress = steps(1, 2)
    for number, report in enumerate(progress.steps, start=1):
        report.times["a"].CopyFrom(pb.WorkerTimes(compute=number, push=0.25))
        report.times["b"].CopyFrom(pb.WorkerTimes(compute=3 * number, wait=0.5))
    write(tmp_path, progress)
    train = read(tmp_path / "train")
    assert train["StepTime/compute"] == [(1, 2.0), (2, 4.0)]
    assert train["StepTime/push"] == [(1, 0.125), (2, 0.125)]
    assert train["StepTime/wait"] == [(1, 0.25), (2, 0.25)]
    assert train["StepTime/data"] == [(1, 0.0), (2, 0.0)]
