"""A Mesos master or agent as its HTTP API shows it: HTTP/1.1 over real TCP, chunked RecordIO, stream ids.

A test scripts it by `subscribe_answers` (for the next SUBSCRIBE calls) and `call_answers` (by type of call).
"""

import json
import queue
import socket
import ssl
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

WAIT_S = 10.0
CERTIFICATE = Path(__file__).with_name("localhost.pem")  # of localhost, with its key


@dataclass(frozen=True)
class Call:
    """A call as it arrived. `time` is of the monotonic clock; header names are in lower case."""

    time: float
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a call gets: a status with a body, or (drop) a closed connection without any."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False


class Stream:
    """A subscription, seen from Mesos."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.id = str(uuid.uuid4())
        self.closed = threading.Event()
        self.pieces: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def send(self, event: dict[str, Any]) -> None:
        data = json.dumps(event).encode()
        self.send_bytes(b"%d\n%s" % (len(data), data))

    def send_bytes(self, data: bytes) -> None:
        """One chunk, whatever is in it."""
        self.pieces.put(data)

    def close(self) -> None:
        self.pieces.put(None)


class FakeMesos:
    """Listens until stop().

    Args:
        path: of the API, "/api/v1/scheduler" or "/api/v1/executor".
        host: to listen on.
        port: to listen on; 0 chooses one.
        first_events: sent with every new subscription.
        version: that /version tells.
        tls: whether it speaks TLS, with the certificate CERTIFICATE.
    """

    def __init__(
        self,
        path: str = "/api/v1/scheduler",
        host: str = "127.0.0.1",
        port: int = 0,
        first_events: Callable[[Call], list[dict[str, Any]]] | None = None,
        version: str = "1.11.0",
        tls: bool = False,
    ) -> None:
        self.path = path
        self.version = version
        self.first_events = first_events or subscribed_scheduler()
        self.subscribe_answers: deque[Answer] = deque()
        self.call_answers: dict[str, deque[Answer]] = defaultdict(deque)
        self.hold = threading.Event()  # while it is clear, calls other than SUBSCRIBE are not answered
        self.hold.set()
        self.close_after_events = False
        self.calls: list[Call] = []
        self.streams: list[Stream] = []
        self._changed = threading.Condition()
        self._sockets: set[socket.socket] = set()
        fake = self

        class Handler(_Handler):
            mesos = fake

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Peers that go away are what these tests are about."""

        self._server = Server((host, port), Handler)
        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(CERTIFICATE)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = int(self._server.server_address[1])
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        """Closes the port and every connection, as a process that dies."""
        self._server.shutdown()
        self._server.server_close()
        self.hold.set()
        for stream in list(self.streams):
            stream.close()
        for sock in list(self._sockets):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._thread.join()

    # --- what tests ask ----------------------------------------------------------------------------------------------

    def calls_of(self, kind: str) -> list[Call]:
        with self._changed:
            return [call for call in self.calls if call.body.get("type") == kind]

    def wait_call(self, kind: str, count: int = 1, timeout_s: float = WAIT_S) -> Call:
        """The `count`-th call of a type."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.calls_of(kind)) >= count, timeout_s), (
                f"{len(self.calls_of(kind))} of {count} calls {kind} within {timeout_s} s; "
                f"calls: {[call.body.get('type') for call in self.calls]}"
            )
            return self.calls_of(kind)[count - 1]

    def wait_stream(self, count: int = 1, timeout_s: float = WAIT_S) -> Stream:
        """The `count`-th subscription that was accepted."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.streams) >= count, timeout_s), (
                f"{len(self.streams)} of {count} subscriptions within {timeout_s} s"
            )
            return self.streams[count - 1]

    # --- what handlers tell ------------------------------------------------------------------------------------------

    def note_call(self, call: Call) -> None:
        with self._changed:
            self.calls.append(call)
            self._changed.notify_all()

    def note_stream(self, stream: Stream) -> None:
        with self._changed:
            self.streams.append(stream)
            self._changed.notify_all()

    def note_socket(self, sock: socket.socket) -> None:
        self._sockets.add(sock)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mesos: FakeMesos

    def setup(self) -> None:
        super().setup()
        self.mesos.note_socket(self.connection)

    def log_message(self, *args: Any) -> None:
        """Nothing: the tests say what matters."""

    def do_GET(self) -> None:
        self._answer(Answer(200, json.dumps({"version": self.mesos.version}).encode()))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = Call(time.monotonic(), self.path, headers, body)
        self.mesos.note_call(call)
        kind = body.get("type")
        if kind != "SUBSCRIBE":
            self.mesos.hold.wait()
            answers = self.mesos.call_answers[kind]
            self._answer(answers.popleft() if answers else Answer(202))
        elif self.mesos.subscribe_answers:
            self._answer(self.mesos.subscribe_answers.popleft())
        else:
            self._stream(call)

    def _answer(self, answer: Answer) -> None:
        if answer.drop:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def _stream(self, call: Call) -> None:
        stream = Stream(call)
        self.close_connection = True
        try:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("Mesos-Stream-Id", stream.id)
            self.end_headers()
            for event in self.mesos.first_events(call):
                stream.send(event)
            if self.mesos.close_after_events:
                stream.close()
            self.mesos.note_stream(stream)
            while (piece := stream.pieces.get()) is not None:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass  # the driver went away
        finally:
            stream.closed.set()


def subscribed_scheduler(
    heartbeat_s: float = 15.0, framework_id: str = "framework-1", version: str = "1.11.0"
) -> Callable[[Call], list[dict[str, Any]]]:
    """What a master sends first."""

    def events(call: Call) -> list[dict[str, Any]]:
        identifier = call.body.get("framework_id", {"value": framework_id})
        subscribed = {
            "framework_id": identifier,
            "heartbeat_interval_seconds": heartbeat_s,
            "master_info": {"id": "m", "ip": 0, "port": 5050, "version": version},
        }
        return [{"type": "SUBSCRIBED", "subscribed": subscribed}, {"type": "HEARTBEAT"}]

    return events


def subscribed_executor(call: Call) -> list[dict[str, Any]]:
    """What an agent sends first."""
    subscribed = {
        "executor_info": {"executor_id": call.body["executor_id"]},
        "framework_info": {"id": call.body["framework_id"], "name": "fake", "user": "nobody"},
        "agent_info": {"id": {"value": "agent-1"}, "hostname": "localhost"},
    }
    return [{"type": "SUBSCRIBED", "subscribed": subscribed}]


def fake_agent(port: int = 0, tls: bool = False) -> FakeMesos:
    return FakeMesos("/api/v1/executor", port=port, first_events=subscribed_executor, tls=tls)


@contextmanager
def running(fake: FakeMesos) -> Iterator[FakeMesos]:
    try:
        yield fake
    finally:
        fake.stop()
