"""Following the leading master through ZooKeeper."""

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.security import make_digest_acl

from proto.backoff import Backoff
from proto.mesos_detector import (
    MasterDetector,
    ZooKeeperUrl,
    leading_node,
    master_address,
    parse_zookeeper_url,
)
from tests.mesos_api.defects import Drivers
from tests.mesos_api.real_mesos import CHECKOUT, free_port
from tests.mesos_api.recorders import RecordingScheduler, wait_until

ZOOKEEPER_JAR = Path("/usr/share/java/zookeeper.jar")
PATH = "/mesos"


def info(port: int, ip: str = "127.0.0.1") -> bytes:
    return json.dumps({"address": {"hostname": "localhost", "ip": ip, "port": port}}).encode()


# --- pure --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "hosts", "path", "credential"),
    [
        ("zk://h:2181/mesos", "h:2181", "/mesos", None),
        ("zoo://h:1,[::1]:2/a/b/", "h:1,[::1]:2", "/a/b", None),
        ("zk://user:p%40ss:w/rd@h/mesos".replace("/rd", "%2Frd"), "h", "/mesos", "user:p@ss:w/rd"),
    ],
)
def test_urls(text: str, hosts: str, path: str, credential: str | None) -> None:
    url = parse_zookeeper_url(text)
    assert url == ZooKeeperUrl(hosts, path, credential)
    assert str(url) == f"zk://{hosts}{path}", "the credential is not shown"


@pytest.mark.parametrize("text", ["zk://", "zk://h", "zk://h/", "zk:///mesos", "zk://h,,i/mesos", "zk://user@h/mesos"])
def test_what_is_no_url(text: str) -> None:
    with pytest.raises(ValueError, match="expected zk://"):
        parse_zookeeper_url(text)


def test_the_oldest_registration_leads() -> None:
    assert leading_node([]) is None
    assert leading_node(["log_replicas", "info_0000000001"]) is None
    assert leading_node(["log_replicas", "json.info_10000000000", "json.info_0000000009"]) == "json.info_0000000009"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (info(5050), "127.0.0.1:5050"),
        (info(5050, "::1"), "[::1]:5050"),
        (b'{"address": {"hostname": "m", "port": 1}}', "m:1"),
        (b'{"address": {"ip": "1.2.3.4"}}', None),
        (b"{}", None),
        (b"[]", None),
        (b"\x08\x96\x01", None),
    ],
)
def test_registrations(data: bytes, expected: str | None) -> None:
    assert master_address(data) == expected


# --- with a fake client --------------------------------------------------------------------------------------


class FakeZooKeeper:
    """Nodes below PATH, None while PATH itself is missing; makes the clients that see them."""

    def __init__(self) -> None:
        self.nodes: dict[str, bytes] | None = None
        self.start_errors: list[Exception] = []
        self.ask_errors: list[Exception] = []
        self.vanish_on_get = False
        self.watches: list[Callable[[Any], None]] = []
        self.clients = 0
        self.closed = 0

    def client(self, url: ZooKeeperUrl) -> "FakeClient":
        self.clients += 1
        return FakeClient(self)

    def change(self, nodes: dict[str, bytes] | None) -> None:
        self.nodes = nodes
        watches, self.watches = self.watches, []
        for watch in watches:
            watch("changed")


class FakeClient:
    def __init__(self, zookeeper: FakeZooKeeper) -> None:
        self.zookeeper = zookeeper

    def add_listener(self, listener: Any) -> None: ...

    def start(self, timeout: float) -> None:
        if self.zookeeper.start_errors:
            raise self.zookeeper.start_errors.pop(0)

    def get_children_async(self, path: str, watch: Any) -> "Later":
        assert path == PATH
        if self.zookeeper.ask_errors:
            return Later(self.zookeeper.ask_errors.pop(0))
        self.zookeeper.watches.append(watch)
        return Later(NoNodeError() if self.zookeeper.nodes is None else list(self.zookeeper.nodes))

    def get_async(self, path: str) -> "Later":
        if self.zookeeper.vanish_on_get:
            self.zookeeper.vanish_on_get = False
            self.zookeeper.change({})
        name = path.removeprefix(PATH + "/")
        nodes = self.zookeeper.nodes or {}
        return Later((nodes[name], None) if name in nodes else NoNodeError())

    def exists_async(self, path: str, watch: Any) -> "Later":
        self.zookeeper.watches.append(watch)
        return Later(None)

    def stop(self) -> None: ...

    def close(self) -> None:
        self.zookeeper.closed += 1


