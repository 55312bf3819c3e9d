"""A minimal Mesos framework over the v1 scheduler API, to start an executor and see what becomes of it."""

import http.client
import json
import socket
from types import TracebackType
from typing import Any, Self

TIMEOUT_S = 20.0


class Framework:
    """Subscribed from `with` on; torn down at its end."""

    def __init__(self, master: str) -> None:
        self.host, _, port = master.partition(":")
        self.port = int(port)
        self.id: str = ""
        self._stream_id = ""

    def __enter__(self) -> Self:
        self._connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_S)
        information = {"user": "root", "name": "test", "checkpoint": True, "failover_timeout": 60.0}
        self._post(self._connection, {"type": "SUBSCRIBE", "subscribe": {"framework_info": information}})
        self._events = self._connection.getresponse()
        assert self._events.status == http.client.OK, self._events.read()
        self._stream_id = self._events.headers["Mesos-Stream-Id"]
        self.id = self.next("SUBSCRIBED")["subscribed"]["framework_id"]["value"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._call({"type": "TEARDOWN"})
        except OSError:
            pass  # the test has ended the master
        self._events.close()
        self._connection.close()

    def next(self, kind: str) -> dict[str, Any]:
        """The next event of a type; the others before it are dropped. Fails after `TIMEOUT_S` of silence."""
        while True:
            length = b""
            while not length.endswith(b"\n"):
                byte = self._events.read(1)
                assert byte, f"the master ended the stream before {kind}"
                length += byte
            event: dict[str, Any] = json.loads(self._events.read(int(length)))
            if event["type"] == kind:
                return event

    def launch(self, command: str, uris: list[dict[str, Any]]) -> str:
        """Starts an executor that is this shell command, with one task, on the next offer; returns the agent's id."""
        offer = self.next("OFFERS")["offers"]["offers"][0]
        resources = [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}}]
        resources.append({"name": "mem", "type": "SCALAR", "scalar": {"value": 32}})
        executor = {
            "type": "CUSTOM",
            "executor_id": {"value": "executor"},
            "framework_id": {"value": self.id},
            "command": {"value": command, "uris": uris},
        }
        task = {
            "name": "task",
            "task_id": {"value": "task"},
            "agent_id": offer["agent_id"],
            "executor": executor,
            "resources": resources,
        }
        operation = {"type": "LAUNCH", "launch": {"task_infos": [task]}}
        accept = {"offer_ids": [offer["id"]], "operations": [operation], "filters": {"refuse_seconds": 0.0}}
        self._call({"type": "ACCEPT", "accept": accept})
        agent_id: str = offer["agent_id"]["value"]
        return agent_id

    def _call(self, call: dict[str, Any]) -> None:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_S)
        try:
            self._post(connection, {**call, "framework_id": {"value": self.id}})
            response = connection.getresponse()
            assert response.status == http.client.ACCEPTED, response.read()
        finally:
            connection.close()

    def _post(self, connection: http.client.HTTPConnection, call: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._stream_id:
            headers["Mesos-Stream-Id"] = self._stream_id
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.request("POST", "/api/v1/scheduler", json.dumps(call), headers)
