"""The two ways to speak with a Mesos daemon: a subscription that streams events, and single calls."""

import base64
import http.client
import json
import select
import socket
import ssl
import threading
from collections.abc import Mapping
from typing import Any

from http_parser.http import HttpParser

from proto.mesos_address import format_address, redirect_target
from proto.mesos_errors import CallFailed, CallRefused, Redirected, StreamFailed
from proto.mesos_tls import Tls, http_connection
from proto.recordio import RecordDecoder

READ_BYTES = 1 << 18
MAX_ERROR_BYTES = 1 << 16
MAX_REDIRECTS = 3

Json = dict[str, Any]


def basic_credential(principal: str, secret: str) -> str:
    """The value of an Authorization header (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{principal}:{secret}".encode()).decode("ascii")


def subscribe_request(address: str, path: str, body: Json, authorization: str | None) -> bytes:
    """The bytes of a SUBSCRIBE call, which never bears a stream id and whose connection serves nothing else."""
    data = json.dumps(body).encode()
    headers = [
        f"POST {path} HTTP/1.1",
        f"Host: {address}",
        "Content-Type: application/json",
        "Accept: application/json",
        "Connection: close",
        f"Content-Length: {len(data)}",
    ]
    if authorization is not None:
        headers.append(f"Authorization: {authorization}")
    return "\r\n".join([*headers, "", ""]).encode("latin-1") + data


def keep_alive(sock: socket.socket) -> None:
    """Has the kernel notice within about 75 s that the other machine is gone."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # Linux has them all
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


class EventStream:
    """The response to a SUBSCRIBE call, read without blocking.

    Attributes:
        stream_id: the Mesos-Stream-Id header, empty if there is none; None before the headers came.
        ended: whether nothing follows the events received so far.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._parser = HttpParser(kind=1)
        self._records = RecordDecoder()
        self.stream_id: str | None = None
        self.ended = False

    def receive(self) -> list[Json]:
        """Reads once from the socket, which is readable; returns the events that are complete.

        Raises:
            StreamFailed: what came is not a stream of events; Redirected: another master leads.
            CallRefused: the subscription was refused.
            OSError: the connection broke.
        """
        try:
            data = self._sock.recv(READ_BYTES)
            if isinstance(self._sock, ssl.SSLSocket):
                while waiting := self._sock.pending():  # decrypted already: the socket will not become readable for it
                    data += self._sock.recv(waiting)
        except (BlockingIOError, ssl.SSLWantReadError):
            return []
        if not data:
            self.ended = True
        elif self._parser.execute(data, len(data)) != len(data):
            raise StreamFailed(f"not an answer of Mesos: {self._parser.get_error_reason()}")
        if self.stream_id is None and self._parser.is_headers_complete():
            self._check_headers()
        if self._parser.is_message_complete():
            self.ended = True
        if self.stream_id is None or not self._parser.is_partial_body():
            return []
        try:
            return [json.loads(record) for record in self._records.feed(self._parser.recv_body())]
        except ValueError as error:  # RecordError is one
            raise StreamFailed(f"not an answer of Mesos: {error}") from None

    def _check_headers(self) -> None:
        status = self._parser.get_status_code()
        headers = self._parser.get_headers()
        if status == http.client.OK:
            if not self._parser.is_chunked():
                raise StreamFailed("not an answer of Mesos: it is not a stream")
            self.stream_id = headers.get("Mesos-Stream-Id", "")
            return
        if status == http.client.TEMPORARY_REDIRECT:
            try:
                raise Redirected(redirect_target(headers.get("Location", "")))
            except ValueError as error:
                raise StreamFailed(f"redirected to nowhere: {error}") from None
        # The reason follows in the body, which may take some more reads.
        if self._parser.is_message_complete() or self.ended:
            text = self._parser.recv_body()[:MAX_ERROR_BYTES].decode("utf-8", "replace").strip()
            raise CallRefused(status, text)

    def close(self) -> None:
        """Ends the subscription."""
        self._sock.close()


class CallConnections:
    """Sends calls, each on a connection of its own for its time; idle connections are kept for the next call.

    May be used by several threads at once: none waits for another's call.
    """

    def __init__(self, timeout_s: float, tls: Tls | None = None) -> None:
        self._timeout_s = timeout_s
        self._tls = tls
        self._lock = threading.Lock()
        self._idle: dict[str, list[http.client.HTTPConnection]] = {}
        self._generation = 0  # of the connections; close() ends one

    def post(self, address: str, path: str, body: Json, headers: Mapping[str, str]) -> bytes:
        """Sends one call to "host:port", following redirects; returns the body of the answer.

        Raises:
            CallRefused: Mesos answered with an error.
            CallFailed: there was no answer in time; the call may have arrived.
        """
        data = json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json", **headers}
        generation = self._generation
        for _ in range(1 + MAX_REDIRECTS):
            connection = self._take(address)
            try:
                connection.request("POST", path, body=data, headers=headers)
                response = connection.getresponse()
                answer = response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                raise CallFailed(f"no answer from {address}: {str(error) or type(error).__name__}") from error
            if response.will_close:
                connection.close()
            else:
                self._give_back(address, connection, generation)
            if 200 <= response.status < 300:
                return answer
            if response.status != http.client.TEMPORARY_REDIRECT:
                raise CallRefused(response.status, answer[:MAX_ERROR_BYTES].decode("utf-8", "replace").strip())
            try:
                address = redirect_target(response.getheader("Location", ""))
            except ValueError as error:
                raise CallFailed(f"{address} redirected to nowhere: {error}") from None
        raise CallFailed(f"redirected more than {MAX_REDIRECTS} times, last to {address}")

    def close(self) -> None:
        """Closes the idle connections; those in use are closed when their call ends."""
        with self._lock:
            idle, self._idle = self._idle, {}
            self._generation += 1
        for connections in idle.values():
            for connection in connections:
                connection.close()

    def _take(self, address: str) -> http.client.HTTPConnection:
        while True:
            with self._lock:
                idle = self._idle.get(address)
                connection = idle.pop() if idle else None
            if connection is None:
                return http_connection(address, self._timeout_s, self._tls)
            if not _is_readable(connection.sock):
                return connection
            connection.close()  # Mesos closed it while it was idle: a call on it would fail for no reason

    def _give_back(self, address: str, connection: http.client.HTTPConnection, generation: int) -> None:
        with self._lock:
            if generation == self._generation:
                self._idle.setdefault(address, []).append(connection)
                return
        connection.close()


def _is_readable(sock: Any) -> bool:
    poller = select.poll()  # unlike select(), poll() takes any descriptor number
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))


def peer_address(sock: socket.socket) -> str:
    """ "host:port" at the other end: calls go to the very daemon that holds the subscription, with no name lookup."""
    host, port = sock.getpeername()[:2]
    return format_address(host, port)