class Later:
    def __init__(self, result: Any) -> None:
        self.result = result

    def get(self, timeout: float) -> Any:
        assert timeout > 0
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


class Following:
    """A detector of a fake ZooKeeper, and what it told."""

    def __init__(self, zookeeper: FakeZooKeeper) -> None:
        self.masters: queue.Queue[str | None] = queue.Queue()
        self.failures: queue.Queue[str] = queue.Queue()
        url = parse_zookeeper_url("zk://user:secret@h:2181/mesos")
        backoff = Backoff(first_s=0.01, max_s=0.02)
        self.detector = MasterDetector(url, self.masters.put, self.failures.put, zookeeper.client, backoff)

    def __enter__(self) -> "Following":
        self.detector.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self.detector.stop()
        assert self.detector.join(5)


def test_leaders_come_and_go() -> None:
    zookeeper = FakeZooKeeper()
    with Following(zookeeper) as following:
        wait_until(lambda: zookeeper.watches, 5, "it does not watch")
        zookeeper.change({"json.info_0000000001": info(1), "json.info_0000000002": info(2)})
        assert following.masters.get(timeout=5) == "127.0.0.1:1"
        zookeeper.change({"json.info_0000000002": info(2)})
        assert following.masters.get(timeout=5) == "127.0.0.1:2"
        zookeeper.change({})
        assert following.masters.get(timeout=5) is None
        zookeeper.change({"json.info_0000000003": info(2)})
        assert following.masters.get(timeout=5) == "127.0.0.1:2"
    assert following.failures.empty()
    assert zookeeper.closed == zookeeper.clients == 1


def test_a_zookeeper_that_cannot_be_reached_is_told_and_tried_again() -> None:
    zookeeper = FakeZooKeeper()
    zookeeper.nodes = {"json.info_0000000001": info(1)}
    zookeeper.start_errors = [KazooTimeoutError("Connection time-out"), OSError("unreachable")]
    zookeeper.ask_errors = [KazooTimeoutError()]
    with Following(zookeeper) as following:
        assert following.masters.get(timeout=5) == "127.0.0.1:1"
    told = [following.failures.get(timeout=5) for _ in range(3)]
    reasons = ["Connection time-out", "unreachable", "KazooTimeoutError"]
    assert told == [f"ZooKeeper at zk://h:2181/mesos: {reason}" for reason in reasons]
    assert zookeeper.closed == zookeeper.clients == 4


def test_a_leader_that_vanishes_between_two_questions() -> None:
    zookeeper = FakeZooKeeper()
    zookeeper.nodes = {"json.info_0000000001": info(1)}
    zookeeper.vanish_on_get = True
    with Following(zookeeper) as following:
        wait_until(lambda: zookeeper.watches and not zookeeper.vanish_on_get, 5, "it does not watch")
        zookeeper.change({"json.info_0000000002": info(2)})
        assert following.masters.get(timeout=5) == "127.0.0.1:2"
    assert following.failures.empty()


def test_a_leader_stays_while_zookeeper_is_away() -> None:
    zookeeper = FakeZooKeeper()
    zookeeper.nodes = {"json.info_0000000001": info(1)}
    with Following(zookeeper) as following:
        assert following.masters.get(timeout=5) == "127.0.0.1:1"
        zookeeper.ask_errors = [OSError("lost")]
        zookeeper.change(zookeeper.nodes)
        assert "lost" in following.failures.get(timeout=5)
        zookeeper.change({"json.info_0000000002": info(2)})
        assert following.masters.get(timeout=5) == "127.0.0.1:2"


