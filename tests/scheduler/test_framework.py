"""Every path of the framework's state machine, by hand."""

import itertools

import pytest

from proto import control_pb2 as pb
from scheduler import actions as act
from scheduler import events as ev
from scheduler.plan import Patience
from scheduler.requests import framework_info
from scheduler.resources import Need

from .harness import Harness, Phase, hello, notes, of, plan, resources, sent, step, task_data

# Start


def test_framework_info():
    info = framework_info(plan(role="ml"), "driver-host")
    assert info["roles"] == ["ml"]
    assert info["checkpoint"] is True
    assert info["failover_timeout"] == 7 * 24 * 3600
    assert info["user"] == "me"
    assert info["principal"] == "mesograd"
    capabilities = {c["type"] for c in info["capabilities"]}
    assert {"PARTITION_AWARE", "MULTI_ROLE", "RESERVATION_REFINEMENT", "TASK_KILLING_STATE"} == capabilities
    smallest = info["offer_filters"]["ml"]["min_allocatable_resources"]["quantities"]
    needs = [plan().worker_need, plan().server_need]
    assert smallest == [{"quantities": {"cpus": {"value": n.cpus}, "mem": {"value": n.mem_mb}}} for n in needs]
    assert "id" not in info
    assert framework_info(plan(), "h", "fw-1")["id"] == {"value": "fw-1"}


def test_the_framework_id_is_saved_before_anything_is_launched():
    h = Harness()
    assert of(h.send(ev.Subscribed("fw-1")), act.Save) == [act.Save({"framework": {"id": "fw-1"}})]
    assert of(h.offer("a"), act.Accept)


def test_one_accept_launches_all_that_fits():
    h = Harness(python="/opt/py thon", executor_environment={"A": "b"})
    h.send(ev.Subscribed("fw"))
    (accept,) = of(h.offer("a"), act.Accept)
    assert [t["name"] for t in accept.tasks] == ["server-0.1", "worker-0.1", "worker-1.1"]
    server = accept.tasks[0]
    assert server["task_id"] == {"value": "job.server-0.1"}
    data = task_data(server)
    assert data["bind"] == "10.0.0.1:31000"
    assert data["control"] == "127.0.0.1:1"
    assert (data["role"], data["job_id"], data["secret"], data["threads"]) == ("server", "job", "5e", 1)
    assert server["discovery"]["ports"]["ports"][0]["number"] == 31000
    assert server["kill_policy"]["grace_period"]["nanoseconds"] == 3_000_000_000
    assert server["resources"][0]["allocation_info"] == {"role": "*"}
    executor = server["executor"]
    assert executor["command"]["value"] == "exec '/opt/py thon' -m executor"
    assert executor["command"]["environment"]["variables"] == [{"name": "A", "value": "b"}]
    assert {r["name"]: r["scalar"]["value"] for r in executor["resources"]} == {"cpus": 0.1, "mem": 64}
    assert "5e" not in str(executor), "the secret is in the task's data only"


def test_offers_that_are_not_needed_are_declined_for_long_and_suppressed_once():
    h = Harness()
    h.start("a")
    actions = h.offer("b", "c")
    (decline,) = of(actions, act.Decline)
    assert len(decline.offer_ids) == 2
    assert decline.refuse_s == Patience().refuse_idle_s
    assert not of(actions, act.Suppress), "already suppressed when the last slot was filled"
    assert not of(h.offer("b"), act.Accept)


def test_an_offer_that_is_too_small_is_declined_for_a_short_time():
    h = Harness()
    h.send(ev.Subscribed("fw"))
    actions = h.offer("a", cpus=0.2)
    assert of(actions, act.Decline) == [act.Decline(("o1",), Patience().refuse_small_s)]
    assert not of(actions, act.Suppress)


def test_two_offers_of_one_agent_serve_one_task():
    h = Harness(worker_need=Need(1.5, 100))
    h.send(ev.Subscribed("fw"))
    (accept,) = of(h.offer("a", "a", cpus=0.8, ports=()) or [], act.Accept) or [None]
    assert accept is not None
    assert accept.offer_ids == ("o1", "o2")


