"""A proxy before a real Mesos daemon: notes every call and event that passes, and can lose, hold up or cut them."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from http_parser.http import HttpParser

from proto.mesos_address import parse_address
from proto.recordio import RecordDecoder

READ_BYTES = 1 << 16
TIMEOUT_S = 30.0

SWALLOW = "swallow"  # the caller gets 202, the daemon nothing
FORWARD = "forward"

Verdict = float | str  # seconds to hold a call up before it is forwarded, or one of the above


@dataclass(frozen=True)
class Call:
    """One request. `time` of the monotonic clock; header names in lower case; `connection` counts them from 1."""

    time: float
    connection: int
    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def kind(self) -> str:
        """SUBSCRIBE, ACCEPT, ...; empty for what is no call of the scheduler's or the executor's API."""
        return str(self.body.get("type", "")) if self.path.endswith(("/scheduler", "/executor")) else ""

    @property
    def payload(self) -> dict[str, Any]:
        """The field named after the kind."""
        return dict(self.body.get(self.kind.lower()) or {})


@dataclass(frozen=True)
class Event:
    """One event of a subscription, when it passed."""

    time: float
    connection: int
    body: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.body.get("type", ""))


class MesosProxy:
    """Listens until stop(). `rule` decides what becomes of each call.

    While `half_open` is set, a subscriber is not told that the daemon's end of its connection is gone.
    """

    def __init__(self, upstream: str, rule: Callable[[Call], Verdict] = lambda call: FORWARD) -> None:
        self.upstream = upstream
        self.rule = rule
        self.half_open = False
        self.calls: list[Call] = []
        self.events: list[Event] = []
        self.swallowed: list[Call] = []
        self.refusals: list[tuple[Call, int, str]] = []  # with status and text of the answer
        self.errors: list[str] = []
        self._lock = threading.Lock()
        self._connections = 0
        self._open: set[socket.socket] = set()
        self._held: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._stopped = False
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "MesosProxy":
        return self

    def __exit__(self, *exc: Any) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopped = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for sock in self._held:
            sock.close()

    def cut(self) -> None:
        """Breaks all connections."""
        with self._lock:
            open_now = list(self._open)
        for sock in open_now:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def of(self, kind: str) -> list[Call]:
        """Calls of one kind, in order."""
        with self._lock:
            return [call for call in self.calls if call.kind == kind]

    def events_of(self, kind: str) -> list[Event]:
        with self._lock:
            return [event for event in self.events if event.kind == kind]

    # --- threads -----------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self._stopped:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._connections += 1
                number = self._connections
                self._open.add(client)
            threading.Thread(target=self._serve, args=(client, number), daemon=True).start()

    def _serve(self, client: socket.socket, number: int) -> None:
        try:
            upstream: socket.socket | None = None
            with client, contextlib.ExitStack() as stack:
                reader = stack.enter_context(client.makefile("rb"))  # which keeps the connection open as long as it is
                while (request := _read_request(reader)) is not None:
                    head, body = request
                    call = _parse(head, body, number)
                    verdict = self.rule(call)
                    with self._lock:
                        self.calls.append(call)
                    if verdict == SWALLOW:
                        self.swallowed.append(call)
                        client.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
                        continue
                    if isinstance(verdict, float):
                        time.sleep(verdict)
                    if upstream is None:
                        upstream = stack.enter_context(self._connect())
                    upstream.sendall(head + body)
                    if call.kind == "SUBSCRIBE":
                        self._stream(upstream, client, number)
                        return
                    status, answer = _relay_answer(upstream, client, call.method)
                    if status >= http.client.BAD_REQUEST:
                        self.refusals.append((call, status, answer))
        except OSError:
            pass  # either side has gone: the other one is told by the end of its connection
        except (ValueError, http.client.HTTPException) as error:
            self.errors.append(repr(error))
        finally:
            with self._lock:
                self._open.discard(client)

    def _connect(self) -> socket.socket:
        return socket.create_connection(parse_address(self.upstream), timeout=TIMEOUT_S)

    def _stream(self, upstream: socket.socket, client: socket.socket, number: int) -> None:
        """Relays a subscription until it ends, reading along."""
        with self._lock:
            self._open.add(upstream)
        threading.Thread(target=_end_together, args=(client, upstream), daemon=True).start()
        upstream.settimeout(None)
        parser, records = HttpParser(kind=1), RecordDecoder()
        try:
            while data := upstream.recv(READ_BYTES):
                parser.execute(data, len(data))
                if parser.is_partial_body() and parser.get_status_code() == http.client.OK:
                    now = time.monotonic()
                    found = [Event(now, number, json.loads(text)) for text in records.feed(parser.recv_body())]
                    with self._lock:
                        self.events += found
                client.sendall(data)
        finally:
            with self._lock:
                self._open.discard(upstream)
            with contextlib.suppress(OSError):
                if self.half_open:
                    self._held.append(client.dup())
                else:
                    client.shutdown(socket.SHUT_RDWR)  # another thread reads from it: closing alone would say nothing


def _end_together(client: socket.socket, upstream: socket.socket) -> None:
    """A subscriber says nothing more: what comes from it is its end."""
    with contextlib.suppress(OSError):
        while client.recv(READ_BYTES):
            pass
    with contextlib.suppress(OSError):
        upstream.shutdown(socket.SHUT_RDWR)


def _read_request(reader: Any) -> tuple[bytes, bytes] | None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = reader.readline()
        if not line:
            return None
        head += line
    length = next((int(line[15:]) for line in head.splitlines() if line.lower().startswith(b"content-length:")), 0)
    return head, reader.read(length)


def _parse(head: bytes, body: bytes, connection: int) -> Call:
    first, *rest = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest if line)}
    return Call(time.monotonic(), connection, method, path, headers, json.loads(body) if body else {})


def _relay_answer(upstream: socket.socket, client: socket.socket, method: str) -> tuple[int, str]:
    response = http.client.HTTPResponse(upstream, method=method)
    response.begin()
    body = response.read()
    skipped = ("transfer-encoding", "content-length")
    lines = [f"HTTP/1.1 {response.status} {response.reason}"]
    lines += [f"{name}: {value}" for name, value in response.getheaders() if name.lower() not in skipped]
    client.sendall("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("latin-1") + body)
    return response.status, body.decode("utf-8", "replace")
