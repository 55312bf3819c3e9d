"""States that are larger than what a session lets pile up."""

import asyncio

import numpy as np
import pytest

from executor import replication, session
from executor.replication import Replication
from executor.slice_handover import give
from proto.exchange_pb2 import Fetch
from tests.executor.checkpoint_writer import slices
from tests.executor.harness import free_port
from tests.executor.test_data_lane import joined

PARAMETERS = 6_000_000  # 24 MB of parameters and as much momentum, in two slices
PILED_UP = 4 << 20


@pytest.mark.parametrize("way", ["replica", "hand-over"])
def test_a_state_larger_than_a_sessions_queue_arrives(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr(session, "MAX_QUEUED_BYTES", PILED_UP)
    monkeypatch.setattr(replication, "PORTION_BYTES", PILED_UP // 2)
    monkeypatch.setattr("executor.slice_handover.FRAMES_AT_ONCE", 2)
    held = slices(PARAMETERS)[1]
    held.update.state["momentum"] = np.arange(held.size, dtype=np.float32)
    expected = np.concatenate([held.parameters, *held.update.state.values()]).tobytes()
    assert len(expected) > 4 * PILED_UP

    async def never(_: int) -> None:
        await asyncio.Event().wait()

    async def send(to: session.Session) -> None:
        if way == "replica":
            moved: list[int] = []
            sender = Replication("", lambda _: None, lambda: held, lambda: None, never, lambda: moved.append(1))
            held.hold()
            await sender._send_state(to, held)
            assert moved, "steps may go on"
        else:
            await give(to, 1, held, Fetch(version=0, begin=held.begin, end=held.end))

    async def work() -> bytes:
        async with joined(free_port(), offer=False) as (client, server, _), asyncio.timeout(60):
            sending = asyncio.create_task(send(server))
            data = bytearray()
            async for header, payload in client.frames():
                assert (header.state.offset, header.state.bytes) == (len(data), len(expected))
                data += payload
                if len(data) == len(expected):
                    break
            await sending
            assert not server.closed
            return bytes(data)

    assert asyncio.run(work()) == expected
