"""Pieces too small for a file of their own."""

import pytest

from scheduler.local import AgentSize, agent_size
from scheduler.master_questions import _spans, free_pieces
from scheduler.mesos_link import parse_offer, parse_status
from scheduler.phases import Phases, process_age_s
from scheduler.plan import Patience
from scheduler.reconciliation import Reconciliation
from scheduler.resources import Need, ResourceError
from scheduler.slots import Slots, Task

from .harness import plan


def test_local_agents_hold_the_whole_job_on_a_small_machine():
    host = AgentSize(2, 8000)
    size = agent_size(plan(workers=8, servers=2), host)
    assert size.cpus == pytest.approx(0.1 + 2 * 0.5 + 8)
    assert size.mem_mb >= 64 + 2 * 512 + 8 * 1024


@pytest.mark.parametrize("need", [Need(64, 100), Need(1, 9_000_000)])
def test_local_agents_do_not_pretend_to_hold_a_task_larger_than_the_machine(need):
    host = AgentSize(2, 8000)
    size = agent_size(plan(worker_need=need), host)
    assert size.cpus < need.cpus or size.mem_mb < need.mem_mb


def test_free_pieces_of_agents_as_the_master_shows_them():
    total, used = {"cpus": 4.0, "mem": 1000.0, "cpus_revocable": 3.0}, {"cpus": 1.5, "mem": 1000.0}
    agents = [{"id": "a", "active": True, "resources": total, "used_resources": used}, {"id": "b", "active": False}]
    assert free_pieces({"slaves": agents}) == {"a": Need(2.5, 0.0)}


def test_what_empty_slots_ask_for_is_known_without_a_look_at_each():
    slots = Slots(plan(workers=3, worker_need=Need(1, 100), server_need=Need(0.5, 50, 1)))
    worker, server = Need(1, 100), Need(0.5, 50, 1)
    assert slots.needs() == {worker, server}
    for number, slot in enumerate(slots.all):
        slots.fill(slot, Task(f"task-{number}", "a", "host", "executor", 0.0))
    assert slots.needs() == set()
    first, second, _ = slots.of("worker")
    slots.give_memory(first, 2.0)
    slots.vacate(first, 0.0, Patience(), counts=True)
    assert slots.needs() == {Need(1, 200)}
    slots.vacate(second, 0.0, Patience(), counts=True)
    slots.open(second)  # which it is already
    assert slots.needs() == {worker, Need(1, 200)}
    slots.give_memory(second, 3.0)
    assert slots.needs() == {Need(1, 200), Need(1, 300)}
    slots.close(second)
    slots.close(first)
    assert slots.needs() == set()


def test_offers_from_mesos():
    offer = {
        "id": {"value": "o1"},
        "agent_id": {"value": "a1"},
        "hostname": "host",
        "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 2}}],
    }
    assert parse_offer(offer).address == "host"
    offer["url"] = {"address": {"hostname": "name", "ip": "10.1.2.3", "port": 5051}}
    parsed = parse_offer(offer)
    assert (parsed.address, parsed.offer_ids, parsed.resources.cpus) == ("10.1.2.3", ("o1",), 2)
    with pytest.raises(ResourceError):
        parse_offer({"id": {"value": "o1"}})


def test_statuses_from_mesos():
    raw = {"task_id": {"value": "t"}, "state": "TASK_FAILED", "message": "m", "agent_id": {"value": "a"}, "uuid": "u"}
    status = parse_status(raw)
    assert (status.task_id, status.state, status.agent_id, status.message) == ("t", "TASK_FAILED", "a", "m")
    assert status.raw is raw
    assert parse_status({"task_id": {"value": "t"}, "state": "TASK_LOST"}).agent_id == ""


def test_port_ranges_as_the_master_prints_them():
    assert _spans("[31000-32000, 40000-40001]") == [{"begin": 31000, "end": 32000}, {"begin": 40000, "end": 40001}]
    assert _spans("[]") == []


def test_phases():
    phases = Phases()
    phases.mark("one")
    first = phases.marks["one"]
    phases.mark("two")
    phases.mark("one")
    assert phases.marks["one"] == first
    assert -0.1 <= process_age_s() - first < 5, "counted from the start of the process, in ticks of 10 ms"
    assert phases.line().startswith("start-up: one +")


def test_reconciliation_asks_less_and_less_often_until_answered():
    reconciliation = Reconciliation(Patience())
    assert reconciliation.due(0) == set()
    reconciliation.begin(["a", "b"], 0)
    asked = [now for now in range(200) if reconciliation.due(now)]
    assert asked == [0, 5, 15, 35, 75, 135, 195]
    reconciliation.answered("a")
    assert reconciliation.due(300) == {"b"}
    reconciliation.answered("b")
    assert reconciliation.due(400) == set()
    reconciliation.add(["c"], 401)
    assert reconciliation.due(401) == {"c"}
    assert [now for now in range(0, 3000, 100) if reconciliation.all_due(now)] == [900, 1800, 2700]


@pytest.mark.parametrize("changes", [{"workers": 0}, {"servers": 0}, {"job_id": "a/b"}, {"job_id": "x" * 101}])
def test_plans_that_make_no_job(changes):
    with pytest.raises(ValueError):
        plan(**changes)
