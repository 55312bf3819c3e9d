import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.resources import NOTHING, Need, ResourceError, Resources, merge_ranges, subtract_ranges

from .harness import resources

spans = st.lists(st.tuples(st.integers(1, 200), st.integers(0, 20)).map(lambda p: (p[0], p[0] + p[1])), max_size=8)
traits = st.sampled_from(
    [
        {"role": "*"},
        {"role": "*", "allocation_info": {"role": "*"}},
        {"role": "ml", "reservations": [{"type": "STATIC", "role": "ml"}], "allocation_info": {"role": "ml"}},
    ]
)
scalar = st.builds(
    lambda name, milli, t: {"name": name, "type": "SCALAR", "scalar": {"value": milli / 1000}, **t},
    st.sampled_from(["cpus", "mem"]),
    st.integers(0, 5_000_000),
    traits,
)
ports = st.builds(
    lambda s, t: {
        "name": "ports",
        "type": "RANGES",
        "ranges": {"range": [{"begin": b, "end": e} for b, e in s]},
        **t,
    },
    spans,
    traits,
)
bags = st.lists(st.one_of(scalar, ports), max_size=6).map(Resources.parse)
needs = st.builds(Need, st.integers(0, 6_000_000).map(lambda m: m / 1000), st.floats(0, 6000), st.integers(0, 30))


@given(bags, needs)
def test_taken_and_left_are_what_was_there(bag, need):
    result = bag.take(need)
    if result is None:
        assert not bag.fits(need)
        return
    taken, left = result
    assert taken + left == bag
    assert bag - taken == left
    assert taken.milli("cpus") == round(need.cpus * 1000)
    assert taken.milli("mem") == round(need.mem_mb * 1000)
    assert taken.port_count == need.ports


@given(bags)
def test_json_round_trip(bag):
    assert Resources.parse(json.loads(json.dumps(bag.to_mesos()))) == bag


@given(spans, spans)
def test_ranges_behave_as_sets(a, b):
    def members(ranges):
        return {n for begin, end in ranges for n in range(begin, end + 1)}

    whole, part = merge_ranges([*a, *b]), merge_ranges(b)
    assert members(whole) == members(a) | members(b)
    assert all(x[1] + 1 < y[0] for x, y in itertools.pairwise(whole))
    assert members(subtract_ranges(whole, part)) == members(whole) - members(part)


def test_a_thousandth_is_exact():
    bag = resources(cpus=0.3)
    for _ in range(3):
        taken, bag = bag.take(Need(0.1, 0))
        assert taken.cpus == 0.1
    assert bag.milli("cpus") == 0
    assert bag.take(Need(0.001, 0)) is None


def test_reserved_resources_go_first_and_keep_their_traits():
    reservation = {"reservations": [{"type": "DYNAMIC", "role": "ml"}], "allocation_info": {"role": "ml"}}
    bag = Resources.parse(
        [
            {"name": "cpus", "type": "SCALAR", "scalar": {"value": 2}, "allocation_info": {"role": "ml"}},
            {"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}, **reservation},
        ]
    )
    taken, left = bag.take(Need(1.5, 0))
    assert {item["scalar"]["value"]: item.get("reservations") for item in taken.to_mesos()} == {
        0.5: None,
        1.0: reservation["reservations"],
    }
    assert left.cpus == 1.5


@pytest.mark.parametrize("field", [{"shared": {}}, {"disk": {}}, {"provider_id": {"value": "x"}}])
def test_resources_that_are_not_ours_to_use_are_left_out(field):
    item = {"name": "cpus", "type": "SCALAR", "scalar": {"value": 8}, **field}
    assert Resources.parse([item]) == NOTHING


def test_what_is_not_there_cannot_be_subtracted():
    with pytest.raises(ResourceError):
        resources(cpus=1) - resources(cpus=2)
    with pytest.raises(ResourceError):
        resources(ports=((1, 5),)) - resources(ports=((4, 6),))
    with pytest.raises(ResourceError, match="overlap"):
        resources(ports=((1, 5),)) + resources(ports=((5, 6),))


@pytest.mark.parametrize(
    "item",
    [
        {"type": "SCALAR"},
        {"name": "cpus", "type": "SCALAR"},
        {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 5, "end": 4}]}},
        {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 5}]}},
    ],
)
def test_malformed_resources(item):
    with pytest.raises(ResourceError):
        Resources.parse([item])
