"""How a session with another of our processes begins: one connects, the other sees that it may."""

import asyncio
import hmac
from typing import Any

import grpc
import grpc.aio

from executor.session import Session, SessionClosed
from executor.shared_memory import way
from proto.frames import EXCHANGE_METHOD, SECRET_KEY, grpc_options

CONNECT_TIMEOUT_S = 10.0


class Connection:
    """A client's channel to one server and the session on it, as an async context manager."""

    def __init__(self, address: str, secret: str, peer: str) -> None:
        self._address = address
        self._secret = secret
        self._peer = peer
        self.channel: grpc.aio.Channel | None = None
        self._session: Session | None = None

    async def __aenter__(self) -> Session:
        self.channel = grpc.aio.insecure_channel(self._address, options=grpc_options())
        try:
            await asyncio.wait_for(self.channel.channel_ready(), CONNECT_TIMEOUT_S)
        except TimeoutError:
            await self.channel.close()
            raise SessionClosed(f"no connection to {self._address} within {CONNECT_TIMEOUT_S:g} s") from None
        except asyncio.CancelledError:
            await self.channel.close()
            raise
        call: Any = self.channel.stream_stream(EXCHANGE_METHOD)(metadata=((SECRET_KEY, self._secret),))
        host = self._address.rpartition(":")[0].strip("[]") if way() != "grpc" else ""
        self._session = Session(call, self._peer, host)
        return self._session

    async def __aexit__(self, *exc: object) -> None:
        if self._session is not None:
            await self._session.close()
        if self.channel is not None:
            await self.channel.close()


async def authenticate(context: Any, secret: str) -> None:
    """Ends a call that does not carry the job's secret (UNAUTHENTICATED)."""
    given = dict(context.invocation_metadata() or ()).get(SECRET_KEY, "")
    if not isinstance(given, str) or not hmac.compare_digest(given.encode(), secret.encode()):
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "this call needs the job's secret")