def test_members_are_told_once_all_servers_are_there():
    h = Harness(servers=2, workers=1)
    h.send(ev.Subscribed("fw"))
    h.offer("a")
    ids = dict(h.alive)
    assert sent(h.hello(ids["worker-0"]), "job")[0][1].spec == b"spec"
    assert not sent(h.hello(ids["server-1"]), "membership")
    members = sent(h.hello(ids["server-0"]), "membership")
    assert {task_id for task_id, _ in members} == set(ids.values())
    membership = members[0][1]
    assert membership.attempt == 1
    assert [(s.index, s.task_id) for s in membership.servers] == [(0, ids["server-0"]), (1, ids["server-1"])]
    assert membership.servers[0].address == "10.0.0.1:31000"


def test_a_task_that_attaches_again_is_told_all_again_and_nobody_else():
    h = Harness()
    ids = h.start()
    h.send(ev.StreamLost(ids["worker-0"]))
    actions = h.hello(ids["worker-0"])
    assert [task_id for task_id, _ in sent(actions, "job")] == [ids["worker-0"]]
    assert [(t, m.attempt) for t, m in sent(actions, "membership")] == [(ids["worker-0"], 1)]
    actions = h.hello(ids["server-0"])
    assert [(t, m.attempt) for t, m in sent(actions, "membership")] == [(ids["server-0"], 1)]


def test_strangers_are_refused():
    h = Harness()
    h.start()
    assert of(h.send(hello("job.worker-0.7")), act.Refuse)[0].task_id == "job.worker-0.7"


def test_another_python_is_refused_with_the_remedy():
    h = Harness()
    ids = h.start()
    h.hello(ids["worker-0"])
    actions = h.send(hello(ids["worker-1"], version="3.9"))
    assert of(actions, act.Refuse)
    assert "--python" in h.framework.outcome.error
    assert "3.9" in h.framework.outcome.error


# Tasks that are lost


def test_a_lost_worker_is_replaced_and_nobody_else_is_disturbed():
    h = Harness()
    ids = h.start()
    actions = h.status(ids["worker-1"], "TASK_FAILED", message="ended by SIGKILL")
    assert "worker 1 lost on host-" in notes(actions)
    assert "ended by SIGKILL" in notes(actions)
    assert of(actions, act.Revive), "offers are asked for at once"
    (accept,) = of(h.offer("b"), act.Accept)
    assert [t["name"] for t in accept.tasks] == ["worker-1.2"]
    h.status("job.worker-1.2", "TASK_RUNNING")
    actions = h.hello("job.worker-1.2")
    assert [t for t, _ in sent(actions, "membership")] == ["job.worker-1.2"]
    assert sent(actions, "membership")[0][1].attempt == 1
    assert "worker 1 runs again" in notes(actions)


def test_a_lost_server_begins_a_new_attempt_for_all():
    h = Harness(servers=2)
    ids = h.start()
    h.status(ids["server-1"], "TASK_FAILED", message="ended by SIGKILL")
    h.offer("a")
    h.status("job.server-1.2", "TASK_RUNNING")
    members = sent(h.hello("job.server-1.2"), "membership")
    assert {t for t, _ in members} == {*ids.values(), "job.server-1.2"} - {ids["server-1"]}
    assert {m.attempt for _, m in members} == {2}
    assert [s.task_id for s in members[0][1].servers] == [ids["server-0"], "job.server-1.2"]
    actions = h.send(step(ids["server-0"], 4, attempt=2))
    assert "replay from step 4" in notes(actions)
    assert not notes(h.send(step(ids["server-0"], 5, attempt=2)))


def test_two_lost_servers_make_one_new_attempt():
    h = Harness(servers=2)
    ids = h.start()
    h.status(ids["server-0"], "TASK_FAILED")
    h.status(ids["server-1"], "TASK_FAILED")
    h.offer("a")
    assert not sent(h.hello("job.server-0.2"), "membership")
    assert {m.attempt for _, m in sent(h.hello("job.server-1.2"), "membership")} == {2}


@pytest.mark.parametrize("state", ["TASK_GONE", "TASK_GONE_BY_OPERATOR", "TASK_DROPPED"])
def test_what_is_not_the_tasks_fault_does_not_count_as_its_failure(state):
    h = Harness()
    h.start()
    for number in range(1, 9):
        h.status(f"job.worker-0.{number}", state)
        h.wait(2)
        assert of(h.offer("a"), act.Accept)
    assert h.phase is Phase.RUNNING


