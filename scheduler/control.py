"""The driver's end of the control channel (proto/control.proto): one gRPC stream per task."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from proto import control_pb2
from scheduler import events as ev
from scheduler.outcome import UsageError

SERVICE = "mesograd.Control"
SECRET_KEY = "mesograd-secret"
HELLO_DEADLINE_S = 30.0
ANSWER_DEADLINE_S = 5.0
MAX_WORKERS = 10_000
MAX_SERVERS = 1_000
MAX_MESSAGE_BYTES = 512 * 2**20  #: a job carries the user's code and whatever it closes over

_OPTIONS = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
    # A task whose host is gone is noticed within 20 s; tasks ping too, which must not count as abuse.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
]

_Context = grpc.aio.ServicerContext[control_pb2.TaskMessage, control_pb2.DriverMessage]


@dataclass(eq=False)
class _Session:
    """One stream. `outgoing` ends with None; then `refusal`, if there is one, is the stream's status."""

    task_id: str
    outgoing: asyncio.Queue[control_pb2.DriverMessage | None] = field(default_factory=asyncio.Queue)
    refusal: str = ""


class ControlServer:
    """Turns what tasks say into events and sends them what the framework wants. Lives on one asyncio loop.

    Args:
        secret: what every call must carry in the metadata key "mesograd-secret".
        on_event: called on the loop for each event; may call `send` and `refuse`.
    """

    def __init__(self, secret: str, on_event: Callable[[ev.Event], None]) -> None:
        self._secret = secret.encode()
        self._on_event = on_event
        self._sessions: dict[str, _Session] = {}
        self._server: grpc.aio.Server | None = None
        self._requests: dict[int, asyncio.Future[control_pb2.ScaleReply]] = {}
        self._requested = 0

    async def start(self, host: str, port: int = 0) -> int:
        """Listens on `host`, on `port` if it can be had, else on another; returns the port.

        Raises:
            UsageError: `host` is no address of this machine.
        """
        if port:
            try:
                return await self._start(host, port)
            except UsageError:  # somebody has got it since the driver before this one died
                pass
        return await self._start(host, 0)

    async def _start(self, host: str, port: int) -> int:
        server = grpc.aio.server(options=_OPTIONS)
        attach = grpc.stream_stream_rpc_method_handler(
            self._attach,
            request_deserializer=control_pb2.TaskMessage.FromString,
            response_serializer=control_pb2.DriverMessage.SerializeToString,
        )
        scale = grpc.unary_unary_rpc_method_handler(
            self._scale,
            request_deserializer=control_pb2.ScaleRequest.FromString,
            response_serializer=control_pb2.ScaleReply.SerializeToString,
        )
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {"Attach": attach, "Scale": scale}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        try:
            bound = server.add_insecure_port(f"{f'[{host}]' if ':' in host else host}:{port}")
        except RuntimeError as error:
            message = f"cannot listen on {host}: is it an address of this machine? Name one with --driver-host"
            raise UsageError(message) from error
        await server.start()
        self._server = server
        return bound

    async def stop(self, grace_s: float = 1.0) -> None:
        """Ends all streams. What was sent before is given `grace_s` to arrive."""
        for session in list(self._sessions.values()):
            session.outgoing.put_nowait(None)
        if self._server is not None:
            await self._server.stop(grace_s)
            self._server = None

    def send(self, task_id: str, message: control_pb2.DriverMessage) -> None:
        """Queues a message; dropped if the task is not attached (it is told all it needs when it says hello again)."""
        session = self._sessions.get(task_id)
        if session is not None:
            session.outgoing.put_nowait(message)

    def refuse(self, task_id: str, reason: str) -> None:
        """Ends the task's stream with FAILED_PRECONDITION, upon which the task exits."""
        session = self._sessions.get(task_id)
        if session is not None:
            session.refusal = reason
            session.outgoing.put_nowait(None)

    def answer(self, request: int, text: str, accepted: bool) -> None:
        """Answers the Scale call that became the event of that number; dropped if the caller has gone."""
        waiting = self._requests.get(request)
        if waiting is not None and not waiting.done():
            waiting.set_result(control_pb2.ScaleReply(accepted=accepted, text=text))

    async def _scale(
        self,
        request: control_pb2.ScaleRequest,
        context: grpc.aio.ServicerContext[control_pb2.ScaleRequest, control_pb2.ScaleReply],
    ) -> control_pb2.ScaleReply:
        await self._authenticate(context)
        named = (request.workers, request.servers, request.colocated)
        if sum(map(bool, named)) != 1 or request.workers > MAX_WORKERS or request.servers > MAX_SERVERS:
            sizes = f"a job has 1 to {MAX_WORKERS} workers or 1 to {MAX_SERVERS} servers; name one of the two"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, sizes)
        self._requested += 1
        number = self._requested
        self._requests[number] = asyncio.get_running_loop().create_future()
        try:
            self._on_event(ev.ScaleRequested(number, *named))
            return await asyncio.wait_for(self._requests[number], ANSWER_DEADLINE_S)
        except TimeoutError:
            return control_pb2.ScaleReply(text="the driver is busy ending the job")
        finally:
            del self._requests[number]

    async def _attach(
        self, requests: AsyncIterator[control_pb2.TaskMessage], context: _Context
    ) -> AsyncIterator[control_pb2.DriverMessage]:
        await self._authenticate(context)
        hello = await self._hello(requests, context)
        session = _Session(hello.task_id)
        previous = self._sessions.get(hello.task_id)
        self._sessions[hello.task_id] = session
        if previous is not None:
            previous.outgoing.put_nowait(None)
        reader = asyncio.create_task(self._read(requests, session))
        try:
            self._on_event(ev.HelloReceived(hello))
            while (message := await session.outgoing.get()) is not None:
                yield message
        finally:
            reader.cancel()
            if self._sessions.get(hello.task_id) is session:
                del self._sessions[hello.task_id]
                self._on_event(ev.StreamLost(hello.task_id))
        if session.refusal:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, session.refusal)

    async def _authenticate(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        for key, value in context.invocation_metadata() or ():
            given = value.encode() if isinstance(value, str) else value
            if key == SECRET_KEY and hmac.compare_digest(given, self._secret):
                return
        await context.abort(
            grpc.StatusCode.UNAUTHENTICATED, f"metadata key {SECRET_KEY} does not hold the job's secret"
        )

    async def _hello(self, requests: AsyncIterator[control_pb2.TaskMessage], context: _Context) -> control_pb2.Hello:
        try:
            first = await asyncio.wait_for(anext(requests, control_pb2.TaskMessage()), HELLO_DEADLINE_S)
        except TimeoutError:
            first = control_pb2.TaskMessage()
        if first.WhichOneof("body") != "hello" or not first.hello.task_id:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must be hello, with a task id")
        return first.hello

    async def _read(self, requests: AsyncIterator[control_pb2.TaskMessage], session: _Session) -> None:
        """Turns messages into events until the task ends its side; then ends ours."""
        try:
            async for message in requests:
                if self._sessions.get(session.task_id) is not session:
                    break
                body = message.WhichOneof("body")
                if body == "progress":
                    self._on_event(ev.ProgressReceived(session.task_id, message.progress, message.sequence))
                elif body == "replicated":
                    self._on_event(ev.ReplicatedReceived(session.task_id, message.replicated.replica))
                elif body == "paused":
                    self._on_event(ev.PausedReceived(session.task_id, message.paused.attempt))
                elif body == "failure":
                    self._on_event(ev.FailureReceived(session.task_id, message.failure))
                elif body == "finished":
                    self._on_event(ev.FinishedReceived(session.task_id, message.finished))
        except grpc.aio.AioRpcError:
            pass  # the connection broke
        finally:
            session.outgoing.put_nowait(None)
