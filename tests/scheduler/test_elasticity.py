"""Workers come and go: scaling, maintenance, draining, preemption, shares; what fails, and where."""

import pytest

from proto import control_pb2 as pb
from scheduler import actions as act
from scheduler import events as ev
from scheduler.fair_share import ClusterShares, Party
from scheduler.placement import AgentOffer
from scheduler.plan import Patience
from scheduler.resources import Need

from .harness import Harness, Phase, notes, of, resources, sent


def scale(h, workers):
    """The answer, and all actions."""
    actions = h.send(ev.ScaleRequested(7, workers))
    (answer,) = of(actions, act.AnswerScale)
    assert answer.request == 7
    return answer, actions


def end(h, task_id):
    """The task does what it was told."""
    return h.status(task_id, "TASK_KILLED", message="killed on request: exit code 0")


def workers(h):
    return {slot: task for slot, task in h.alive.items() if slot.startswith("worker")}


def test_training_begins_when_enough_workers_are_there_and_not_sooner():
    h = Harness(workers=3, min_workers=2)
    h.send(ev.Subscribed("fw"))
    h.offer("a", "b", cpus=4)
    for task_id in h.alive.values():
        h.status(task_id, "TASK_RUNNING")
    ids = dict(h.alive)
    assert [task for task, _ in sent(h.hello(ids["server-0"]), "membership")] == [ids["server-0"]], "it makes ready"
    assert sent(h.hello(ids["worker-0"]), "membership") == []
    began = sent(h.hello(ids["worker-2"]), "membership")
    assert {task for task, _ in began} >= {ids["worker-0"], ids["worker-2"]}
    assert [task for task, _ in sent(h.hello(ids["worker-1"]), "membership")] == [ids["worker-1"]]
    h.status(ids["worker-1"], "TASK_FAILED")
    h.status(ids["worker-2"], "TASK_FAILED")
    h.tick(2)
    h.offer("a")
    again = h.alive["worker-1"]
    h.status(again, "TASK_RUNNING")
    assert [task for task, _ in sent(h.hello(again), "membership")] == [again], "once begun, it goes on with fewer"


def test_scaled_up_and_down_again():
    h = Harness(workers=2)
    h.start()
    answer, actions = scale(h, 4)
    assert answer.accepted
    assert of(actions, act.Revive), "offers are asked for"
    h.offer("a", "b")
    assert len(workers(h)) == 4
    for slot in ("worker-2", "worker-3"):
        h.status(h.alive[slot], "TASK_RUNNING")
    h.hello(h.alive["worker-2"])
    answer, actions = scale(h, 2)
    assert {kill.task_id for kill in of(actions, act.Kill)} < set(workers(h).values())
    assert h.alive["worker-3"] in {kill.task_id for kill in of(actions, act.Kill)}, "the one that does nothing yet"
    for kill in of(actions, act.Kill):
        assert "has left host-" in notes(end(h, kill.task_id))
    assert len(workers(h)) == 2
    h.wait(3)
    assert not of(h.offer("a", "b"), act.Accept), "nobody takes the places of those that left"
    assert h.phase is Phase.RUNNING
    scale(h, 3)
    h.offer("a")
    assert len(set(h.tasks)) == 6, "slots are used again under new task ids"


def test_a_worker_that_does_not_go_is_given_up_without_counting_as_a_failure():
    h = Harness(Patience(failures=1), workers=2)
    h.start()
    scale(h, 1)
    h.wait(40)
    assert h.phase is Phase.RUNNING
    assert len(list(h.framework.job.slots.tasks())) == 2


def test_nothing_is_scaled_that_ends():
    h = Harness()
    h.start()
    h.send(ev.StopRequested(2))
    answer, _ = scale(h, 9)
    assert (answer.accepted, answer.text) == (False, "the job is ending")


def shares(job_cpus, *others):
    mine = Party("fw", "*", job_cpus, 4000, hungry=False)
    return ev.Shares(ClusterShares(10, 100_000, (mine, *others)))


