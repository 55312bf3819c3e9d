"""What became of the checkpoints that a server was told to write its part of."""

import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from executor.book_link import BookLink
from executor.checkpointing import Checkpointing
from executor.parameter_slice import ParameterSlice
from proto.checkpoint_pb2 import CheckpointPart
from proto.exchange_pb2 import Commit, Part

KEPT_PARTS = 1000  # steps for which it is known what became of their checkpoints


class CheckpointParts:
    """Has parts written and tells the lease book of each, again if it asks again."""

    def __init__(
        self, book: BookLink, spawn: Callable[[Coroutine[Any, Any, None]], object], release: Callable[[], None]
    ) -> None:
        """
        Args:
            book: the way to the lease book.
            spawn: runs a coroutine in the background; what it raises ends the server.
            release: called whenever a slice is not held any more: a step may have waited.
        """
        self._book = book
        self._spawn = spawn
        self._checkpointing = Checkpointing(release)
        self._attempt = 0
        self._parts: dict[int, Part | None] = {}  # by step; None: it is being written

    def restart(self, attempt: int) -> None:
        """Another attempt: what was ordered before will not be completed."""
        self._attempt, self._parts = attempt, {}

    def write(self, held: ParameterSlice, order: Commit) -> None:
        """Has the slice written; if that was ordered before, says again what came of it, if anything has yet."""
        part = self._parts.get(order.step)
        if part is not None:
            self._book.part_written(self._attempt, part)
        elif order.step not in self._parts and held.version == order.step:
            self._parts = {step: kept for step, kept in self._parts.items() if step > order.step - KEPT_PARTS}
            self._parts[order.step] = None
            written = self._checkpointing.write(held, order.checkpoint)
            self._spawn(self._tell_written(order.step, written, json.dumps(held.update.memory), self._attempt))

    async def _tell_written(self, step: int, written: Awaitable[CheckpointPart], memory: str, attempt: int) -> None:
        file = await written
        if attempt != self._attempt:
            return
        part = self._parts[step] = Part(step=step, file=file, memory=memory)
        self._book.part_written(attempt, part)