@pytest.mark.parametrize("state", ["TASK_FAILED", "TASK_ERROR", "TASK_KILLED", "TASK_FINISHED"])
def test_a_slot_that_keeps_failing_ends_the_job_with_the_first_cause(state):
    h = Harness()
    ids = h.start()
    actions = h.status(ids["worker-0"], state, message="exit code 3")
    launches = []
    while h.phase is Phase.RUNNING:
        if of(actions, act.Revive):
            assert of(h.offer("a", "b"), act.Accept)
            launches.append(h.now)
            actions = h.status(h.alive["worker-0"], state, message="exit code 4; last words:\nTraceback\nOops: no")
        else:
            actions = h.tick()
    assert len(launches) == 4, "5 failures in a row"
    gaps = [b - a for a, b in itertools.pairwise(launches)]
    assert gaps == sorted(gaps), "with growing back-off"
    assert gaps[-1] > gaps[0]
    error = h.framework.outcome.error
    assert "worker 0 failed 5 times in a row" in error
    assert "first cause: worker 0 on host-" in error
    assert "job.worker-0.1" in error
    assert "exit code 3" in error


def test_last_words_become_the_detail():
    h = Harness(Patience(failures=1))
    ids = h.start()
    h.status(ids["worker-0"], "TASK_FAILED", message="exit code 4; last words:\nTraceback\nOops: no")
    assert h.framework.outcome.error.endswith("exit code 4: Oops: no")
    assert h.framework.outcome.detail == "Traceback\nOops: no"


def test_progress_forgives():
    h = Harness()
    h.start()
    for number in range(1, 12):
        h.status(f"job.worker-0.{number}", "TASK_FAILED")
        h.wait(2)
        assert of(h.offer("a"), act.Accept)
        h.send(step("job.server-0.1", number))
    assert h.phase is Phase.RUNNING


def test_an_internal_failure_names_itself():
    h = Harness(Patience(failures=1))
    ids = h.start()
    failure = pb.Failure(kind=pb.Failure.INTERNAL, summary="port in use", detail="Traceback ...")
    h.send(ev.FailureReceived(ids["server-0"], failure))
    assert h.phase is Phase.RUNNING
    h.status(ids["server-0"], "TASK_FAILED", message="exit code 1")
    assert h.framework.outcome.error.endswith("port in use (exit code 1)")
    assert h.framework.outcome.detail == "Traceback ..."


def test_an_agent_being_drained_is_not_the_tasks_fault():
    h = Harness(Patience(failures=1))
    ids = h.start()
    h.status(ids["worker-0"], "TASK_KILLED", reason="REASON_AGENT_DRAINING")
    assert h.phase is Phase.RUNNING


# Partitions


def test_an_unreachable_task_that_talks_is_kept():
    h = Harness()
    ids = h.start()
    h.status(ids["worker-0"], "TASK_UNREACHABLE")
    h.wait(300)
    assert h.alive == ids
    assert not of(h.status(ids["worker-0"], "TASK_RUNNING"), act.Kill)


def test_an_unreachable_task_that_falls_silent_is_replaced_and_killed_when_it_returns():
    h = Harness()
    ids = h.start()
    h.status(ids["worker-0"], "TASK_UNREACHABLE")
    h.send(ev.StreamLost(ids["worker-0"]))
    assert of(h.wait(70), act.Revive)
    assert [t["name"] for t in of(h.offer("b"), act.Accept)[0].tasks] == ["worker-0.2"]
    kills = of(h.status(ids["worker-0"], "TASK_RUNNING"), act.Kill)
    assert [k.task_id for k in kills] == [ids["worker-0"]]
    assert of(h.send(hello(ids["worker-0"])), act.Refuse)


@pytest.mark.parametrize("state", ["TASK_UNREACHABLE", "TASK_UNKNOWN", "TASK_LOST"])
def test_an_unreachable_task_without_a_stream_is_replaced(state):
    h = Harness()
    ids = h.start()
    h.send(ev.StreamLost(ids["worker-0"]))
    h.status(ids["worker-0"], state)
    h.wait(2)
    assert of(h.offer("b"), act.Accept)


def test_unknown_running_tasks_are_killed():
    h = Harness()
    h.start()
    actions = h.send(ev.StatusUpdate("job.worker-9.1", "TASK_RUNNING", "a", raw={"uuid": "x"}))
    assert [k.task_id for k in of(actions, act.Kill)] == ["job.worker-9.1"]