# --- with a real ZooKeeper -----------------------------------------------------------------------------------


class RealZooKeeper:
    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._config = directory / "zoo.cfg"
        self._config.write_text(
            f"tickTime=500\ndataDir={directory}/data\nclientPort={self.port}\n"
            "clientPortAddress=127.0.0.1\nadmin.enableServer=false\n"
        )
        self._log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["java", "-Xmx128m", "-cp", str(ZOOKEEPER_JAR)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(self._config)],
                stdout=log,
                stderr=log,
            )

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def zookeeper(tmp_path: Path) -> Iterator[RealZooKeeper]:
    if not ZOOKEEPER_JAR.exists() or shutil.which("java") is None:
        pytest.skip("needs Debian's package zookeeper")
    zookeeper = RealZooKeeper(tmp_path)
    yield zookeeper
    zookeeper.stop()


ORIGINAL = """
import sys, threading
from pymesos.detector import MasterDetector
class Agent:
    def onNewMasterDetectedMessage(self, data): print('master', flush=True); done.set()
    def onNoMasterDetectedMessage(self): print('no master', flush=True); done.set()
done = threading.Event()
MasterDetector(sys.argv[1], Agent()).start()
done.wait(10)
"""


@pytest.mark.cluster
def test_a_real_zookeeper(zookeeper: RealZooKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts late, keeps its nodes for those who have the password, loses one leader and gets another."""
    monkeypatch.setattr("proto.mesos_detector.START_TIMEOUT_S", 0.5)
    with Drivers(original=False) as drivers:
        first, second = drivers.master(), drivers.master()
        sched = RecordingScheduler()
        driver = drivers.scheduler(sched, f"zk://mesos:secret@127.0.0.1:{zookeeper.port}{PATH}")
        driver.start()
        (message,) = sched.wait("connectionFailed")
        assert f"zk://127.0.0.1:{zookeeper.port}/mesos" in message
        assert "secret" not in message
        monkeypatch.undo()

        zookeeper.start()
        masters = KazooClient(
            f"127.0.0.1:{zookeeper.port}",
            auth_data=[("digest", "mesos:secret")],
            default_acl=[make_digest_acl("mesos", "secret", all=True)],
            connection_retry={"max_tries": -1, "max_delay": 0.5},
        )
        masters.start(timeout=20)
        try:
            masters.ensure_path(PATH)
            leader = masters.create(f"{PATH}/json.info_", info(first.port), sequence=True, ephemeral=True)
            sched.wait("registered", timeout_s=20)
            assert driver.master == first.address

            done = subprocess.run(
                [sys.executable, "-c", ORIGINAL, f"mesos:secret@127.0.0.1:{zookeeper.port}{PATH}"],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            )
            assert "no master" in done.stdout or "NoAuth" in done.stderr, "pymesos has learnt to use credentials"

            masters.delete(leader)
            sched.wait("disconnected", timeout_s=10)
            assert not driver.connected
            masters.create(f"{PATH}/json.info_", info(second.port), sequence=True, ephemeral=True)
            sched.wait("reregistered", timeout_s=10)
            assert driver.master == second.address
            subscribe = second.wait_call("SUBSCRIBE").body
            assert subscribe["framework_id"] == {"value": "framework-1"}
        finally:
            masters.stop()
            masters.close()


def test_stopping_the_driver_stops_its_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proto.mesos_detector.START_TIMEOUT_S", 0.5)
    with Drivers(original=False) as drivers:
        sched = RecordingScheduler()
        driver = drivers.scheduler(sched, f"zk://127.0.0.1:{free_port()}/mesos")
        driver.start()
        detector = driver.detector
        driver.stop()
        assert driver.join(5)
        assert detector.join(20)
    assert not [thread for thread in threading.enumerate() if thread.name == "mesos-detector"]
