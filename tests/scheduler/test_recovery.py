"""A driver that goes on for one that died: what it tells whom, and what it leaves alone."""

import signal

import pytest

from proto import control_pb2 as pb
from scheduler import actions as act
from scheduler import events as ev
from scheduler.ending import Phase
from scheduler.framework import FAILED_OVER, Framework
from scheduler.json_values import decode, encode
from scheduler.outcome import EXIT_SUPERSEDED
from scheduler.placement import AgentOffer
from scheduler.progress_marks import ProgressMarks

from .harness import Harness, hello, notes, of, resources, sent, step, task_data

OFFER = ev.Offers((AgentOffer("a", "host-a", "10.0.0.1", ("o-lost",), resources()),))


def restarted(h, event=None, done=0):
    """The driver dies amid an event (by default: before anything is done); the next one subscribes."""
    h.crash(event or ev.Tick(), done)
    return h.send(ev.Reregistered())


def test_running_tasks_are_adopted_and_nothing_is_launched():
    h = Harness()
    alive = h.start()
    actions = restarted(h)
    agents = {(task_id, h.tasks[task_id]["agent_id"]["value"]) for task_id in alive.values()}
    assert [set(action.tasks) for action in of(h.tick(), act.Reconcile)] == [agents]
    assert not of(actions, act.Kill)
    for task_id in alive.values():
        h.status(task_id, "TASK_RUNNING")
    told = []
    for task_id in alive.values():
        told = h.hello(task_id)
        assert sent(told, "membership")[0][1].attempt == 1, "the attempt goes on"
    assert "in control of job: 3 of its tasks run on" in notes(told)
    assert not of(h.offer("a", "b"), act.Accept)
    assert dict(h.alive) == alive


def test_they_are_told_where_the_new_driver_is_until_they_come():
    h = Harness()
    alive = h.start("a")
    h.crash(ev.Tick(), 0)
    assert not of(h.tick(), act.TellExecutor), "nobody hears it without a master"
    first = of(h.send(ev.Reregistered()), act.TellExecutor)
    assert first == [act.TellExecutor("job.executor-1", "a", "127.0.0.1:1")]
    assert of(h.wait(9), act.TellExecutor) == 3 * first
    for task_id in alive.values():
        h.hello(task_id)
    assert not of(h.wait(9), act.TellExecutor)


def test_a_launch_that_was_written_but_not_sent_is_made_anew():
    h = Harness(workers=1)
    h.send(ev.Subscribed("fw"))
    assert [type(action) for action in h.crash(OFFER, 1)] == [act.Save]
    h.send(ev.Reregistered())
    asked = of(h.tick(), act.Reconcile)[0].tasks
    assert {task_id for task_id, _ in asked} == {"job.server-0.1", "job.worker-0.1"}
    for task_id, agent in asked:
        h.send(ev.StatusUpdate(task_id, "TASK_GONE", agent))
    h.tick(2)
    h.offer("a")
    assert set(h.tasks) == {"job.server-0.2", "job.worker-0.2"}
    executors = {task["executor"]["executor_id"]["value"] for task in h.tasks.values()}
    assert executors == {"job.executor-2"}, "the first one has never been"


def test_an_executor_that_may_not_be_is_counted_against_the_offer():
    h = Harness(workers=1)
    h.send(ev.Subscribed("fw"))
    h.crash(OFFER, 1)
    h.send(ev.Reregistered())
    h.send(ev.StatusUpdate("job.worker-0.1", "TASK_GONE", "a"))
    # The server's state is not known yet; the worker's place is filled, with an executor should there be none.
    h.tick(2)
    needs = h.plan.worker_need.cpus
    assert not of(h.offer("a", cpus=needs), act.Accept)
    assert of(h.offer("a", cpus=needs + h.plan.executor_need.cpus), act.Accept)


def test_an_idle_executor_is_shut_down():
    h = Harness(servers=1, workers=1)
    h.start("a")
    h.status("job.worker-0.1", "TASK_GONE")
    h.status("job.server-0.1", "TASK_GONE")
    actions = restarted(h)
    assert of(actions, act.ShutdownExecutor) == [act.ShutdownExecutor("job.executor-1", "a")]


def test_a_task_id_is_never_used_again():
    h = Harness(workers=1)
    h.start("a")
    for number in range(2, 5):
        h.status(f"job.worker-0.{number - 1}", "TASK_FAILED")
        restarted(h)
        h.tick(2)
        h.offer("a")
        assert f"job.worker-0.{number}" in h.tasks


def test_failures_in_a_row_are_remembered():
    h = Harness(workers=1)
    h.start("a")
    actions = []
    for number in range(1, 6):
        assert h.over is None
        actions = h.status(f"job.worker-0.{number}", "TASK_FAILED", message="exit code 1")
        if number < 5:
            restarted(h)
            h.tick(60)
            h.offer("a")
    assert h.phase is not Phase.RUNNING
    assert "failed 5 times in a row" in h.framework.outcome.error
    assert of(actions, act.Kill)