# Silence


def test_a_hung_task_is_killed_then_replaced():
    h = Harness()
    ids = h.start()
    h.send(ev.StreamLost(ids["worker-0"]))
    assert not of(h.wait(59), act.Kill)
    assert [k.task_id for k in of(h.wait(2), act.Kill)] == [ids["worker-0"]]
    actions = h.status(ids["worker-0"], "TASK_KILLED", message="killed")
    assert "no word from it for" in notes(actions)
    assert of(h.offer("a"), act.Accept)


def test_a_task_that_returns_in_time_is_left_alone():
    h = Harness()
    ids = h.start()
    h.send(ev.StreamLost(ids["worker-0"]))
    h.wait(25)
    h.hello(ids["worker-0"])
    assert not of(h.wait(100), act.Kill)


def test_a_task_that_never_says_hello_is_killed():
    h = Harness()
    h.send(ev.Subscribed("fw"))
    h.offer("a")
    for task_id in list(h.alive.values()):
        h.status(task_id, "TASK_RUNNING")
    killed = of(h.wait(61), act.Kill)
    assert {k.task_id for k in killed} == set(h.alive.values())
    assert "--driver-host" in notes(h.status("job.worker-0.1", "TASK_KILLED"))


def test_a_task_that_cannot_be_killed_is_given_up():
    h = Harness()
    ids = h.start()
    h.send(ev.StreamLost(ids["worker-0"]))
    h.wait(100)
    (accept,) = of(h.offer("b"), act.Accept)
    assert [t["name"] for t in accept.tasks] == ["worker-0.2"]


def test_a_launch_without_an_answer_is_asked_for():
    h = Harness()
    h.send(ev.Subscribed("fw"))
    h.tick()
    h.offer("a")
    assert not of(h.wait(25), act.Reconcile)
    (reconcile, *_) = of(h.wait(10), act.Reconcile)
    assert set(reconcile.tasks) == {(task_id, "a") for task_id in h.alive.values()}


# Executors


def test_executors_are_reused_until_they_are_lost():
    h = Harness()
    ids = h.start("a")
    first = h.tasks[ids["worker-0"]]["executor"]
    h.status(ids["worker-0"], "TASK_FAILED")
    h.offer("a", cpus=1)
    assert h.tasks["job.worker-0.2"]["executor"] == first
    h.status("job.worker-0.2", "TASK_FAILED", reason="REASON_EXECUTOR_TERMINATED")
    h.send(ev.ExecutorLost(first["executor_id"]["value"], "a"))
    h.wait(3)
    assert not of(h.offer("a", cpus=1), act.Accept), "a new executor needs resources too"
    h.offer("a", cpus=1.1)
    assert h.tasks["job.worker-0.3"]["executor"]["executor_id"] != first["executor_id"]


def test_an_executor_none_of_whose_tasks_ever_ran_is_paid_again():
    h = Harness()
    h.send(ev.Subscribed("fw"))
    h.offer("a")
    for task_id in list(h.alive.values()):
        h.status(task_id, "TASK_DROPPED")
    h.wait(2)
    h.offer("a")
    assert h.tasks["job.worker-0.2"]["executor"]["executor_id"]["value"].endswith("-2")


def test_a_lost_executor_is_asked_after():
    h = Harness()
    ids = h.start("a")
    executor_id = h.tasks[ids["worker-0"]]["executor"]["executor_id"]["value"]
    h.wait(3)
    h.send(ev.ExecutorLost(executor_id, "a"))
    (reconcile,) = of(h.tick(), act.Reconcile)
    assert {task_id for task_id, _ in reconcile.tasks} == set(ids.values())
    h.send(ev.AgentLost("a"))


# Masters


def test_after_a_new_master_all_tasks_are_asked_for_until_answered():
    h = Harness()
    ids = h.start("a")
    h.wait(3)
    assert "lost the Mesos master" in notes(h.send(ev.Disconnected()))
    assert not of(h.wait(100), act.Kill), "nobody is killed while there is no master"
    assert "again" in notes(h.send(ev.Reregistered()))
    (reconcile,) = of(h.tick(), act.Reconcile)
    assert {task_id for task_id, _ in reconcile.tasks} == set(ids.values())
    h.status(ids["worker-0"], "TASK_RUNNING")
    later = of(h.wait(20), act.Reconcile)
    assert later
    assert all(ids["worker-0"] not in dict(r.tasks) for r in later)
    for task_id in ids.values():
        h.status(task_id, "TASK_RUNNING")
    assert not of(h.wait(200), act.Reconcile)
    assert h.alive == ids, "no task was restarted"


