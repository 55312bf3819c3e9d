"""Another number of servers in the driver's state machine: who is told what, in which order, whatever fails."""

import pytest

from scheduler import actions as act
from scheduler import events as ev

from .harness import Harness, notes, of, sent, step


def scale(h, servers):
    """The answer, and all actions."""
    actions = h.send(ev.ScaleRequested(7, servers=servers))
    (answer,) = of(actions, act.AnswerScale)
    return answer, actions


def arrive(h, *slots):
    """What was launched in these slots runs and says hello; the actions of the last hello."""
    actions = []
    for slot in slots:
        h.status(h.alive[slot], "TASK_RUNNING")
        actions = h.hello(h.alive[slot])
    return actions


def membership(actions):
    """What everybody was told, and who."""
    told = sent(actions, "membership")
    assert all(message == told[0][1] for _, message in told)
    return told[0][1], {task for task, _ in told}


def killed(actions):
    return [action.task_id for action in of(actions, act.Kill)]


def grow(h, ids, servers=3):
    """From 1 server, up to the new attempt; its actions."""
    assert scale(h, servers)[0].accepted
    h.offer("a", "b")
    actions = arrive(h, *[f"server-{index}" for index in range(1, servers)])
    ((book, pause),) = sent(actions, "pause")
    assert (book, pause.attempt) == (ids["server-0"], 1)
    return h.send(ev.PausedReceived(book, 1))


def test_more_servers_once_all_of_them_are_there():
    h = Harness(workers=2)
    ids = h.start()
    h.send(step(ids["server-0"], 1))
    answer, actions = scale(h, 3)
    assert (answer.accepted, answer.text.startswith("from 1 to 3 servers, 1 of them serve")) == (True, True)
    assert of(actions, act.Revive)
    h.offer("a", "b")
    assert not sent(arrive(h, "server-1"), "pause"), "one is missing yet"
    assert h.framework.job.members.attempt == 1
    ((book, pause),) = sent(arrive(h, "server-2"), "pause")
    assert (book, pause.attempt) == (ids["server-0"], 1)
    assert not sent(h.tick(1), "pause")
    assert sent(h.tick(5), "pause"), "it may have got lost"
    told, whom = membership(h.send(ev.PausedReceived(book, 1)))
    assert [server.task_id for server in told.servers] == [h.alive[f"server-{index}"] for index in range(3)]
    assert [server.task_id for server in told.former] == [ids["server-0"]]
    assert (told.attempt, whom) == (2, set(h.alive.values()))
    assert not sent(h.send(ev.PausedReceived(book, 1)), "membership"), "said twice"
    actions = h.send(step(book, 2, attempt=2))
    assert "going on with step 2" in notes(actions)
    assert "3 servers have the parameters now" in notes(actions)
    assert h.framework.job.members.former == ()
    assert not killed(actions)


def test_fewer_servers_go_when_the_others_have_what_they_held():
    h = Harness(workers=2, servers=3)
    ids = h.start()
    h.send(step(ids["server-0"], 1))
    actions = scale(h, 1)[1]
    assert [task for task, _ in sent(actions, "pause")] == [ids["server-0"]]
    told, _ = membership(h.send(ev.PausedReceived(ids["server-0"], 1)))
    assert [server.task_id for server in told.servers] == [ids["server-0"]]
    assert [server.task_id for server in told.former] == [ids[f"server-{index}"] for index in range(3)]
    assert not killed(h.tick()), "their slices may not have been fetched"
    actions = h.send(step(ids["server-0"], 2, attempt=2))
    assert killed(actions) == [ids["server-1"], ids["server-2"]]
    for index in (1, 2):
        assert "the job has fewer servers" in notes(h.status(ids[f"server-{index}"], "TASK_KILLED"))
    h.wait(5)
    h.offer("a", "b")
    assert "server-1" not in h.alive
    assert h.framework.job.members.attempt == 2


def test_a_former_server_that_is_lost_is_not_waited_for():
    h = Harness(workers=2, servers=2)
    ids = h.start()
    h.send(step(ids["server-0"], 1))
    scale(h, 1)
    h.send(ev.PausedReceived(ids["server-0"], 1))
    told, whom = membership(h.status(ids["server-1"], "TASK_FAILED"))
    assert (told.attempt, list(told.former)) == (3, [])
    assert whom == {ids["server-0"], ids["worker-0"], ids["worker-1"]}
    h.wait(5)
    h.offer("a", "b")
    assert "server-1" not in h.alive, "nobody needs it"


def test_a_new_server_that_is_lost_before_the_pause_leaves_the_old_ones_at_work():
    h = Harness(workers=2)
    ids = h.start()
    h.send(step(ids["server-0"], 1))
    scale(h, 2)
    h.offer("a", "b")
    arrive(h, "server-1")
    h.status(h.alive["server-1"], "TASK_FAILED")
    told, _ = membership(h.send(ev.PausedReceived(ids["server-0"], 1)))
    assert ([server.task_id for server in told.servers], told.attempt, list(told.former)) == ([ids["server-0"]], 2, [])
    h.send(step(ids["server-0"], 2, attempt=2))
    h.offer("a", "b")
    ((_, pause),) = sent(arrive(h, "server-1"), "pause")
    assert pause.attempt == 2
    assert len(membership(h.send(ev.PausedReceived(ids["server-0"], 2)))[0].servers) == 2


