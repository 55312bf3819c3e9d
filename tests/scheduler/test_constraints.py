"""Placement constraints with Marathon's syntax and meaning; spread and pack; revocable cpus."""

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.constraints import OPERATORS, Census, Constraint, ConstraintError
from scheduler.mesos_link import parse_offer
from scheduler.placement import AgentOffer, Occupancy, Want, place
from scheduler.resources import NOTHING, Need, Resources

from .harness import resources
from .test_placement import EXECUTOR, SERVER, WORKER, wants


def agent(name, cpus=4.0, **fields):
    return AgentOffer(name, name, "10.0.0.1", (f"o-{name}",), resources(cpus=cpus), {"hostname": name, **fields})


def placed(texts, offers, servers=0, workers=0, running=(), **options):
    """Slot -> agent."""
    census = Census([c for text in texts for c in Constraint.parse(text)], running)
    placements = place(wants(servers, workers), offers, EXECUTOR, {}, census, **options)
    return {f"{x.want.role}-{x.want.index}": p.offer.agent_id for p in placements for x in p.launches}


def test_syntax():
    assert Constraint.parse("worker:rack:GROUP_BY:3") == (Constraint("worker", "rack", "GROUP_BY", "3"),)
    both = Constraint.parse("hostname:unique")
    assert both == (Constraint("worker", "hostname", "UNIQUE"), Constraint("server", "hostname", "UNIQUE"))
    assert Constraint.parse("server:os:LIKE:a:b")[0].value == "a:b"
    assert Constraint.parse("worker:UNIQUE")[0].field == "worker", "an attribute of that name"
    assert str(Constraint.parse("worker:rack:CLUSTER:r1")[0]) == "worker:rack:CLUSTER:r1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rack", "is not"),
        ("", "is not"),
        (":UNIQUE", "is not"),
        ("rack:NEAR:x", "GROUP_BY"),
        ("rack:UNIQUE:1", "no value"),
        ("rack:IS", "needs a value"),
        ("rack:MAX_PER:0", "number from 1"),
        ("rack:GROUP_BY:x", "number from 1"),
        ("rack:LIKE:[", "not a regular expression"),
    ],
)
def test_mistakes(text, said):
    with pytest.raises(ConstraintError, match=said):
        Constraint.parse(text)


@given(st.text(max_size=30))
def test_any_text_is_understood_or_refused(text):
    try:
        for constraint in Constraint.parse(text):
            assert constraint.operator in OPERATORS
            assert constraint.field
    except ConstraintError:
        pass


RACKS = [agent("a", rack="1"), agent("b", rack="1"), agent("c", rack="2"), agent("d")]


def test_unique():
    assert len(set(placed(["hostname:UNIQUE"], RACKS, workers=9).values())) == 4
    assert len(placed(["rack:UNIQUE"], RACKS, workers=9)) == 2, "where there is no rack there is no task"
    both = placed(["hostname:UNIQUE"], RACKS[:1], servers=1, workers=2)
    assert both == {"server-0": "a", "worker-0": "a"}, "each role by itself, as each of Marathon's apps"


def test_cluster():
    assert set(placed(["rack:CLUSTER:2"], RACKS, workers=3).values()) == {"c"}
    assert set(placed(["worker:rack:CLUSTER"], RACKS, workers=5).values()) in ({"a", "b"}, {"c"})
    running = [("worker", {"rack": "2"})]
    assert set(placed(["rack:CLUSTER"], RACKS, workers=2, running=running).values()) == {"c"}


def test_group_by():
    racks = Counter({"a": "1", "b": "1", "c": "2"}[x] for x in placed(["rack:GROUP_BY"], RACKS, workers=4).values())
    assert racks == {"1": 2, "2": 2}
    one_rack = RACKS[:2]
    assert len(placed(["rack:GROUP_BY"], one_rack, workers=4)) == 4, "no other rack is known"
    assert len(placed(["rack:GROUP_BY:2"], one_rack, workers=4)) == 1, "it waits for the second"