def test_implicit_reconciliation_now_and_then():
    h = Harness()
    ids = h.start("a")
    for _ in range(3):
        h.tick()
    for task_id in ids.values():
        h.status(task_id, "TASK_RUNNING")
    assert of(h.wait(1000), act.Reconcile) == [act.Reconcile(())]


def test_a_launch_that_did_not_reach_the_master_is_repeated():
    h = Harness(workers=1)
    h.send(ev.Subscribed("fw"))
    (accept,) = of(h.offer("a"), act.Accept)
    h.send(ev.LaunchFailed(tuple(t["task_id"]["value"] for t in accept.tasks), "no connection"))
    h.alive.clear()
    h.send(ev.Disconnected())
    h.wait(5)
    h.send(ev.Reregistered())
    (accept,) = of(h.offer("a"), act.Accept)
    assert [t["name"] for t in accept.tasks] == ["server-0.2", "worker-0.2"]


def test_an_error_of_the_master_ends_the_job_without_a_teardown():
    h = Harness()
    h.start()
    actions = h.send(ev.MesosError("Framework has been removed"))
    assert not of(actions, act.Teardown)
    assert "Framework has been removed" in of(actions, act.Over)[0].outcome.error


def test_a_master_that_never_accepts_the_subscription():
    h = Harness()
    assert of(h.wait(62), act.Over)[0].outcome.error.startswith("the Mesos master accepted no subscription")


def test_alone_in_the_world():
    h = Harness()
    ids = h.start("a")
    h.send(ev.Disconnected())
    assert not of(h.wait(1000), act.Over), "training goes on"
    for task_id in ids.values():
        h.send(ev.StreamLost(task_id))
    h.wait(650)
    assert "neither the Mesos master nor any task" in h.over.error


# No room


def totals(**sizes):
    return ev.AgentTotals((resources(**sizes),))


def test_a_worker_that_no_agent_can_ever_hold():
    h = Harness(worker_need=Need(64, 1024))
    h.send(ev.Subscribed("fw"))
    h.offer("a", cpus=3)
    assert not of(h.wait(14), act.AskTotals)
    assert of(h.wait(3), act.AskTotals)
    h.send(totals(cpus=4))
    error = h.framework.outcome.error
    assert "no agent can ever offer" in error
    assert "64 cpus, 1024 MB" in error
    assert "the largest offer seen is 3 cpus, 4096 MB" in error


@pytest.mark.parametrize(
    ("changes", "sizes", "why"),
    [
        ({"server_need": Need(1, 9e9, 1)}, {}, "a server asks for"),
        ({"servers": 9}, {}, "together have no room for 9 servers and a worker"),
        ({}, {"ports": ()}, "a server asks for"),
    ],
)
def test_jobs_that_cannot_start(changes, sizes, why):
    h = Harness(**changes)
    h.send(ev.Subscribed("fw"))
    h.wait(17)
    h.send(totals(**sizes))
    assert why in h.framework.outcome.error


def test_a_master_without_agents():
    h = Harness()
    h.send(ev.Subscribed("fw"))
    h.wait(17)
    h.send(ev.AgentTotals(()))
    assert "no agents" in h.framework.outcome.error


def test_servers_that_run_already_do_not_make_the_worker_possible():
    h = Harness(worker_need=Need(64, 1024))
    h.send(ev.Subscribed("fw"))
    h.offer("a")
    h.status("job.server-0.1", "TASK_RUNNING")
    h.hello("job.server-0.1")
    h.wait(17)
    h.send(totals())
    assert "a worker asks for (64 cpus" in h.framework.outcome.error


def test_a_job_that_has_trained_waits_for_room():
    h = Harness(worker_need=Need(2, 1024), workers=1)
    ids = h.start("a")
    h.send(step(ids["server-0"], 1))
    h.status(ids["worker-0"], "TASK_FAILED")
    assert of(h.wait(17), act.AskTotals)
    assert "waiting for resources for worker 0" in notes(h.send(totals(cpus=1)))


