"""Points of the checklist (docs/mesos.md) that need masters to fail, or agents of a certain kind."""

import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proto import mesos_scheduler
from proto.backoff import Backoff
from proto.mesos import CallFailed, NotConnected, SchedulerDriver
from scheduler import actions as act
from scheduler import events as ev
from scheduler.cluster import ClusterOptions, EmbeddedCluster
from scheduler.requests import CAPABILITIES, framework_info
from scheduler.resources import Need
from tests.mesos_api.defects import DEFECTS, Drivers
from tests.mesos_api.recorders import RecordingScheduler, wait_until
from tests.mesos_checklist.mesos_proxy import MesosProxy
from tests.mesos_checklist.recorded import job_plan
from tests.scheduler.harness import Harness, of

pytestmark = pytest.mark.cluster

NO_OFFER_S = 1.5  # fifteen rounds of the embedded cluster's allocator


class Connected:
    """A driver with the FrameworkInfo of a Mesograd job; the framework is torn down at the end."""

    def __init__(self, master: str, plan: dict[str, Any] | None = None, **changes: Any) -> None:
        info = {**framework_info(job_plan({}, **(plan or {})), "127.0.0.1"), "user": "root", **changes}
        self.seen = RecordingScheduler()
        self.driver = SchedulerDriver(self.seen, info, master, call_timeout_s=1.0)

    def __enter__(self) -> "Connected":
        self.driver.start()
        wait_until(lambda: self.driver.connected, 30, "not connected")
        return self

    def __exit__(self, *exc: Any) -> None:
        wait_until(lambda: self.driver.connected or self.driver.aborted, 30, "not connected again")
        if self.driver.connected:
            self.driver.teardown()
        self.driver.stop()
        assert self.driver.join(10)

    def is_offered(self) -> bool:
        """Whether an offer comes soon."""
        threading.Event().wait(NO_OFFER_S)
        return bool(self.seen.args_of("resourceOffers"))


@pytest.fixture(scope="module")
def three_masters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCluster]:
    with EmbeddedCluster(tmp_path_factory.mktemp("three"), agents=1, masters=3, cpus=4, mem_mb=4000) as cluster:
        yield cluster


def standing_by(cluster: EmbeddedCluster) -> str:
    """Address of a master that runs and does not lead."""
    return next(s.address for s in cluster.status() if s.name.startswith("master") and s.pid and not s.leading)


def test_point_05_the_older_of_two_schedulers_gives_way(three_masters: EmbeddedCluster) -> None:
    """ERROR "Framework failed over" ends the driver for good; it neither subscribes again nor tears down."""
    with Connected(three_masters.master) as older:
        with Connected(three_masters.master, id={"value": older.driver.framework_id}) as newer:
            assert older.seen.wait("error") == ("Framework failed over",)
            assert older.driver.join(5)
            assert older.driver.aborted
            assert newer.driver.connected
            assert not newer.seen.args_of("error")


def test_point_05_a_fenced_job_ends_and_tears_nothing_down() -> None:
    harness = Harness()
    harness.start()
    actions = harness.send(ev.MesosError("Framework failed over"))
    assert of(actions, act.Teardown) == []
    assert of(actions, act.Kill) == []
    assert harness.over.superseded


def test_point_07_the_leader_is_found(three_masters: EmbeddedCluster) -> None:
    """By redirection from any master, and through ZooKeeper, also when the leader dies."""
    with Connected(standing_by(three_masters)) as by_address, Connected(three_masters.master) as by_zookeeper:
        leader = next(s for s in three_masters.status() if s.leading)
        assert by_address.driver.master == by_zookeeper.driver.master == leader.address
        three_masters.kill(leader.name)
        by_zookeeper.seen.wait("disconnected")
        by_zookeeper.seen.wait("reregistered", timeout_s=30)
        assert by_zookeeper.driver.master != leader.address
        by_address.seen.wait("reregistered", timeout_s=45)
        three_masters.start(leader.name)


def test_point_07_back_off() -> None:
    backoff = Backoff(max_s=mesos_scheduler.MAX_BACKOFF_S, uniform=lambda low, high: high)
    delays = [backoff.next_s() for _ in range(10)]
    assert max(delays) == mesos_scheduler.MAX_BACKOFF_S == 15
    assert all(later >= 2 * before or later == 15 for before, later in itertools.pairwise(delays))


def test_point_08_a_master_that_is_stopped(three_masters: EmbeddedCluster) -> None:
    """A call to a master that does not answer has a deadline; the driver is free meanwhile."""
    with Connected(three_masters.master) as framework:
        leader = next(s for s in three_masters.status() if s.leading)
        pid = leader.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            with pytest.raises(CallFailed):
                framework.driver.reviveOffers()
            assert 0.9 < time.monotonic() - begun < 5
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: framework.driver.connected, 30, "not connected again")


def test_point_08_missed_heartbeats() -> None:
    """Five of 15 s; the fake master's come every 0.1 s, and stop."""
    assert mesos_scheduler.MISSED_HEARTBEATS * mesos_scheduler.DEFAULT_HEARTBEAT_S == 75
    with Drivers(original=False) as drivers:
        DEFECTS["missed_heartbeats_end_the_subscription"].run(drivers)


def test_point_08_a_master_that_forgot_the_subscription(tmp_path: Path) -> None:
    """It was restarted behind a connection whose end got lost: the first call that it refuses shows it."""
    with EmbeddedCluster(tmp_path / "cluster", agents=1) as cluster, MesosProxy(cluster.master) as proxy:
        with Connected(proxy.address) as framework:
            framework.seen.wait("resourceOffers")
            proxy.half_open = True
            cluster.kill("master-1")
            cluster.start("master-1")
            assert framework.driver.connected, "the end of the connection was told"

            with pytest.raises(NotConnected, match="knows this subscription no longer"):
                framework.driver.reviveOffers()
            proxy.half_open = False
            framework.seen.wait("reregistered", timeout_s=20)
            assert proxy.refusals


def test_point_16_other_regions(tmp_path: Path) -> None:
    """Mesograd is not REGION_AWARE: agents far away, where exchange would crawl, are not even offered to it."""
    assert "REGION_AWARE" not in CAPABILITIES

    def domain(region: str) -> str:
        return json.dumps({"fault_domain": {"region": {"name": region}, "zone": {"name": "1"}}})

    options = ClusterOptions(agents=1, master_flags={"domain": domain("here")}, agent_flags={"domain": domain("there")})
    with EmbeddedCluster(tmp_path / "cluster", options=options) as cluster:
        with Connected(cluster.master) as framework:
            assert not framework.is_offered()
        aware = [{"type": name} for name in (*CAPABILITIES, "REGION_AWARE")]
        with Connected(cluster.master, capabilities=aware) as framework:
            assert framework.is_offered()


def test_point_19_small_offers_are_not_even_made(three_masters: EmbeddedCluster) -> None:
    """An agent without room for one task is left out by the allocator (offer_filters); the same one is offered else."""
    need = Need(5, 100)  # the agent has four cpus
    with Connected(three_masters.master, {"worker_need": need, "server_need": need}) as framework:
        assert not framework.is_offered()
    with Connected(three_masters.master, {"worker_need": need}) as framework:
        assert framework.is_offered()  # a server fits