def test_max_per_is_like_unlike():
    assert len(placed(["rack:MAX_PER:2"], RACKS, workers=9)) == 4
    assert set(placed(["rack:IS:1"], RACKS, workers=4).values()) == {"a", "b"}
    assert set(placed(["hostname:LIKE:[ac]"], RACKS, workers=4).values()) == {"a", "c"}
    assert set(placed(["rack:UNLIKE:1|3"], RACKS, workers=4).values()) == {"c", "d"}
    assert placed(["hostname:LIKE:aa?", "rack:IS:2"], RACKS, workers=4) == {}, "all of them must hold"


def test_what_runs_already_counts():
    running = [("worker", RACKS[0].attributes), ("server", RACKS[2].attributes)]
    assert set(placed(["hostname:UNIQUE"], RACKS, workers=9, running=running).values()) == {"b", "c", "d"}


def test_spread_and_pack():
    offers = [agent(name) for name in "abc"]
    assert Counter(placed([], offers, workers=6).values()) == {"a": 2, "b": 2, "c": 2}
    assert Counter(placed([], offers, workers=4, pack=True).values()) == {"a": 3, "b": 1}
    running = {"b": Occupancy("b", workers=1, executor=True)}
    (only,) = place([Want("worker", 1, WORKER)], offers, EXECUTOR, running, pack=True)
    assert only.offer.agent_id == "b"


def test_servers_are_spread_even_where_workers_are_packed():
    assert len(set(placed([], [agent(name) for name in "abc"], servers=3, workers=2, pack=True).values())) == 3


def test_maintenance_comes_last():
    planned = AgentOffer("a", "a", "", ("o",), resources(cpus=9), maintenance_in_s=1e6)
    assert placed([], [planned, agent("b", cpus=1.2)], workers=2) == {"worker-0": "b", "worker-1": "a"}


REVOCABLE = {"name": "cpus", "type": "SCALAR", "scalar": {"value": 2.5}, "revocable": {}}


def oversubscribed(name, cpus):
    return AgentOffer(name, name, "", (f"o-{name}",), resources(cpus=cpus) + Resources.parse([REVOCABLE]))


def test_revocable_cpus_only_when_asked_for_and_never_for_servers():
    offers = [oversubscribed("a", 1.7)]
    (plain,) = place(wants(1, 3), offers, EXECUTOR, {})
    assert plain.left.revocable_cpus == 2.5
    (placement,) = place(wants(1, 3), offers, EXECUTOR, {}, revocable=True)
    kinds = {f"{x.want.role}-{x.want.index}": x.revocable for x in placement.launches}
    assert kinds == {"server-0": False, "worker-0": True, "worker-1": True, "worker-2": False}
    assert placement.executor is not None
    assert placement.revocable_executor is not None
    for launch in placement.launches:
        used = launch.resources + (placement.revocable_executor if launch.revocable else placement.executor)
        assert used.revocable_cpus * used.cpus == 0, "Mesos refuses a task and executor with both kinds"


def test_reserved_resources_are_used_first():
    reserved = {"reservations": [{"type": "STATIC", "role": "ours"}], "allocation_info": {"role": "ours"}}
    own = {"name": "cpus", "type": "SCALAR", "scalar": {"value": 1.5}, **reserved}
    offer = AgentOffer("a", "a", "", ("o",), resources(cpus=4) + Resources.parse([own]))
    (placement,) = place([Want("worker", 0, WORKER)], [offer], EXECUTOR, {})
    assert "reservations" in str(placement.launches[0].resources.to_mesos())
    assert placement.left.milli("cpus") == 4400


def test_attributes_of_offers():
    offer = {
        "id": {"value": "o"},
        "agent_id": {"value": "a"},
        "hostname": "h",
        "domain": {"fault_domain": {"region": {"name": "eu"}, "zone": {"name": "eu-1"}}},
        "attributes": [
            {"name": "rack", "type": "TEXT", "text": {"value": "r1"}},
            {"name": "level", "type": "SCALAR", "scalar": {"value": 2.0}},
            {"name": "slots", "type": "RANGES", "ranges": {"range": [{"begin": 1, "end": 4}]}},
        ],
    }
    fields = {"hostname": "h", "@region": "eu", "@zone": "eu-1", "rack": "r1", "level": "2", "slots": "[1-4]"}
    assert parse_offer(offer).attributes == fields