def test_a_busy_cluster_is_waited_for():
    h = Harness()
    h.send(ev.Subscribed("fw"))
    h.offer("a", cpus=0.5)
    h.wait(17)
    actions = h.send(totals())
    assert "waiting for resources for server 0, worker 0, worker 1" in notes(actions) or "worker 0" in notes(actions)
    assert len(of(h.wait(120), act.AskTotals)) == 2, "a look a minute"
    assert of(h.offer("a"), act.Accept)


def test_fewer_workers_than_wanted_train_meanwhile():
    h = Harness(workers=50)
    h.start("a")
    assert h.phase is Phase.RUNNING
    assert len(h.alive) == 4
    h.wait(17)
    assert "waiting for resources" in notes(h.send(totals()))


# The end


def close(h):
    """Tasks and executors end as they are told."""
    for task_id in list(h.alive.values()):
        h.status(task_id, "TASK_FINISHED")
    actions = []
    for agent, executor_id in list(h.executors):
        actions += h.send(ev.ExecutorLost(executor_id, agent))
    assert of(actions, act.Teardown)
    return of(h.send(ev.TornDown()), act.Over)[0].outcome


def finished(reason=pb.Finished.END_WHEN):
    message = pb.Finished(reason=reason, step=7, epoch=2, weights_sha256="ab")
    message.metrics["Top1Accuracy"] = 0.5
    return message


def test_success():
    h = Harness()
    ids = h.start()
    actions = h.send(ev.FinishedReceived(ids["server-0"], finished()))
    assert {t for t, _ in sent(actions, "stop")} == set(ids.values())
    assert not of(actions, act.Kill), "tasks get a moment to end by themselves"
    outcome = close(h)
    assert (outcome.error, outcome.step, outcome.epoch, outcome.weights_sha256) == ("", 7, 2, "ab")
    assert outcome.metrics == {"Top1Accuracy": 0.5}
    assert outcome.exit_code == 0


def test_tasks_that_do_not_leave_are_killed_then_their_executors_then_the_framework():
    h = Harness()
    ids = h.start()
    h.send(ev.FinishedReceived(ids["server-0"], finished()))
    assert {k.task_id for k in of(h.wait(3), act.Kill)} == set(ids.values())
    actions = h.wait(8)
    assert {s.agent_id for s in of(actions, act.ShutdownExecutor)} == {"a", "b"}
    actions = h.wait(10)
    assert of(actions, act.Teardown)
    actions = h.wait(10)
    assert of(actions, act.Over)[0].outcome.exit_code == 0
    assert "has not confirmed" in notes(actions)


@pytest.mark.parametrize(
    ("kind", "begins", "detail"),
    [
        (pb.Failure.USER, "the job's own code failed in worker 0 on host-", "Traceback"),
        (pb.Failure.INPUT, "bad checkpoint [worker 0 on host-", ""),
        (pb.Failure.DIVERGED, "bad checkpoint [worker 0 on host-", ""),
    ],
)
def test_failures_no_job_survives(kind, begins, detail):
    h = Harness()
    ids = h.start()
    failure = pb.Failure(kind=kind, summary="bad checkpoint", detail="Traceback", task_id=ids["worker-0"])
    actions = h.send(ev.FailureReceived(ids["worker-0"], failure))
    assert {k.task_id for k in of(actions, act.Kill)} == set(ids.values())
    h.send(ev.FailureReceived(ids["worker-1"], pb.Failure(kind=kind, summary="second")))
    outcome = close(h)
    assert outcome.error.startswith(begins)
    assert (ids["worker-0"] in outcome.error) == (kind == pb.Failure.USER)
    assert outcome.detail == detail
    assert outcome.exit_code == (2 if kind == pb.Failure.INPUT else 1)


def test_stop_waits_for_the_checkpoint():
    h = Harness(checkpoint_url="/ck")
    ids = h.start()
    h.send(step(ids["server-0"], 3))
    actions = h.send(ev.StopRequested(2))
    assert [(t, m.checkpoint) for t, m in sent(actions, "stop")] == [(ids["server-0"], True)]
    assert h.phase is Phase.STOPPING
    h.send(ev.FinishedReceived(ids["server-0"], finished(pb.Finished.STOPPED)))
    outcome = close(h)
    assert outcome.checkpointed
    assert (outcome.exit_code, outcome.step) == (130, 7)