def test_workers_go_where_most_is_free_so_that_pieces_come_together():
    h = Harness(workers=8, min_workers=2, worker_need=Need(1, 100), server_need=Need(0.5, 100, 1))
    h.start("a", "b", cpus=5)
    newcomer = Party("other", "*", 0, 0, hungry=True)
    mine = Party("fw", "*", 8.7, 4000, hungry=False)
    free = {"a": Need(0.3, 1000), "b": Need(0.6, 1000)}
    agents = {task.task_id: task.agent_id for _, task in h.framework.job.slots.tasks()}
    actions = h.send(ev.Shares(ClusterShares(10, 100_000, (mine, newcomer), free=free)))
    gone = [agents[kill.task_id] for kill in of(actions, act.Kill)]
    assert len(gone) >= 3
    assert set(gone[:4]) == {"b"}


def test_what_others_are_owed_is_given_up_and_taken_back_when_they_have_gone():
    h = Harness(workers=8, min_workers=2, worker_need=Need(1, 100), server_need=Need(0.5, 100, 1))
    h.start("a", "b", cpus=5)
    assert len(workers(h)) == 8
    assert of(h.wait(4), act.AskShares)
    newcomer = Party("other", "*", 0, 0, hungry=True)
    actions = h.send(shares(8.7, newcomer))
    gone = [kill.task_id for kill in of(actions, act.Kill)]
    assert len(gone) == 3, "of ten cpus five, less server and executors: five workers, rounded up"
    for task_id in gone:
        end(h, task_id)
    declined = of(h.offer("a", "b"), act.Decline)
    assert {decline.refuse_s for decline in declined} == {h.framework.job.patience.refuse_small_s}
    assert not of(h.wait(3), act.Suppress), "others must see that it would take more"
    assert len(workers(h)) == 5
    actions = h.send(shares(5.7))
    assert of(actions, act.Revive)
    h.offer("a", "b")
    assert len(workers(h)) == 8


def test_a_job_never_gives_up_more_than_down_to_its_minimum():
    h = Harness(workers=8, min_workers=6, worker_need=Need(1, 100))
    h.start("a", "b", cpus=6)
    crowd = [Party(f"other-{i}", "*", 0, 0, hungry=True) for i in range(9)]
    assert len(of(h.send(shares(8.7, *crowd)), act.Kill)) == 2


def test_a_job_of_fixed_size_does_not_look_at_others():
    h = Harness(workers=2, min_workers=2)
    h.start()
    assert not of(h.wait(60), act.AskShares)


def inverse(agent, begins_in_s, duration_s=3600.0):
    return ev.InverseOffers((ev.InverseOffer("inverse", agent, begins_in_s, duration_s),))


def test_an_agent_is_left_before_its_maintenance():
    h = Harness(workers=4)
    h.start("a", "b")
    here = {task for task, info in h.tasks.items() if info["agent_id"]["value"] == "a"}
    actions = h.send(inverse("a", 100))
    assert of(actions, act.AcceptInverseOffers) == [act.AcceptInverseOffers(("inverse",))]
    assert not of(actions, act.Kill), "there is time"
    assert not of(h.wait(35), act.Kill)
    assert {kill.task_id for kill in of(h.wait(10), act.Kill)} == here
    for task_id in here:
        assert "maintenance of its agent; a new one starts elsewhere" in notes(end(h, task_id))
    h.wait(3)
    assert not of(offer_with_maintenance(h, "a", 30), act.Accept)
    assert of(h.offer("b"), act.Accept)
    assert h.phase is Phase.RUNNING


def offer_with_maintenance(h, agent, begins_in_s):
    h.count += 1
    offer = AgentOffer(agent, f"host-{agent}", "10.0.0.1", (f"o{h.count}",), resources(), maintenance_in_s=begins_in_s)
    return h.send(ev.Offers((offer,)))


def test_an_agent_whose_maintenance_was_called_off_is_used_again():
    h = Harness(workers=2)
    h.start("b")
    h.send(inverse("a", 10))
    scale(h, 4)
    assert not of(offer_with_maintenance(h, "a", 8), act.Accept)
    assert of(h.offer("a"), act.Accept)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("TASK_KILLED", "REASON_AGENT_DRAINING"),
        ("TASK_GONE_BY_OPERATOR", "REASON_AGENT_REMOVED_BY_OPERATOR"),
        ("TASK_FAILED", "REASON_CONTAINER_PREEMPTED"),
    ],
)
def test_what_is_nobodys_fault_does_not_count(state, reason):
    h = Harness(Patience(failures=1))
    ids = h.start()
    h.status(ids["worker-0"], state, reason=reason)
    assert h.phase is Phase.RUNNING
    h.tick(2)
    assert of(h.offer("a"), act.Accept)


