"""A replica's side of the connection to its server: takes the state once, then applies every step's gradient."""

import json

import numpy as np

from compute.optim import ParameterUpdate
from executor.job import LoadedJob
from executor.parameter_slice import ParameterSlice
from executor.reduction_tree import Partial
from executor.step_plan import slice_bounds
from proto.exchange_pb2 import Apply, Bookmark, Follow, State
from proto.frames import FrameError


class Replica:
    """Receives one server's stream.

    Attributes:
        held: the slice as far as it has come; None before the state has arrived.
        bookmark: where the lease book was, if the server keeps it.
    """

    def __init__(
        self, job: LoadedJob, follow: Follow, held: ParameterSlice | None, bookmark: Bookmark | None
    ) -> None:
        """
        Args:
            held, bookmark: what is here from before.
        """
        self.held = held
        self.bookmark = bookmark
        self._job = job
        self._begin, self._end = slice_bounds(job.parameters, follow.servers, follow.index)
        self._state = State()
        self._data = bytearray()
        self._received = 0  # bytes of the state, or of the step's gradient
        self._step = 0  # that gradients arrive of

    def take_state(self, message: State, payload: memoryview) -> bool:
        """Takes a frame of the state; True when it is complete.

        Raises:
            FrameError: it does not follow the last one, or is not what the job's update holds.
        """
        if message.offset == 0:
            self._state, self._received = message, 0
            if message.bytes != 4 * (self._end - self._begin) * (1 + len(message.arrays)):
                raise FrameError(f"a state of {message.bytes} bytes with {len(message.arrays)} arrays")
            self._data = bytearray(message.bytes)
        if message.offset != self._received or message.offset + len(payload) > len(self._data):
            raise FrameError(f"{len(payload)} bytes at {message.offset} after {self._received} of {len(self._data)}")
        self._data[message.offset : message.offset + len(payload)] = payload
        self._received += len(payload)
        if self._received < len(self._data):
            return False
        job, first, size = self._job, self._state, self._end - self._begin
        self._step, self._received = 0, 0
        update = ParameterUpdate(job.layout, job.spec.optimizer, job.spec.clip, self._begin, self._end)
        if set(first.arrays) != set(update.state):
            raise FrameError(f"a state of the arrays {list(first.arrays)}")
        parameters, *arrays = np.frombuffer(self._data, dtype="<f4").reshape(1 + len(first.arrays), size)
        update.state = dict(zip(first.arrays, arrays, strict=True))
        update.memory = json.loads(first.memory)
        self.held = ParameterSlice(
            self._begin, self._end, first.version, parameters, update, job.plan, job.told_rates, job.rounding
        )
        self._data = bytearray()  # what it was is the slice's memory now
        self.held.total(first.totals.step, list(first.totals.totals), first.totals.loss)
        self._remember(first.bookmark if first.HasField("bookmark") else None)
        return True

    def take_step(self, message: Apply, payload: memoryview) -> bool:
        """Takes a frame of a step's gradient; True when it was the last and the step is applied.

        Raises:
            FrameError: something is missing or too much, or the step does not follow what is held.
        """
        held, size = self.held, 4 * (self._end - self._begin)
        if held is None or message.step != held.version + 1 or message.bytes != size:
            raise FrameError(f"step {message.step} of {message.bytes} bytes does not follow here")
        if message.step != self._step:
            self._step, self._received = message.step, 0
            if len(self._data) != size:
                self._data = bytearray(size)
        if message.offset + len(payload) > size:
            raise FrameError(f"{len(payload)} bytes at {message.offset} of {size}")
        self._data[message.offset : message.offset + len(payload)] = payload
        self._received += len(payload)
        if not message.last:
            return False
        if self._received != size:
            raise FrameError(f"{self._received} of {size} bytes of step {message.step}")
        mark = message.bookmark
        gradient = np.frombuffer(self._data, dtype="<f4")
        held.rates_known(message.step, list(message.rates))
        held.total(message.totals.step, list(message.totals.totals), message.totals.loss)
        held.replay(Partial(gradient, mark.loss, mark.samples, mark.digest))
        self._remember(mark if message.HasField("bookmark") else None)
        return True

    def _remember(self, bookmark: Bookmark | None) -> None:
        self.bookmark = bookmark
