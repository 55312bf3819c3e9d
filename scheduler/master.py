"""What --master says, and whether there is a master behind it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import re
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from proto.mesos_address import format_address, parse_address
from proto.mesos_detector import MasterDetector, is_zookeeper_url, parse_zookeeper_url
from proto.mesos_tls import Tls, http_connection
from scheduler.outcome import UsageError

CONNECT_TIMEOUT_S = 5.0
LEADER_TIMEOUT_S = 15.0
DEFAULT_PORT = 5050

_LOCAL = re.compile(r"local\[(\d+)\]")


@dataclass(frozen=True)
class LocalMaster:
    """`local[N]`: an embedded cluster with N agents, for the length of the job."""

    agents: int


@dataclass(frozen=True)
class RemoteMaster:
    """`HOST:PORT` or `zk://...`."""

    uri: str


def parse_master(text: str) -> LocalMaster | RemoteMaster:
    """Understands --master. Raises UsageError."""
    if text.startswith("file://"):  # as Mesos' own flags: a ZooKeeper URL may hold a password
        return parse_master(_contents(Path(text.removeprefix("file://"))))
    shown = re.sub(r"//[^/@]*@", "//...@", text)
    expected = f"--master takes local[N], HOST:PORT, zk://HOST:PORT/PATH or file:///PATH, not {shown!r}"
    if text == "local":
        return LocalMaster(1)
    if match := _LOCAL.fullmatch(text):
        agents = int(match[1])
        if not 1 <= agents <= 100:
            raise UsageError(f"--master local[N] takes 1 to 100 agents, not {agents}")
        return LocalMaster(agents)
    try:
        if is_zookeeper_url(text):
            parse_zookeeper_url(text)
            return RemoteMaster(text)
        if "://" in text or ("local" in text and "[" in text) or len(text.split()) != 1:
            raise UsageError(expected)
        return RemoteMaster(format_address(*parse_address(text, DEFAULT_PORT)))
    except ValueError:
        raise UsageError(expected) from None


def _contents(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--master file://{path}: {getattr(error, 'strerror', None) or 'it is not text'}") from None
    if text.startswith("file://"):
        raise UsageError(f"--master file://{path}: it names another file")
    return text


def leading_master(master: RemoteMaster) -> str:
    """ "host:port" of the leading master, after a look whether it is one.

    Raises:
        UsageError: nobody leads, nobody answers, or who answers is no Mesos master; says what was tried.
    """
    if not is_zookeeper_url(master.uri):
        _check(master.uri)
        return master.uri
    found: queue.SimpleQueue[str] = queue.SimpleQueue()
    failures: list[str] = []
    detector = MasterDetector(
        parse_zookeeper_url(master.uri), lambda leader: found.put(leader) if leader else None, failures.append
    )
    detector.start()
    try:
        leader = found.get(timeout=LEADER_TIMEOUT_S)
    except queue.Empty:
        why = f": {failures[-1]}" if failures else ""
        url = parse_zookeeper_url(master.uri)
        raise UsageError(f"no Mesos master leads at {url} (waited {LEADER_TIMEOUT_S:.0f} s){why}") from None
    finally:
        detector.stop()  # its thread ends when ZooKeeper's client has timed out; nobody waits for that
    _check(leader)
    return leader


def _check(address: str) -> None:
    try:
        connection = http_connection(address, CONNECT_TIMEOUT_S, Tls.of(os.environ))
    except ValueError as error:
        raise UsageError(str(error)) from None
    response: http.client.HTTPResponse | None = None
    try:
        # Every master redirects here to the leader, itself included; nothing else is likely to.
        connection.request("GET", "/redirect")
        response = connection.getresponse()
        response.read()
        if response.status == http.client.TEMPORARY_REDIRECT:
            return
    except TimeoutError:
        raise UsageError(
            f"no Mesos master at {address}: no answer within {CONNECT_TIMEOUT_S:.0f} s; check --master"
        ) from None
    except ssl.SSLError as error:
        why = getattr(error, "verify_message", "") or error.reason or "it does not speak TLS"
        raise UsageError(f"no TLS with the master at {address}: {why}; check LIBPROCESS_SSL_*") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"no Mesos master at {address}: {reason}; check --master") from None
    except http.client.HTTPException:
        pass
    finally:
        connection.close()
    if response is not None and response.status in (http.client.UNAUTHORIZED, http.client.SERVICE_UNAVAILABLE):
        return  # a master that wants a password here, or has no leader yet: the subscription will tell
    raise UsageError(f"what answers at {address} is not a Mesos master; check --master")


def framework_named(address: str, name: str, credential: str | None = None) -> str:
    """Id of the framework of that name at the leading master; empty if there is none, or the master does not say.

    `credential` is the value of an Authorization header, for masters that want one.
    """
    headers = {"Authorization": credential} if credential else {}
    try:
        with contextlib.closing(http_connection(address, CONNECT_TIMEOUT_S, Tls.of(os.environ))) as connection:
            connection.request("GET", "/frameworks", headers=headers)
            response = connection.getresponse()
            body = response.read()
        if response.status != http.client.OK:
            return ""
        frameworks = json.loads(body).get("frameworks", [])
    except (OSError, http.client.HTTPException, ValueError):
        return ""
    return next((str(item["id"]) for item in frameworks if item.get("name") == name), "")


def address_towards(address: str) -> str:
    """This machine's address on the way to "host:port": what agents near it most likely reach.

    Raises:
        UsageError: there is no way to it.
    """
    host, port = parse_address(address)
    try:
        family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect(target)  # sends nothing
            return str(sock.getsockname()[0])
    except OSError as error:
        raise UsageError(f"no way to {address}: {error}; name this machine's address with --driver-host") from None