def test_stop_reaches_a_server_that_is_just_coming_back():
    h = Harness(checkpoint_url="/ck")
    ids = h.start()
    h.send(ev.StreamLost(ids["server-0"]))
    assert not sent(h.send(ev.StopRequested(15)), "stop")
    assert [(t, m.checkpoint) for t, m in sent(h.hello(ids["server-0"]), "stop")] == [(ids["server-0"], True)]


def test_stop_does_not_wait_for_ever():
    h = Harness(checkpoint_url="/ck")
    h.start()
    h.send(ev.StopRequested(15))
    assert not of(h.wait(19), act.Kill)
    assert of(h.wait(2), act.Kill)
    outcome = close(h)
    assert not outcome.checkpointed
    assert outcome.exit_code == 143


def test_stop_does_not_wait_for_a_checkpoint_that_a_lost_server_makes_impossible():
    h = Harness(servers=2, checkpoint_url="/ck")
    ids = h.start()
    h.send(ev.StopRequested(15))
    assert of(h.status(ids["server-1"], "TASK_FAILED"), act.Kill)
    assert not close(h).checkpointed


def test_stop_before_anything_began_is_immediate():
    h = Harness()
    h.send(ev.Subscribed("fw"))
    assert of(h.send(ev.StopRequested(2)), act.Teardown)
    assert of(h.send(ev.TornDown()), act.Over)[0].outcome.exit_code == 130
    h = Harness()
    assert of(h.send(ev.StopRequested(2)), act.Over), "no framework, nothing to tear down"


def test_the_second_signal_tears_down_at_once():
    h = Harness()
    h.start()
    h.send(ev.StopRequested(2))
    assert of(h.send(ev.StopRequested(2)), act.Teardown)
    assert of(h.send(ev.TornDown()), act.Over)[0].outcome.exit_code == 130


def test_a_job_that_ends_while_it_is_being_stopped_has_succeeded():
    h = Harness()
    ids = h.start()
    h.send(ev.StopRequested(2))
    h.send(ev.FinishedReceived(ids["server-0"], finished()))
    assert close(h).exit_code == 0


def test_nothing_is_launched_while_closing():
    h = Harness()
    ids = h.start()
    h.send(ev.FinishedReceived(ids["server-0"], finished()))
    h.status(ids["worker-0"], "TASK_FAILED")
    assert not of(h.offer("a"), act.Accept)
    assert not notes(h.status(ids["worker-1"], "TASK_FAILED"))
    assert sent(h.hello(ids["server-0"]), "stop")


def test_start_up_phases_are_marked_once_in_order():
    h = Harness()
    marks = []
    send = h.send

    def watch(event, after=0.0):
        actions = send(event, after)
        marks.extend(a.phase for a in of(actions, act.Mark))
        return actions

    h.send = watch
    ids = h.start()
    h.send(step(ids["server-0"], 1))
    h.send(step(ids["server-0"], 2))
    assert marks == ["subscribed", "first offer", "tasks running", "hello", "first step"]


def test_a_task_that_gives_up_ends_the_job_even_if_its_last_words_are_lost():
    h = Harness()
    ids = h.start()
    message = "exit code 2; last words:\nERROR checkpoint c is damaged: delete it"
    h.status(ids["server-0"], "TASK_FAILED", message=message, labels={"exit_code": "2"})
    assert h.framework.ending.begun
    assert h.framework.outcome.error.endswith("gave up: ERROR checkpoint c is damaged: delete it")


# Replicas


def with_replicas(**changes):
    """A running job whose replicas are in step. Returns the harness and the task ids by slot name."""
    h = Harness(servers=2, server_replicas=1, **changes)
    ids = h.start()
    for index in range(2):
        h.send(ev.ReplicatedReceived(ids[f"server-{index}"], ids[f"replica-{index}"]))
    return h, ids


def membership(actions):
    """The one that all are told, and who is told."""
    told = sent(actions, "membership")
    assert len({m.SerializeToString() for _, m in told}) == 1
    return told[0][1], {task_id for task_id, _ in told}


