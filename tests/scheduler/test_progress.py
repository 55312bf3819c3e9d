import io

from proto import control_pb2 as pb
from scheduler.outcome import Outcome
from scheduler.progress import BarProgress, LineProgress


def step(number, epoch=1, workers=2):
    report = pb.StepReport(step=number, epoch=epoch, loss=0.5, samples=100, seconds=0.05, workers=workers)
    return pb.Progress(steps=[report])


def milestones():
    validation = pb.ValidationReport(step=10, epoch=1)
    validation.metrics["Top1Accuracy"] = 0.876
    return pb.Progress(
        epochs=[pb.EpochReport(epoch=1, step=10, samples=1000, exact=True)],
        validations=[validation],
        checkpoints=[pb.CheckpointReport(step=10, path="/ck/10")],
    )


def test_plain_lines_come_every_few_seconds_and_at_milestones():
    out, now = io.StringIO(), [0.0]
    lines = LineProgress(out, samples_per_epoch=1000, batch_size=100, clock=lambda: now[0])
    for number in range(1, 9):
        lines.progress(step(number))
        now[0] += 1
    assert out.getvalue().splitlines() == [
        "epoch 1  step 1/10  loss 0.5000  2000 images/s  2 workers",
        "epoch 1  step 6/10  loss 0.5000  2000 images/s  2 workers",
    ]
    out.truncate(0), out.seek(0)
    lines.progress(milestones())
    lines.progress(milestones())  # replayed
    assert out.getvalue().splitlines() == [
        "epoch 1 done at step 10: 1000 samples, each sample once",
        "validation at step 10: test accuracy: 0.8760",
        "checkpoint at step 10: /ck/10",
    ]
    out.truncate(0), out.seek(0)
    lines.note("worker 1 lost")
    metrics = {"Top1Accuracy": 0.876, "Loss": 0.4}
    lines.finish(Outcome(metrics=metrics, weights_sha256="abc"))
    assert out.getvalue().splitlines() == [
        "worker 1 lost",
        "Loss: 0.4000",
        "test accuracy: 0.8760",
        "weights sha256: abc",
    ]


def test_nothing_is_claimed_for_a_job_that_failed():
    out = io.StringIO()
    LineProgress(out, 1000, 100).finish(Outcome(error="no", weights_sha256="abc"))
    assert out.getvalue() == ""


def test_an_inexact_epoch_is_shouted():
    out = io.StringIO()
    LineProgress(out, 1000, 100).progress(pb.Progress(epochs=[pb.EpochReport(epoch=1, samples=999)]))
    assert "NOT EVERY SAMPLE" in out.getvalue()


def test_the_bar_shows_loss_speed_workers_and_epoch():
    out, bar = io.StringIO(), io.StringIO()
    progress = BarProgress(out, bar, samples_per_epoch=1000, batch_size=100)
    for number in range(1, 11):
        progress.progress(step(number))
    progress.note("worker 1 lost")
    progress.progress(step(4))  # replayed: the bar goes back
    progress.progress(step(11, epoch=2, workers=1))
    progress.finish(Outcome(weights_sha256="abc"))
    drawn = bar.getvalue()
    assert "epoch 1" in drawn
    assert "epoch 2" in drawn
    assert "loss 0.5000" in drawn
    assert "2000 images/s" in drawn
    assert "1 workers" in drawn
    assert out.getvalue().splitlines() == ["worker 1 lost", "weights sha256: abc"]


def test_a_digest_that_other_runs_will_not_have_says_so():
    out = io.StringIO()
    LineProgress(out, 1000, 100).finish(Outcome(weights_sha256="abc", caveat="--sync async is not in order"))
    assert out.getvalue() == "weights sha256: abc (of this run; others differ, since --sync async is not in order)\n"
