"""Follows the leading Mesos master through ZooKeeper."""

import json
import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from proto.backoff import Backoff
from proto.mesos_address import format_address

logger = logging.getLogger(__name__)

SESSION_TIMEOUT_S = 10.0
START_TIMEOUT_S = 5.0
RECHECK_S = 30.0  # a watch that got lost costs no more than this
_MASTER_NODE = re.compile(r"json\.info_(\d+)")


@dataclass(frozen=True)
class ZooKeeperUrl:
    """What "zk://user:password@host:port,host:port/path" says.

    Attributes:
        hosts: "host:port,host:port".
        path: of the node under which masters register, "/mesos".
        credential: "user:password" for the digest scheme, if any.
    """

    hosts: str
    path: str
    credential: str | None

    def __str__(self) -> str:
        return f"zk://{self.hosts}{self.path}"  # without the credential: this is what logs show


def is_zookeeper_url(text: str) -> bool:
    """Whether a master is given by ZooKeeper rather than by its address."""
    return text.startswith(("zk://", "zoo://"))


def parse_zookeeper_url(text: str) -> ZooKeeperUrl:
    """Takes a ZooKeeper URL apart.

    Raises:
        ValueError: with one line that says what was expected.
    """
    _, _, rest = text.partition("://")
    authority, slash, path = rest.partition("/")
    credential, at, hosts = authority.rpartition("@")
    path = "/" + path.strip("/")
    if not is_zookeeper_url(text) or not slash or path == "/" or not all(hosts.split(",")):
        raise ValueError("expected zk://HOST:PORT[,HOST:PORT...]/PATH, for example zk://localhost:2181/mesos")
    if at and ":" not in credential:
        raise ValueError("expected zk://USER:PASSWORD@HOST:PORT/PATH; there is no colon in what comes before the @")
    return ZooKeeperUrl(hosts, path, unquote(credential) if at else None)


def leading_node(children: list[str]) -> str | None:
    """The registration of the leader among the children of the masters' node: the oldest."""
    nodes = [child for child in children if _MASTER_NODE.fullmatch(child)]
    return min(nodes, key=lambda node: int(node.rpartition("_")[2]), default=None)


def master_address(data: bytes) -> str | None:
    """ "host:port" in a master's registration, a MasterInfo as JSON; None if it names none."""
    try:
        info = json.loads(data)
    except ValueError:
        return None
    address = info.get("address", {}) if isinstance(info, dict) else {}
    host, port = address.get("ip") or address.get("hostname"), address.get("port")
    return format_address(host, port) if host and isinstance(port, int) else None


class MasterDetector:
    """Tells who leads, in a thread of its own, until it is stopped.

    ZooKeeper being away does not change who leads: the last one known is kept, and the connection tried again.

    Args:
        url: of ZooKeeper.
        on_master: gets "host:port" of each new leader, None when there is none any more.
        on_failure: gets one line whenever ZooKeeper could not be asked; it is tried again.
        client_factory: makes a kazoo client; a test may pass its own.
    """

    def __init__(
        self,
        url: ZooKeeperUrl,
        on_master: Callable[[str | None], None],
        on_failure: Callable[[str], None],
        client_factory: Callable[[ZooKeeperUrl], Any] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._url = url
        self._on_master = on_master
        self._on_failure = on_failure
        self._client_factory = client_factory or _kazoo_client
        self._backoff = backoff or Backoff(first_s=0.5)
        self._stopped = threading.Event()
        self._wakeup = threading.Event()  # something may have changed
        self._master: str | None = None
        self._thread = threading.Thread(target=self._run, name="mesos-detector", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Has the thread end; returns at once."""
        self._stopped.set()
        self._wakeup.set()

    def join(self, timeout_s: float | None = None) -> bool:
        """Waits until the thread has ended; returns whether it has."""
        if self._thread.ident is None:
            return True
        if self._thread is threading.current_thread():
            return False
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._follow()
            except Exception as error:  # kazoo raises far more than its own exceptions; whatever it is, try again
                logger.debug("ZooKeeper failed", exc_info=True)
                self._on_failure(f"ZooKeeper at {self._url}: {str(error) or type(error).__name__}")
                self._stopped.wait(self._backoff.next_s())

    def _follow(self) -> None:
        """Follows the leader with one client, until it is stopped or fails."""
        client = self._client_factory(self._url)
        try:
            client.add_listener(self._notice)
            client.start(timeout=START_TIMEOUT_S)
            while not self._stopped.is_set():
                master = self._ask(client)
                self._backoff.reset()
                if master != self._master:
                    self._master = master
                    logger.info("the leading Mesos master is %s", master)
                    self._on_master(master)
                self._wakeup.wait(RECHECK_S)
        finally:
            client.stop()
            client.close()

    def _ask(self, client: Any) -> str | None:
        from kazoo.exceptions import NoNodeError

        self._wakeup.clear()
        if self._stopped.is_set():
            return self._master
        try:
            node = leading_node(client.get_children_async(self._url.path, self._notice).get(timeout=SESSION_TIMEOUT_S))
            if node is None:
                return None
            data, _ = client.get_async(f"{self._url.path}/{node}").get(timeout=SESSION_TIMEOUT_S)
        except NoNodeError:
            # No master has ever registered, or the leader went between the two questions.
            client.exists_async(self._url.path, self._notice).get(timeout=SESSION_TIMEOUT_S)
            return None
        return master_address(data)

    def _notice(self, event: Any) -> None:
        """Called by kazoo's threads when a watch fires or the connection changes."""
        self._wakeup.set()


def _kazoo_client(url: ZooKeeperUrl) -> Any:
    from kazoo.client import KazooClient

    auth = [("digest", url.credential)] if url.credential else None
    return KazooClient(
        hosts=url.hosts,
        timeout=SESSION_TIMEOUT_S,
        auth_data=auth,
        connection_retry={"max_tries": -1, "max_delay": 5.0},
        command_retry={"max_tries": 3, "deadline": SESSION_TIMEOUT_S},
    )
