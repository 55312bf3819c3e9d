"""Points of the checklist (docs/mesos.md) about orders of events that a real Mesos cannot be made to produce."""

import asyncio
import itertools

import pytest

from executor.control_client import ABANDONED_S, ControlClient, Dismissed
from executor.task_table import IDLE_S, Exited, Finish, Launch, Started, TaskTable, Tick
from proto import control_pb2
from scheduler import actions as act
from scheduler import events as ev
from scheduler.placement import AgentOffer
from scheduler.plan import FAILOVER_TIMEOUT_S
from scheduler.requests import framework_info
from scheduler.resources import Resources
from tests.scheduler.harness import Harness, of


@pytest.mark.parametrize("asked", [False, True])
def test_point_13_revocable_resources_only_when_asked(asked: bool) -> None:
    """With --revocable workers run on cpus that can be taken back, servers never; no task has both kinds."""
    harness = Harness(revocable=asked, workers=1)
    kinds = {capability["type"] for capability in framework_info(harness.framework.job.plan, "h")["capabilities"]}
    assert ("REVOCABLE_RESOURCES" in kinds) is asked
    firm = {"type": "SCALAR", "role": "*", "allocation_info": {"role": "*"}}
    items = [
        firm | {"name": "cpus", "scalar": {"value": 0.7}},  # for a server and its executor, no more
        firm | {"name": "cpus", "scalar": {"value": 8.0}, "revocable": {}},
        firm | {"name": "mem", "scalar": {"value": 8000.0}},
        {**firm, "name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 31000, "end": 31009}]}},
    ]
    harness.send(ev.Subscribed("fw"))
    offer = AgentOffer("a", "host-a", "10.0.0.1", ("o",), Resources.parse(items))
    launched = {
        task["name"]: [r for r in task["resources"] + task["executor"]["resources"] if r["name"] == "cpus"]
        for accept in of(harness.send(ev.Offers((offer,))), act.Accept)
        for task in accept.tasks
    }
    assert set(launched) == ({"server-0.1", "worker-0.1"} if asked else {"server-0.1"})
    for name, cpus in launched.items():
        assert {"revocable" in item for item in cpus} == {name.startswith("worker")}


def test_point_25_news_of_a_loss_in_any_order() -> None:
    """FAILURE, UPDATE and RESCIND come in any order; the loss is one loss, and one task takes its place."""
    for order in itertools.permutations(range(4)):
        harness = Harness(workers=1)
        ids = harness.start("a")
        lost = harness.tasks[ids["worker-0"]]
        agent, executor = lost["agent_id"]["value"], lost["executor"]["executor_id"]["value"]
        news = [
            lambda: harness.status(ids["worker-0"], "TASK_FAILED"),  # noqa: B023
            lambda: harness.send(ev.ExecutorLost(executor, agent)),  # noqa: B023
            lambda: harness.send(ev.AgentLost(agent)),  # noqa: B023
            lambda: harness.send(ev.Rescinded("o1")),  # noqa: B023
        ]
        for index in order:
            news[index]()
        harness.wait(3)
        accepted = of(harness.offer("b"), act.Accept)
        launched = [task["name"] for accept in accepted for task in accept.tasks]
        assert launched.count("worker-0.2") == 1, order
        assert harness.framework.outcome.error == ""


def test_point_25_lost_is_not_always_terminal() -> None:
    """A task that the master calls lost and that still talks is kept; the answer to reconciliation decides."""
    harness = Harness()
    ids = harness.start()
    harness.status(ids["worker-0"], "TASK_LOST")
    assert harness.alive["worker-0"] == ids["worker-0"]
    asked = [task for action in of(harness.tick(), act.Reconcile) for task, _ in action.tasks]
    assert asked == [ids["worker-0"]]
    harness.status(ids["worker-0"], "TASK_RUNNING")
    assert of(harness.wait(120), act.Kill) == []


def test_point_02_an_idle_executor_ends() -> None:
    """It may be that nobody is left who would end it; an hour without a task is enough."""
    table = TaskTable()
    assert table.handle(Tick(), 10.0) == []
    assert table.next_deadline() == 10.0 + IDLE_S
    table.handle(Launch("a"), 20.0)
    table.handle(Started("a"), 20.0)
    assert table.next_deadline() is None
    assert table.handle(Tick(), 30.0 + 2 * IDLE_S) == []
    table.handle(Exited("a", 0), 40.0 + 2 * IDLE_S)
    assert table.handle(Tick(), 39.0 + 3 * IDLE_S) == []
    assert table.handle(Tick(), 40.0 + 3 * IDLE_S) == [Finish()]
    assert table.next_deadline() is None


def test_point_02_a_task_without_a_driver_ends() -> None:
    """Not later than the framework, should no master remember when that was to be."""
    assert ABANDONED_S == FAILOVER_TIMEOUT_S
    hello = control_pb2.Hello(task_id="worker-0.1")

    async def work() -> None:
        client = ControlClient("127.0.0.1:1", "secret", hello, lambda message: None, abandoned_s=0.3)
        with pytest.raises(Dismissed, match=r"no driver has been heard of for 0\.3 s"):
            await asyncio.wait_for(client.run(), 30)

    asyncio.run(work())
