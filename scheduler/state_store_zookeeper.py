"""A job's state in ZooKeeper, for drivers that may run on any host: zk://[USER:PASSWORD@]HOST:PORT,.../PATH.

    PATH/JOB/driver     epoch and process; its version guards every change, so that an older driver's fail
    PATH/JOB/alive      ephemeral: the driver's lock
    PATH/JOB/records/   a node for each record
    PATH/JOB/chunks/    the parts of records that are too large for a node

With USER:PASSWORD only who knows them can read it (digest ACL); without, everybody who reaches ZooKeeper can, and with
it the job's secret.
"""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

from kazoo.client import KazooClient
from kazoo.exceptions import (
    BadVersionError,
    KazooException,
    NodeExistsError,
    NoNodeError,
    RolledBackError,
    RuntimeInconsistency,
)
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.security import make_digest_acl

from proto.mesos_detector import ZooKeeperUrl, parse_zookeeper_url
from scheduler.fencing import DriverRuns, Holder, Superseded
from scheduler.json_values import Json, decode, encode
from scheduler.outcome import UsageError
from scheduler.state_store import Driver, StateError

SESSION_S = 6.0  #: after which the lock of a driver whose host died is gone
DEADLINE_S = 10.0  #: of every request
CHUNK_BYTES = 400_000  #: a request may have 1 MB


class ZooKeeperStates:
    """All jobs below one path. One session, begun with the first request."""

    def __init__(self, place: str) -> None:
        """Raises UsageError if `place` is no URL of ZooKeeper."""
        try:
            self._url = parse_zookeeper_url(place)
        except ValueError as error:
            raise UsageError(f"--state: {error}") from None
        self._client: Any = None

    def __str__(self) -> str:
        return str(self._url)

    @property
    def client(self) -> Any:
        """Connected. Raises StateError."""
        if self._client is None:
            client = _client(self._url)
            try:
                client.start(timeout=DEADLINE_S)
            except KazooTimeoutError:
                client.stop()
                client.close()
                raise StateError(f"no ZooKeeper answers at {self._url}") from None
            self._client = client
        return self._client

    def prepare(self) -> None:
        with _errors(self) as client:
            client.ensure_path(self._url.path)

    def ids(self) -> list[str]:
        with _errors(self):
            try:
                return sorted(self.client.get_children_async(self._url.path).get(timeout=DEADLINE_S))
            except NoNodeError:
                return []

    def store(self, job_id: str) -> ZooKeeperStore:
        return ZooKeeperStore(self, f"{self._url.path}/{job_id}")

    def close(self) -> None:
        if self._client is not None:
            self._client.stop()
            self._client.close()
            self._client = None


