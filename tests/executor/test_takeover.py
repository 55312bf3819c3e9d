"""When a new attempt goes on with what the servers hold, and what a server waits for before it acknowledges a step."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.leases import Leases
from executor.reduction_tree import Node
from executor.replication import Follower
from executor.takeover import fits, hands_over, newest_totals
from proto.checkpoint_pb2 import TrainingProgress
from proto.exchange_pb2 import Bookmark, Holding, Totals


def holdings(*versions: int) -> list[Holding]:
    return [Holding(index=k, servers=len(versions), version=version) for k, version in enumerate(versions)]


def mark(committed: int, applied: int) -> Bookmark:
    return Bookmark(progress=TrainingProgress(step=committed), step=applied)


@settings(deadline=None)
@given(st.data())
def test_whatever_a_fault_leaves_behind_fits(data: st.DataObject) -> None:
    """Servers apply, the book commits, in any order that the protocol allows; then some are lost, with replicas."""
    count = data.draw(st.integers(1, 4))
    versions, committed, told = [0] * count, 0, 0  # told: the last commit that the first server's replica knows of
    for _ in range(data.draw(st.integers(0, 30))):
        server = data.draw(st.integers(0, count - 1))
        if versions[server] == committed:
            versions[server] += 1
            told = committed if server == 0 else told
        if min(versions) > committed:
            committed += 1
    for known in (committed, told):  # as the first server lives, or its replica takes over
        if known >= versions[0] - 1:
            assert fits(mark(known, versions[0]), holdings(*versions))


@pytest.mark.parametrize(
    ("bookmark", "held"),
    [
        (None, holdings(5, 5)),
        (mark(4, 5), holdings(5, 3)),  # a replica that was not in step
        (mark(4, 5), holdings(5, 7)),
        (mark(5, 5), holdings(5, 4)),  # a commit is known that this server cannot have acknowledged
        (mark(4, 5), [Holding(index=0, servers=2, version=5), Holding()]),  # a new server
        (mark(4, 5), [Holding(index=0, servers=3, version=5), Holding(index=1, servers=3, version=5)]),
        (mark(4, 5), [Holding(index=0, servers=2, version=5), Holding(index=0, servers=2, version=5)]),
        (mark(4, 4), holdings(5, 5)),
    ],
)
def test_what_does_not_fit(bookmark: Bookmark | None, held: list[Holding]) -> None:
    assert not fits(bookmark, held)


def test_totals_that_only_some_servers_know_are_found() -> None:
    held = holdings(4, 5)
    assert newest_totals(held) is None
    held[0].totals.CopyFrom(Totals(step=4, totals=[1.0]))
    assert newest_totals(held) is None
    held[1].totals.CopyFrom(Totals(step=5, totals=[2.0], loss=0.5))
    assert newest_totals(held) == Totals(step=5, totals=[2.0], loss=0.5)


def test_a_server_waits_for_its_replica_from_the_moment_it_is_in_step() -> None:
    follower = Follower()
    assert follower.safe(7), "there is none"
    assert follower.named("r1")
    assert not follower.named("r1")
    assert follower.safe(7), "it is still behind"
    assert not follower.acknowledged(6, held=7)
    assert follower.acknowledged(7, held=7), "the driver is told"
    assert follower.safe(7)
    assert not follower.safe(8)
    assert not follower.acknowledged(8, held=8), "it knows already"
    assert follower.safe(8)
    assert follower.named("r2")
    assert follower.safe(9), "the new one is behind, and the driver does not promote it"
    follower.named("")
    assert follower.safe(9)


def test_workers_get_the_nodes_they_have_computed() -> None:
    leases = Leases()
    for worker in "ab":
        leases.joined(worker, 1.0)
    leases.open(4)
    claimed = {"a": Node(1, 1), "b": Node(1, 1), "c": Node(0, 0)}
    leases.wanted("a", 0.0)
    assert [(w, lease.node) for w, lease in leases.assign(0.0, None, claimed)] == [("a", Node(1, 1))]
    leases.wanted("b", 0.0)
    ((worker, lease),) = leases.assign(0.0, None, claimed)
    assert (worker, lease.node) == ("b", Node(1, 0)), "its own is not free any more"


@pytest.mark.parametrize(
    ("committed", "versions", "hands"),
    [(5, (5, 5, 5), True), (0, (0,), True), (5, (5, 6), False), (5, (6, 6), False), (6, (5, 5), False), (5, (), False)],
)
def test_slices_are_handed_over_only_at_one_committed_version(
    committed: int, versions: tuple[int, ...], hands: bool
) -> None:
    assert hands_over(mark(committed, committed), holdings(*versions)) is hands
    assert not hands_over(None, holdings(*versions))
    if len(versions) > 1:
        assert not hands_over(mark(committed, committed), holdings(*versions)[::-1]), "not by index"
        assert not hands_over(mark(committed, committed), [*holdings(*versions[:-1]), Holding()]), "one is empty"