def test_replicas_run_apart_from_their_servers_and_are_named_to_all():
    h, ids = with_replicas()
    agents = {slot: h.tasks[task_id]["agent_id"]["value"] for slot, task_id in ids.items()}
    assert all(agents[f"server-{k}"] != agents[f"replica-{k}"] for k in range(2))
    assert all(task_data(h.tasks[ids[f"replica-{k}"]])["role"] == "server" for k in range(2))
    told, _ = membership(h.hello(ids["worker-0"]))
    assert [s.task_id for s in told.servers] == [ids["server-0"], ids["server-1"]]
    assert [s.replica_task_id for s in told.servers] == [ids["replica-0"], ids["replica-1"]]


def test_a_lost_server_is_replaced_by_its_replica_at_once():
    h, ids = with_replicas()
    actions = h.status(ids["server-0"], "TASK_FAILED", message="ended by SIGKILL")
    assert "its replica goes on" in notes(actions)
    told, receivers = membership(actions)
    assert told.attempt == 2
    assert [s.task_id for s in told.servers] == [ids["replica-0"], ids["server-1"]]
    assert [s.replica_task_id for s in told.servers] == ["", ids["replica-1"]]
    assert receivers == set(ids.values()) - {ids["server-0"]}
    h.offer("a", "b")
    new = h.alive["server-0"]
    h.status(new, "TASK_RUNNING")
    told, _ = membership(h.hello(new))
    assert told.attempt == 2, "a new replica is no new attempt"
    assert told.servers[0].replica_task_id == new
    h.send(ev.ReplicatedReceived(ids["replica-0"], new))
    told, _ = membership(h.status(ids["replica-0"], "TASK_FAILED"))
    assert (told.attempt, told.servers[0].task_id) == (3, new)


def test_a_replica_that_is_not_in_step_does_not_take_over_before_a_new_server_is_there():
    h = Harness(servers=1, server_replicas=1)
    ids = h.start()
    h.send(ev.ReplicatedReceived(ids["server-0"], "job.replica-0.9"))  # not the one that is there
    actions = h.status(ids["server-0"], "TASK_FAILED")
    assert "continues from the last checkpoint" in notes(actions)
    told, _ = membership(actions)
    assert told.servers[0].task_id == ids["replica-0"], "whoever is there serves, from the last checkpoint"
    assert told.attempt == 2


def test_a_lost_replica_is_not_waited_for():
    h, ids = with_replicas()
    told, receivers = membership(h.status(ids["replica-1"], "TASK_FAILED"))
    assert told.attempt == 1
    assert [s.replica_task_id for s in told.servers] == [ids["replica-0"], ""]
    assert ids["server-1"] in receivers
    assert "continues from the last checkpoint" in notes(h.status(ids["server-1"], "TASK_FAILED"))


def test_a_replica_that_was_given_up_cannot_come_back():
    """Its server has gone on without it."""
    h, ids = with_replicas()
    h.status(ids["replica-1"], "TASK_FAILED")
    assert of(h.hello(ids["replica-1"]), act.Refuse)
    h.send(ev.ReplicatedReceived(ids["server-1"], ids["replica-1"]))
    assert not sent(h.status(ids["server-1"], "TASK_FAILED"), "membership"), "there is nobody to serve"


def test_the_book_is_stopped_where_it_is_kept_now():
    h, ids = with_replicas()
    h.status(ids["server-0"], "TASK_FAILED")
    stops = sent(h.send(ev.StopRequested(2)), "stop")
    assert [task_id for task_id, _ in stops] == [ids["replica-0"]]


def test_the_book_that_moves_while_the_job_is_being_stopped_is_told():
    h, ids = with_replicas()
    assert [t for t, _ in sent(h.send(ev.StopRequested(2)), "stop")] == [ids["server-0"]]
    actions = h.status(ids["server-0"], "TASK_FAILED")
    assert h.phase is Phase.STOPPING
    assert [t for t, _ in sent(actions, "stop")] == [ids["replica-0"]]


def test_offers_too_small_for_anything_cost_no_look_at_the_empty_slots(monkeypatch):
    h = Harness(workers=1000)
    h.start("a", "b")
    monkeypatch.setattr(h.framework.job.slots, "wants", None)
    h.offer("a", "b", mem=100)
    monkeypatch.undo()
    assert of(h.offer("a"), act.Accept), "more was wanted all the time"
