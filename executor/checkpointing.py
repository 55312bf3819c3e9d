"""A server's parts of checkpoints, written while training goes on.

From the commit of a step until the next step's gradient is complete nothing changes a slice, and that is about as long
as workers compute. In this time a thread copies it; only if the copy lasts longer is the next step held back for the
rest of it. Digest and file are made from the copy, by a thread of low priority. Copies go into buffers that are kept,
since touching fresh memory costs several times what the copy does.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from compute import checkpoint
from executor.parameter_slice import ParameterSlice
from proto.checkpoint_pb2 import CheckpointPart

BUFFERS = 2  # one is written while the next checkpoint is copied into the other; a third one has to wait
NICENESS = 10  # about a tenth of the share of a computing thread, where cores are short

Vector = NDArray[np.float32]


class Checkpointing:
    """Writes slices. All methods are called from the event loop."""

    def __init__(self, release: Callable[[], None]) -> None:
        """
        Args:
            release: called whenever a slice is not held any more: a step may have waited.
        """
        self._release = release
        self._buffers = [np.empty((0, 0), dtype=np.float32) for _ in range(BUFFERS)]
        self._free = asyncio.Semaphore(BUFFERS)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint", initializer=_lower_priority)

    def write(self, held: ParameterSlice, url: str) -> "asyncio.Task[CheckpointPart]":
        """Writes the slice, as it is now, into the checkpoint at `url`.

        Until it is copied the slice completes no step.

        Returns:
            A task that raises InputError where the place cannot be written to.
        """
        held.hold()
        return asyncio.create_task(self._write(held, url))

    async def _write(self, held: ParameterSlice, url: str) -> CheckpointPart:
        async with self._free:
            buffer = self._buffers.pop()
            try:
                arrays = {checkpoint.PARAMETERS: held.parameters, **held.update.state}
                if buffer.shape != (len(arrays), held.end - held.begin):
                    buffer = np.empty((len(arrays), held.end - held.begin), dtype=np.float32)
                try:
                    await asyncio.to_thread(_copy, arrays.values(), buffer)
                finally:
                    held.release()
                    self._release()
                copies = dict(zip(arrays, buffer, strict=True))
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(
                    self._writer, checkpoint.write_part, url, held.begin, held.end, copies
                )
            finally:
                self._buffers.append(buffer)


def _copy(arrays: Iterable[Vector], buffer: Vector) -> None:
    for array, row in zip(arrays, buffer, strict=True):
        np.copyto(row, array)


def _lower_priority() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)  # of a thread, on Linux