def test_an_agent_that_fails_tasks_others_do_not_is_avoided_for_a_while():
    h = Harness(Patience(failures=10), workers=2)
    h.start("bad", "good")
    for _ in range(2):
        bad = [t for t in workers(h).values() if h.tasks[t]["agent_id"]["value"] == "bad"]
        if not bad:
            h.offer("bad")
            continue
        actions = h.status(bad[0], "TASK_FAILED", after=5, message="exit code 1")
        h.tick(2)
        h.offer("bad")
    bad = [t for t in workers(h).values() if h.tasks[t]["agent_id"]["value"] == "bad"]
    if bad:
        actions = h.status(bad[0], "TASK_FAILED", after=5, message="exit code 1")
    assert "host-bad is avoided for 30 s" in notes(actions)
    h.tick(2)
    (decline,) = of(h.offer("bad"), act.Decline)
    assert 0 < decline.refuse_s <= 30
    assert of(h.offer("bad", after=31), act.Accept), "it gets another chance"


def test_where_every_agent_fails_tasks_none_is_avoided():
    h = Harness(Patience(failures=10), workers=1)
    h.start("only")
    for _ in range(6):
        h.status(h.alive["worker-0"], "TASK_FAILED", after=5, message="exit code 1")
        h.wait(31)
        assert of(h.offer("only"), act.Accept)


MEMORY = {"reason": "REASON_CONTAINER_LIMITATION_MEMORY", "message": "Memory limit exceeded"}


def test_a_task_killed_for_memory_is_named_as_such():
    h = Harness(Patience(failures=1))
    ids = h.start()
    h.status(ids["worker-0"], "TASK_FAILED", **MEMORY)
    error = h.framework.outcome.error
    assert "killed for want of memory, of which it had 1024 MB" in error
    assert "--mem-per-worker" in error


@pytest.mark.parametrize("how", [MEMORY, {"message": "ended by SIGKILL", "labels": {"killed_for": "memory"}}])
def test_it_gets_more_if_that_is_allowed(how):
    h = Harness(mem_retry=2.0)
    ids = h.start()
    actions = h.status(ids["worker-0"], "TASK_FAILED", **how)
    assert "the next one gets 2048 MB" in notes(actions)
    h.tick()
    h.offer("a", mem=1500)
    assert "worker-0" not in h.alive, "too small now"
    h.offer("a", mem=4096)
    (mem,) = (r["scalar"]["value"] for r in h.tasks[h.alive["worker-0"]]["resources"] if r["name"] == "mem")
    assert mem == 2048


def test_an_executor_without_tasks_is_ended():
    h = Harness(workers=4)
    h.start("a", "b")
    on_b = [slot for slot, t in workers(h).items() if h.tasks[t]["agent_id"]["value"] == "b"]
    for slot in on_b:
        h.framework.job.slots.close(h.framework.job.slots.slot("worker", int(slot[-1])))
        end(h, h.alive[slot])
    (order,) = of(h.wait(10), act.ShutdownExecutor)
    assert order.agent_id == "b"
    assert h.phase is Phase.RUNNING


def test_the_first_cause_is_told_with_host_task_exit_code_and_last_words():
    h = Harness(Patience(failures=2))
    ids = h.start()
    h.status(ids["worker-1"], "TASK_FAILED", message="exit code 3; last words:\nTraceback\nOSError: no disk")
    failure = pb.Failure(kind=pb.Failure.INTERNAL, summary="lost server 0", task_id=ids["worker-0"])
    h.send(ev.FailureReceived(ids["worker-0"], failure))
    h.status(ids["worker-0"], "TASK_FAILED", message="exit code 1")
    h.wait(3)
    h.offer("a", "b")
    h.status(h.alive["worker-0"], "TASK_FAILED", message="exit code 1")
    error = h.framework.outcome.error
    assert "first cause: worker 1 on host-" in error
    assert ids["worker-1"] in error
    assert "exit code 3: OSError: no disk" in error