def test_a_new_server_begins_a_new_attempt_not_an_old_one():
    h = Harness(servers=2, workers=1)
    h.start("a", "b")
    h.status("job.server-1.1", "TASK_FAILED")
    h.tick(2)
    h.offer("a", "b")
    h.status("job.server-1.2", "TASK_RUNNING")
    actions = h.crash(hello("job.server-1.2", pb.SERVER, task_data(h.tasks["job.server-1.2"])["bind"]), 1)
    assert [type(action) for action in actions] == [act.Save], "nobody has been told of attempt 2"
    h.send(ev.Reregistered())
    h.hello("job.server-0.1")
    told = sent(h.hello("job.server-1.2"), "membership")
    assert {message.attempt for _, message in told} == {2}


def test_progress_is_acknowledged_when_it_is_safe():
    h = Harness()
    h.start()
    first = h.send(ev.ProgressReceived("job.server-0.1", step("", 1).progress, sequence=7))
    assert of(first, act.ReportProgress)
    assert not sent(first, "acknowledged")
    actions = h.tick(1.5)
    assert [(task, message.sequence) for task, message in sent(actions, "acknowledged")] == [("job.server-0.1", 7)]
    assert decode(ProgressMarks, of(actions, act.Save)[0].changes["progress"]).step == 1
    epoch = pb.Progress(epochs=[pb.EpochReport(epoch=1, step=2)])
    assert sent(h.send(ev.ProgressReceived("job.server-0.1", epoch, sequence=8)), "acknowledged"), "at once"
    restarted(h)
    assert h.framework.job.step == 1
    assert h.framework.job.marks.reported == ProgressMarks(step=1, epoch=1, epoch_done=1)
    assert decode(ProgressMarks, encode(ProgressMarks(3, 2, 4, 1, 5, 6))) == ProgressMarks(3, 2, 4, 1, 5, 6)


@pytest.mark.parametrize("event", [ev.Superseded("process 7 on elsewhere"), ev.MesosError(FAILED_OVER)])
def test_an_older_driver_touches_nothing(event):
    h = Harness()
    h.start()
    (over,) = h.send(event)
    assert isinstance(over, act.Over)
    assert over.outcome.exit_code == EXIT_SUPERSEDED
    assert "another driver" in over.outcome.error
    assert h.send(ev.StopRequested(signal.SIGTERM)) == []


def test_the_outcome_survives():
    h = Harness()
    alive = h.start()
    finished = pb.Finished(reason=pb.Finished.END_WHEN, step=9, epoch=1, weights_sha256="ab")
    finished.metrics["Top1Accuracy"] = 0.5
    assert [type(a) for a in h.crash(ev.FinishedReceived("job.server-0.1", finished), 1)] == [act.Save]
    assert h.phase is Phase.CLOSING_TASKS
    actions = h.send(ev.Reregistered()) + h.wait(2)
    assert {kill.task_id for kill in of(actions, act.Kill)} == set(alive.values())
    for task_id in alive.values():
        h.status(task_id, "TASK_KILLED")
    h.crash(ev.Tick(), 0)
    assert of(h.tick(), act.Teardown), "of its executors nobody may tell any more"
    h.send(ev.TornDown())
    assert (h.over.error, h.over.step, h.over.weights_sha256, h.over.metrics) == ("", 9, "ab", {"Top1Accuracy": 0.5})


def test_a_stop_is_carried_on():
    h = Harness()
    h.start()
    h.crash(ev.StopRequested(signal.SIGTERM), 1)
    h.send(ev.Reregistered())
    stops = sent(h.hello("job.server-0.1"), "stop")
    assert [(task_id, stop.checkpoint) for task_id, stop in stops] == [("job.server-0.1", True)]
    stopped = pb.Finished(reason=pb.Finished.STOPPED, step=4)
    h.send(ev.FinishedReceived("job.server-0.1", stopped))
    assert h.framework.outcome.exit_code == 128 + signal.SIGTERM


def test_the_framework_may_be_gone_already():
    h = Harness()
    h.start()
    finished = pb.Finished(reason=pb.Finished.END_WHEN, step=9, weights_sha256="ab")
    h.crash(ev.FinishedReceived("job.server-0.1", finished), 1)
    (over,) = of(h.send(ev.MesosError("Framework has been removed")), act.Over)
    assert (over.outcome.error, over.framework_gone) == ("", True)


def test_a_job_of_another_size_is_restored():
    """More workers than the plan says: it grew while it ran."""
    h = Harness(workers=3)
    h.start("a")
    h.plan = Harness(workers=1).plan
    h.crash(ev.Tick(), 0)
    assert {task.task_id for _, task in h.framework.job.slots.tasks()} == set(h.tasks)


def test_records_that_cannot_be_read():
    with pytest.raises(ValueError, match="Members"):
        Framework(Harness().plan, saved={"members": {"attempt": "two"}})