def holds(constraint, earlier, value):
    """Marathon's rule, written down a second time: may a task go to `value` after those at `earlier`?"""
    counts = Counter(x for x in earlier if x is not None)
    if value is None:
        return constraint.operator == "UNLIKE"
    least = min(counts.values(), default=0)
    return {
        "UNIQUE": counts[value] == 0,
        "CLUSTER": value == constraint.value if constraint.value else set(counts) <= {value},
        "GROUP_BY": counts[value] == 0
        or (len(counts) >= int(constraint.value or 0 if constraint.value.isdigit() else 0) and counts[value] == least),
        "MAX_PER": counts[value] < (int(constraint.value) if constraint.value.isdigit() else 0),
        "IS": value == constraint.value,
        "LIKE": re.fullmatch(constraint.value, value) is not None,
        "UNLIKE": re.fullmatch(constraint.value, value) is None,
    }[constraint.operator]


agents = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 6000), st.sampled_from(["1", "2", "3", None]), st.sampled_from("xyz")),
    max_size=6,
)
constraints = st.lists(
    st.sampled_from(
        [
            "rack:UNIQUE", "hostname:UNIQUE", "rack:CLUSTER", "rack:CLUSTER:2", "rack:GROUP_BY", "rack:GROUP_BY:3",
            "rack:MAX_PER:2", "hostname:MAX_PER:3", "rack:IS:1", "rack:LIKE:[12]", "rack:UNLIKE:2", "worker:rack:IS:3",
            "server:hostname:LIKE:[xy]",
        ]
    ),
    max_size=3,
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(agents, constraints, st.integers(0, 3), st.integers(0, 8), st.booleans(), st.booleans())
def test_every_constraint_holds_in_every_placement_and_no_more_is_used_than_offered(
    sizes, texts, servers, workers, pack, revocable
):
    offers = []
    for number, (cpus, mem, rack, host) in enumerate(sizes):
        fields = {"hostname": host, **({"rack": rack} if rack else {})}
        some = resources(cpus=cpus / 10, mem=mem)
        if number % 2:
            some = some + Resources.parse([REVOCABLE])
        offers.append(AgentOffer(str(number), host, "", (f"o{number}",), some, fields))
    chosen = [c for text in texts for c in Constraint.parse(text)]
    placements = place(wants(servers, workers), offers, EXECUTOR, {}, Census(chosen), pack, revocable)
    launches = []
    for p in placements:
        total = p.left
        for taken in (p.executor, p.revocable_executor, *(x.resources for x in p.launches)):
            total = total + (taken or NOTHING)
        assert total == p.offer.resources
        assert all(x.want.role == "worker" and revocable for x in p.launches if x.revocable)
        launches += [(x.want.role, x.want.index, p.offer.attributes) for x in p.launches]
    for constraint in chosen:
        earlier = []
        for _, _, fields in sorted((x for x in launches if x[0] == constraint.role), key=lambda x: x[1]):
            assert holds(constraint, earlier, fields.get(constraint.field)), constraint
            earlier.append(fields.get(constraint.field))


@settings(deadline=None, max_examples=60)
@given(agents, st.integers(1, 8), st.booleans())
def test_without_constraints_no_worker_is_left_out_that_fits(sizes, workers, pack):
    offers = [
        AgentOffer(str(n), h, "", (f"o{n}",), resources(cpus=c / 10, mem=m)) for n, (c, m, _, h) in enumerate(sizes)
    ]
    placements = place(wants(0, workers), offers, EXECUTOR, {}, pack=pack)
    if sum(len(p.launches) for p in placements) < workers:
        used = {p.offer.agent_id: p.left for p in placements}
        for offer in offers:
            left = used.get(offer.agent_id)
            assert not (offer.resources.fits(WORKER + EXECUTOR) if left is None else left.fits(WORKER))


def test_needs_of_one_role_may_differ():
    """A task that was killed for memory asks for more than its fellows."""
    offers = [agent("a", cpus=2.2)]
    mixed = [Want("worker", 0, Need(1, 9000)), Want("worker", 1, WORKER), Want("server", 0, SERVER)]
    (placement,) = place(mixed, offers, EXECUTOR, {})
    assert [(x.want.role, x.want.index) for x in placement.launches] == [("server", 0), ("worker", 1)]