class ZooKeeperStore:
    """A StateStore."""

    def __init__(self, states: ZooKeeperStates, path: str) -> None:
        self._states = states
        self._path = path
        self._epoch = 0
        self._version = -1  #: of the node `driver`, as long as this process is it
        self._keys: dict[str, list[str]] | None = None  #: known records, and their chunks

    def create(self, records: Mapping[str, Json]) -> None:
        with _errors(self._states) as client:
            self._states.prepare()
            transaction = client.transaction()
            transaction.create(self._path)
            transaction.create(f"{self._path}/driver", _driver_data(1))
            transaction.create(f"{self._path}/alive", ephemeral=True)
            for name in ("records", "chunks"):
                transaction.create(f"{self._path}/{name}")
            _commit(transaction)
            self._epoch, self._version, self._keys = 1, 0, {}
        self.save(records)

    def acquire(self, take_over: bool = False) -> int:
        with _errors(self._states) as client:
            data, stat = self._get(client, "driver")
            known = json.loads(data)
            holder = decode(Holder, known["holder"])
            if not take_over and not holder.is_dead and not self._wait_until_dead(client, holder):
                raise DriverRuns(str(holder))
            transaction = client.transaction()
            transaction.set_data(f"{self._path}/driver", _driver_data(known["epoch"] + 1), version=stat.version)
            if client.exists_async(f"{self._path}/alive").get(timeout=DEADLINE_S):
                transaction.delete(f"{self._path}/alive")
            transaction.create(f"{self._path}/alive", ephemeral=True)
            try:
                _commit(transaction)
            except (BadVersionError, NodeExistsError, NoNodeError):
                raise DriverRuns("a process that has only just begun") from None
            self._epoch, self._version = known["epoch"] + 1, stat.version + 1
        return self._epoch

    def load(self) -> dict[str, Json]:
        with _errors(self._states) as client:
            found: dict[str, Json] = {}
            for node in client.get_children_async(f"{self._path}/records").get(timeout=DEADLINE_S):
                data, _ = self._get(client, f"records/{node}")
                value = json.loads(data)
                if isinstance(value, list):  # of chunks
                    value = json.loads(b"".join(self._get(client, f"chunks/{name}")[0] for name in value))
                found[unquote(node)] = value
            return found

    def save(self, changes: Mapping[str, Json | None]) -> None:
        with _errors(self._states) as client:
            keys = self._known(client)
            outdated: list[str] = []
            transaction = client.transaction()
            transaction.check(f"{self._path}/driver", self._version)
            after = dict(keys)
            for key, record in changes.items():
                node = f"{self._path}/records/{quote(key, safe='')}"
                outdated += keys.get(key, [])
                if record is None:
                    if after.pop(key, None) is not None:
                        transaction.delete(node)
                    continue
                data = json.dumps(record).encode()
                chunks = self._write_chunks(client, data) if len(data) > CHUNK_BYTES else []
                data = json.dumps(chunks).encode() if chunks else data
                if key in keys:
                    transaction.set_data(node, data)
                else:
                    transaction.create(node, data)
                after[key] = chunks
            self._keys = None  # unknown, should the answer get lost
            try:
                _commit(transaction)
            except BadVersionError:
                raise Superseded(str(self._holder(client))) from None
            self._keys = after
            for name in outdated:
                client.delete_async(f"{self._path}/chunks/{name}")

    def check(self) -> None:
        with _errors(self._states) as client:
            data, stat = self._get(client, "driver")
            if stat.version != self._version:
                raise Superseded(str(decode(Holder, json.loads(data)["holder"])))
            if not client.exists_async(f"{self._path}/alive").get(timeout=DEADLINE_S):  # our session had ended
                transaction = client.transaction()
                transaction.check(f"{self._path}/driver", self._version)
                transaction.create(f"{self._path}/alive", ephemeral=True)
                with contextlib.suppress(NodeExistsError, BadVersionError):  # the next look will see whose it is
                    _commit(transaction)

    def driver(self) -> Driver:
        with _errors(self._states) as client:
            known = json.loads(self._get(client, "driver")[0])
            holder = decode(Holder, known["holder"])
            alive = client.exists_async(f"{self._path}/alive").get(timeout=DEADLINE_S) is not None
            return Driver(known["epoch"], holder, alive and not holder.is_dead)

    def remove(self) -> None:
        with _errors(self._states) as client:
            client.delete(self._path, recursive=True)
        self._version = -1

    def close(self) -> None:
        if self._version < 0:
            return
        with contextlib.suppress(StateError), _errors(self._states) as client:
            transaction = client.transaction()
            transaction.check(f"{self._path}/driver", self._version)
            transaction.delete(f"{self._path}/alive")
            with contextlib.suppress(BadVersionError, NoNodeError):
                _commit(transaction)
        self._version = -1

    def _get(self, client: Any, name: str) -> tuple[bytes, Any]:
        data, stat = client.get_async(f"{self._path}/{name}").get(timeout=DEADLINE_S)
        return data, stat

    def _holder(self, client: Any) -> Holder:
        return decode(Holder, json.loads(self._get(client, "driver")[0])["holder"])

    def _known(self, client: Any) -> dict[str, list[str]]:
        if self._keys is None:
            keys: dict[str, list[str]] = {}
            for node in client.get_children_async(f"{self._path}/records").get(timeout=DEADLINE_S):
                value = json.loads(self._get(client, f"records/{node}")[0])
                keys[unquote(node)] = value if isinstance(value, list) else []
            self._keys = keys
        return self._keys

    def _write_chunks(self, client: Any, data: bytes) -> list[str]:
        names = []
        for begin in range(0, len(data), CHUNK_BYTES):
            names.append(uuid.uuid4().hex)
            node = f"{self._path}/chunks/{names[-1]}"
            client.create_async(node, data[begin : begin + CHUNK_BYTES]).get(timeout=DEADLINE_S)
        return names

    def _wait_until_dead(self, client: Any, holder: Holder) -> bool:
        """Whether the driver's lock goes within the time that ZooKeeper takes to notice a death."""
        gone = threading.Event()
        if not client.exists_async(f"{self._path}/alive", lambda event: gone.set()).get(timeout=DEADLINE_S):
            return True
        return not holder.is_here and gone.wait(1.5 * SESSION_S)


def _client(url: ZooKeeperUrl) -> Any:
    acl: Sequence[Any] | None = None
    auth = None
    if url.credential:
        auth = [("digest", url.credential)]
        acl = [make_digest_acl(*url.credential.split(":", 1), all=True)]
    return KazooClient(
        hosts=url.hosts,
        timeout=SESSION_S,
        auth_data=auth,
        default_acl=acl,
        connection_retry={"max_tries": -1, "max_delay": 2.0},
    )


@contextlib.contextmanager
def _errors(states: ZooKeeperStates) -> Iterator[Any]:
    """The client; what it raises becomes a StateError."""
    try:
        yield states.client
    except NoNodeError as error:
        raise StateError(f"there is no such job in {states}") from error
    except NodeExistsError as error:
        raise StateError(f"the job is in {states} already") from error
    except KazooTimeoutError as error:
        raise StateError(f"ZooKeeper at {states} does not answer") from error
    except (KazooException, ValueError) as error:
        raise StateError(f"{states}: {str(error) or type(error).__name__}") from error


def _commit(transaction: Any) -> None:
    """Raises what made it fail."""
    results = transaction.commit_async().get(timeout=DEADLINE_S)
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, RolledBackError | RuntimeInconsistency):
            raise result


def _driver_data(epoch: int) -> bytes:
    return json.dumps({"epoch": epoch, "holder": encode(Holder.this_process())}).encode()
