"""A replica's side of the connection to its server: takes the state once, then applies every step's gradient."""

import json

import numpy as np

from compute.optim import ParameterUpdate
from executor.job import LoadedJob
from executor.parameter_slice import ParameterSlice
from executor.reduction_tree import Partial
from executor.step_plan import slice_bounds
from proto.exchange_pb2 import Apply, Bookmark, Follow, State
from proto.frames import Assembly, FrameError


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
        self._state: State | None = None
        self._step: Apply | None = None
        self._assembly: Assembly | None = None

    def take_state(self, message: State, payload: memoryview) -> bool:
        """Takes a frame of the state; True when it is complete.

        Raises:
            FrameError: it does not follow the last one, or is not what the job's update holds.
        """
        if message.offset == 0:
            self._state = message
            if message.bytes != 4 * (self._end - self._begin) * (1 + len(message.arrays)):
                raise FrameError(f"a state of {message.bytes} bytes with {len(message.arrays)} arrays")
        data = self._assembled(message.offset, message.bytes, payload)
        if data is None or self._state is None:
            return False
        job, first = self._job, self._state
        update = ParameterUpdate(job.layout, job.spec.optimizer, job.spec.clip, self._begin, self._end)
        if set(first.arrays) != set(update.state):
            raise FrameError(f"a state of the arrays {list(first.arrays)}")
        parameters, *arrays = np.frombuffer(data, dtype="<f4").reshape(1 + len(first.arrays), -1)
        update.state = dict(zip(first.arrays, arrays, strict=True))
        update.memory = json.loads(first.memory)
        self.held = ParameterSlice(
            self._begin, self._end, first.version, parameters, update, job.plan, job.told_rates
        )
        self.held.total(first.totals.step, list(first.totals.totals), first.totals.loss)
        self._remember(first.bookmark if first.HasField("bookmark") else None)
        return True

    def take_step(self, message: Apply, payload: memoryview) -> bool:
        """Takes a frame of a step's gradient; True when it was complete and is applied.

        Raises:
            FrameError: it does not follow the last one, or the step does not follow what is held.
        """
        if message.offset == 0:
            self._step = message
            if message.bytes != 4 * (self._end - self._begin):
                raise FrameError(f"a gradient of {message.bytes} bytes for a slice of {4 * (self._end - self._begin)}")
        data = self._assembled(message.offset, message.bytes, payload)
        if data is None or self._step is None:
            return False
        step, held = self._step, self.held
        if held is None or step.step != held.version + 1:
            raise FrameError(f"step {step.step} does not follow {held.version if held else 'nothing'}")
        mark = step.bookmark
        result = Partial(np.frombuffer(data, dtype="<f4"), mark.loss, mark.samples, mark.digest)
        held.rates_known(step.step, list(step.rates))
        held.total(step.totals.step, list(step.totals.totals), step.totals.loss)
        held.replay(result)
        self._remember(mark if step.HasField("bookmark") else None)
        return True

    def _assembled(self, offset: int, size: int, payload: memoryview) -> bytearray | None:
        if offset == 0:
            self._assembly = Assembly(size)
        if self._assembly is None:
            raise FrameError("a message begins in the middle")
        if not self._assembly.add(offset, payload):
            return None
        data, self._assembly = self._assembly.data, None
        return data

    def _remember(self, bookmark: Bookmark | None) -> None:
        self.bookmark = bookmark
