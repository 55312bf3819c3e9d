from hypothesis import given
from hypothesis import strategies as st

from scheduler.placement import AgentOffer, Occupancy, Want, largest, merge_offers, place
from scheduler.resources import NOTHING, Need

from .harness import resources

WORKER, SERVER, EXECUTOR = Need(1, 1000), Need(0.5, 500, 1), Need(0.1, 64)


def wants(servers, workers, worker=WORKER):
    return [Want("worker", i, worker) for i in range(workers)] + [Want("server", i, SERVER) for i in range(servers)]


def agent(name, host=None, **sizes):
    return AgentOffer(name, host or name, "10.0.0.1", (f"offer-{name}",), resources(**sizes))


def where(placements):
    return {
        f"{launch.want.role}-{launch.want.index}": placement.offer.agent_id
        for placement in placements
        for launch in placement.launches
    }


def test_servers_are_spread_over_hosts_and_workers_over_agents():
    offers = [agent("a", "h1", cpus=9), agent("b", "h1", cpus=8), agent("c", "h2", cpus=4)]
    placed = where(place(wants(2, 3), offers, EXECUTOR, {}))
    assert {placed["server-0"], placed["server-1"]} == {"a", "c"}
    assert sorted(placed[f"worker-{i}"] for i in range(3)) == ["a", "b", "c"]


def test_servers_come_first_when_there_is_no_room_for_all():
    placed = where(place(wants(1, 5), [agent("a", cpus=1.7)], EXECUTOR, {}))
    assert placed == {"server-0": "a", "worker-0": "a"}


def test_the_executor_is_paid_once_per_agent():
    exact = 2 * WORKER.cpus + EXECUTOR.cpus
    assert len(where(place(wants(0, 3), [agent("a", cpus=exact)], EXECUTOR, {}))) == 2
    running = {"a": Occupancy("a", workers=1, executor=True)}
    assert len(where(place(wants(0, 3), [agent("a", cpus=2)], EXECUTOR, running))) == 2
    assert len(where(place(wants(0, 3), [agent("a", cpus=2)], EXECUTOR, {}))) == 1


def test_what_runs_already_counts_for_the_spreading():
    running = {"a": Occupancy("h1", servers=1, executor=True)}
    placed = where(place([Want("server", 1, SERVER)], [agent("b", "h1"), agent("c", "h2", cpus=1)], EXECUTOR, running))
    assert placed == {"server-1": "c"}


def test_an_agent_without_ports_gets_no_server():
    assert where(place(wants(1, 1), [agent("a", ports=())], EXECUTOR, {})) == {"worker-0": "a"}


def test_offers_of_one_agent_are_merged():
    one, two = agent("a", cpus=0.7, ports=((1, 2),)), agent("a", cpus=0.7, ports=((3, 9),))
    merged = merge_offers([one, agent("b"), two])
    assert [m.agent_id for m in merged] == ["a", "b"]
    assert merged[0].resources.cpus == 1.4
    assert merged[0].offer_ids == ("offer-a", "offer-a")
    assert where(place(wants(0, 1), merged[:1], EXECUTOR, {})) == {"worker-0": "a"}


def test_largest():
    assert largest([]) == NOTHING
    assert largest([resources(cpus=1, mem=9), resources(cpus=2, mem=3)]).cpus == 2


sizes = st.lists(
    st.tuples(st.integers(0, 80), st.integers(0, 9000), st.integers(0, 3), st.sampled_from("xyz"), st.booleans()),
    max_size=5,
)


@given(sizes, st.integers(0, 4), st.integers(0, 6))
def test_nothing_is_taken_twice_and_nothing_that_fits_is_left_out(agents, servers, workers):
    offers, running = [], {}
    for number, (cpus, mem, ports, host, executor) in enumerate(agents):
        name = str(number)
        offers.append(agent(name, host, cpus=cpus / 10, mem=mem, ports=((5, 4 + ports),) if ports else ()))
        if executor:
            running[name] = Occupancy(host, workers=1, executor=True)
    placements = place(wants(servers, workers), offers, EXECUTOR, running)
    placed = where(placements)
    assert len(placed) == sum(len(p.launches) for p in placements), "each want is placed at most once"
    left = {offer.agent_id: offer.resources for offer in offers}
    for p in placements:
        total = p.left
        for launch in p.launches:
            total = total + launch.resources
        if p.executor is not None:
            total = total + p.executor
        assert (p.executor is None) == (p.offer.agent_id in running)
        assert total == p.offer.resources
        left[p.offer.agent_id] = p.left
    used = {p.offer.agent_id for p in placements}
    for want in wants(servers, workers):
        if f"{want.role}-{want.index}" not in placed:
            for name, free in left.items():
                fresh = name not in used and name not in running
                assert not free.fits(want.need + EXECUTOR if fresh else want.need)


def test_a_replica_runs_on_another_host_than_its_server_if_there_is_one():
    offers = [agent("a", "h1", cpus=9), agent("b", "h1", cpus=8), agent("c", "h2", cpus=2)]
    pair = [Want("server", 0, SERVER), Want("replica", 0, SERVER)]
    placed = where(place(pair, offers, EXECUTOR, {}))
    assert {placed["server-0"], placed["replica-0"]} == {"a", "c"}
    again = where(place([Want("server", 0, SERVER, apart_from="h2")], offers, EXECUTOR, {}))
    assert again == {"server-0": "a"}
    alone = where(place([Want("replica", 0, SERVER, apart_from="h1")], offers[:1], EXECUTOR, {}))
    assert alone == {"replica-0": "a"}
