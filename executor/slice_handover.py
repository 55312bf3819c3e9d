"""Slices cut anew: when a job gets another number of servers, those that held the old slices give them away.

The lease book has stopped between two steps, so all servers hold the same version and nothing changes it. Each server
of the new set asks every one of the former set for what lies in its own slice, parameters and optimizer state, and puts
it together; its own part it has already. Whoever gives keeps the old slice until the new set commits its first step.
"""

import asyncio
import json
from collections.abc import Sequence

import numpy as np

from compute.optim import ParameterUpdate
from executor.connection import Connection
from executor.job import LoadedJob
from executor.parameter_slice import ParameterSlice
from executor.session import Session, SessionClosed
from executor.slice_loading import new_slice
from executor.step_plan import slice_bounds
from proto.exchange_pb2 import Fetch, Header, State
from proto.frames import CHUNK_BYTES, FrameError

SILENCE_S = 20.0  # without a frame, before a server that gives counts as hung; another attempt follows if it is
FRAMES_AT_ONCE = 64  # handed to the connection before the next ones are queued


async def give(session: Session, attempt: int, held: ParameterSlice, fetch: Fetch) -> None:
    """Sends a part of a slice to a server that asked for it.

    Raises:
        FrameError: it is not held here.
    """
    begin, end = fetch.begin - held.begin, fetch.end - held.begin
    if fetch.version != held.version or not 0 <= begin <= end <= held.size or not held.whole:
        raise FrameError(f"elements {fetch.begin} to {fetch.end} of version {fetch.version} are not held here")
    arrays = [held.parameters, *held.update.state.values()]
    size = 4 * (end - begin)
    state = State(
        version=held.version, arrays=list(held.update.state), memory=json.dumps(held.update.memory),
        bytes=size * len(arrays),
    )  # fmt: skip
    sent = 0
    for number, array in enumerate(arrays):
        data = array[begin:end].data.cast("B")
        for first in range(0, max(size, 1), CHUNK_BYTES):
            state.offset = number * size + first
            session.send_tensor(Header(attempt=attempt, state=state), data[first : first + CHUNK_BYTES])
            state = State(bytes=state.bytes)
            sent += 1
            if sent % FRAMES_AT_ONCE == 0:
                await session.flushed()
    await session.flushed()  # until then the memory is read


class Gathering:
    """A slice that is put together from parts of others."""

    def __init__(self, job: LoadedJob, version: int, begin: int, end: int) -> None:
        self._job = job
        self._version = version
        self._update = ParameterUpdate(job.layout, job.spec.optimizer, job.spec.clip, begin, end)
        self._names = list(self._update.state)
        self._data = np.empty((1 + len(self._names), end - begin), dtype=np.float32)
        self._memory = ""
        self.begin, self.end = begin, end

    def take(self, held: ParameterSlice) -> None:
        """Takes what a slice of the former set has of it, which is here."""
        begin, end = max(self.begin, held.begin), min(self.end, held.end)
        if begin < end:
            arrays = [held.parameters, *(held.update.state[name] for name in self._names)]
            for row, array in zip(self._data, arrays, strict=True):
                row[begin - self.begin : end - self.begin] = array[begin - held.begin : end - held.begin]
            self._memory = json.dumps(held.update.memory)

    async def fetch(self, address: str, secret: str, attempt: int, begin: int, end: int) -> None:
        """Takes elements [begin, end) from the server that has them.

        Raises:
            SessionClosed: it could not be reached, fell silent or refused.
            FrameError: what it sent is not this.
        """
        size, rows = end - begin, len(self._data)
        parts = np.empty((rows, size), dtype=np.float32)
        flat, received = parts.reshape(-1).data.cast("B"), 0
        loop = asyncio.get_running_loop()
        try:
            async with (
                asyncio.timeout(SILENCE_S) as limit,
                Connection(address, secret, f"former server at {address}") as session,
            ):
                session.send(Header(attempt=attempt, fetch=Fetch(version=self._version, begin=begin, end=end)))
                async for header, payload in session.frames():
                    limit.reschedule(loop.time() + SILENCE_S)
                    if header.HasField("refusal"):
                        raise SessionClosed(header.refusal.reason)
                    state = header.state
                    if state.bytes != len(flat) or state.offset != received or received + len(payload) > len(flat):
                        raise FrameError(f"{len(payload)} bytes at {state.offset} of {state.bytes}, not {len(flat)}")
                    if received == 0:
                        if (state.version, list(state.arrays)) != (self._version, self._names):
                            raise FrameError(f"version {state.version} with the arrays {list(state.arrays)}")
                        self._memory = state.memory
                    flat[received : received + len(payload)] = payload
                    received += len(payload)
                    if received == len(flat):
                        break
        except TimeoutError:
            raise SessionClosed(f"{address} has sent nothing for {SILENCE_S:g} s") from None
        if received != len(flat):
            raise SessionClosed(f"{address} has sent {received} of {len(flat)} bytes")
        self._data[:, begin - self.begin : end - self.begin] = parts

    def result(self) -> ParameterSlice:
        """The slice, once all parts were taken."""
        parameters, *arrays = self._data
        self._update.state = dict(zip(self._names, arrays, strict=True))
        if self._memory:
            self._update.memory = json.loads(self._memory)
        return new_slice(self._job, self.begin, self.end, self._version, parameters, self._update)


def parts_of(parameters: int, former: Sequence[str], begin: int, end: int) -> list[tuple[int, int, int]]:
    """Which former server has what of the elements [begin, end): its index, and the range."""
    found = []
    for index in range(len(former)):
        first, last = slice_bounds(parameters, len(former), index)
        if max(first, begin) < min(last, end):
            found.append((index, max(first, begin), min(last, end)))
    return found