def test_who_changes_his_mind_ends_the_pause():
    h = Harness(workers=2)
    ids = h.start()
    scale(h, 2)
    h.offer("a", "b")
    arrive(h, "server-1")
    extra = h.alive["server-1"]
    _, actions = scale(h, 1)
    assert killed(actions) == [extra]
    assert sent(h.tick(5), "pause"), "the book was told to pause, and must hear how it goes on"
    told, _ = membership(h.send(ev.PausedReceived(ids["server-0"], 1)))
    assert ([server.task_id for server in told.servers], told.attempt) == ([ids["server-0"]], 2)
    assert not sent(h.tick(10), "pause")


def test_replicas_come_and_go_with_their_servers():
    h = Harness(workers=2, servers=1, server_replicas=1)
    ids = h.start("a", "b", "c")
    h.send(ev.ReplicatedReceived(ids["server-0"], ids["replica-0"]))
    scale(h, 2)
    h.offer("a", "b", "c")
    arrive(h, "server-1", "replica-1")
    told, _ = membership(h.send(ev.PausedReceived(ids["server-0"], 1)))
    assert [server.replica_task_id for server in told.servers] == [ids["replica-0"], h.alive["replica-1"]]
    assert h.framework.job.members.in_step == (), "they hold the former slices"
    h.send(step(ids["server-0"], 1, attempt=2))
    gone = [h.alive["server-1"], h.alive["replica-1"]]
    scale(h, 1)
    h.send(ev.PausedReceived(ids["server-0"], 2))
    assert sorted(killed(h.send(step(ids["server-0"], 2, attempt=3)))) == sorted(gone)


@pytest.mark.parametrize("done", range(6))
def test_a_driver_that_dies_at_the_pause_leaves_the_rest_to_the_next_one(done):
    h = Harness(workers=1)
    ids = h.start()
    h.send(step(ids["server-0"], 1))
    scale(h, 2)
    h.offer("a", "b")
    arrive(h, "server-1")
    h.crash(ev.PausedReceived(ids["server-0"], 1), done)
    h.send(ev.Subscribed("fw"))
    for task_id in list(h.alive.values()):
        actions = h.hello(task_id)
    actions = h.tick(6)
    if done == 0:  # nothing was written: the pause is asked for again
        assert sent(actions, "pause")
        h.send(ev.PausedReceived(ids["server-0"], 1))
    members = h.framework.job.members
    assert (members.attempt, len(members.servers), len(members.former)) == (2, 2, 1)
    h.send(step(ids["server-0"], 2, attempt=2))
    assert h.framework.job.members.former == ()


def test_refused_where_it_cannot_be():
    h = Harness(synchronous=False)
    h.start()
    answer, _ = scale(h, 2)
    assert (answer.accepted, "synchronous training only" in answer.text) == (False, True)
    h = Harness()
    h.start()
    h.send(ev.StopRequested(2))
    answer, _ = scale(h, 2)
    assert (answer.accepted, answer.text) == (False, "the job is ending")


def agents_of(h, role):
    """Agents of the live tasks of a role, one for each."""
    return sorted(h.tasks[task]["agent_id"]["value"] for slot, task in h.alive.items() if slot.startswith(role))


def test_colocated_servers_follow_the_workers():
    h = Harness(workers=3, min_workers=1, colocated=True)
    ids = h.start("a", "b", "c", cpus=2.1)
    assert agents_of(h, "worker") == ["a", "b", "c"]
    assert len(agents_of(h, "server")) == 1
    h.send(step(ids["server-0"], 1))
    assert "from 1 to 3 servers" in notes(h.wait(7))
    h.offer("a", "b", "c", cpus=0.5)
    arrive(h, "server-1", "server-2")
    assert agents_of(h, "server") == ["a", "b", "c"]
    assert len(membership(h.send(ev.PausedReceived(ids["server-0"], 1)))[0].servers) == 3
    h.send(step(ids["server-0"], 2, attempt=2))
    h.send(ev.ScaleRequested(8, workers=2))
    for slot in list(h.alive):
        if slot.startswith("worker") and h.framework.job.slots.find(h.alive[slot])[1].leaving:
            h.status(h.alive[slot], "TASK_KILLED")
    assert not sent(h.wait(4), "pause"), "it may come back"
    assert sent(h.wait(4), "pause")
    assert len(membership(h.send(ev.PausedReceived(ids["server-0"], 2)))[0].servers) == 2
    h.send(step(ids["server-0"], 3, attempt=3))
    assert scale(h, 1)[0].accepted
    assert not h.framework.job.size.colocated, "the user has named a number"


def test_workers_leave_room_for_the_server_beside_them():
    h = Harness(workers=2, colocated=True)
    h.send(ev.Subscribed("fw"))
    h.offer("a", cpus=1.1)
    assert not h.alive, "there would be no room for a server"
    h.offer("b", cpus=3.0)
    assert agents_of(h, "worker") == ["b", "b"]
    assert agents_of(h, "server") == ["b"]
