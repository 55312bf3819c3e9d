"""Checkpoints as the book keeper sees them: which one to begin with, which are ordered, and when they are complete."""

import asyncio
import logging
from collections.abc import Callable

from compute import InputError, checkpoint
from compute.retention import Pruner
from executor.job import LoadedJob
from executor.resumable import Resumable
from proto import control_pb2 as control
from proto.checkpoint_pb2 import Checkpoint, ParameterPlace
from proto.exchange_pb2 import Commit, Part
from proto.model_pb2 import TensorSpec

logger = logging.getLogger(__name__)


class CheckpointKeeper:
    """Collects the servers' parts of each checkpoint and writes its manifest when it has them all."""

    def __init__(
        self,
        job: LoadedJob,
        servers: int,
        written: Callable[[int, str], None],
        failed: Callable[[control.Failure.Kind, str], None],
    ) -> None:
        """
        Args:
            written: told of each complete checkpoint: its step and URL.
            failed: told why one cannot be completed.
        """
        self._job = job
        self._servers = servers
        self._written = written
        self._failed = failed
        self._orders: dict[int, Commit] = {}  # checkpoints that are not complete yet: what was ordered,
        self._progress_at: dict[int, tuple[Resumable, control.Progress]] = {}  # the book's state at that step,
        self._parts: dict[int, dict[int, Part]] = {}  # and the parts that came back, by server
        self._completions: set[asyncio.Task[None]] = set()
        self._completing = asyncio.Lock()  # one manifest after the other, in the order of the steps
        self._pruner = Pruner(job.message.checkpoint_url, job.spec.retention)
        self._number = 0  # of the last checkpoint

    def choose(self, attempt: int) -> tuple[str, Resumable, control.Progress]:
        """Where to begin: the newest checkpoint of this job, or of the one it resumes. Reads files.

        Returns:
            Its URL, the book's state, and what the driver may not know of this job, as those who told it have died.

        Raises:
            InputError: there is none to resume, one that is not wanted, or one of another job.
        """
        message = self._job.message
        if not message.checkpoint_url:
            return "", Resumable(), control.Progress()
        url = checkpoint.newest(message.checkpoint_url)
        if url is None:
            if message.resume:
                raise InputError(f"nothing to resume: no complete checkpoint in {message.checkpoint_url}")
            return "", Resumable(), control.Progress()
        manifest = checkpoint.read_manifest(url)
        if attempt == 1 and not message.resume:
            raise InputError(
                f"{message.checkpoint_url} holds a checkpoint of step {manifest.step} already: "
                "continue it with --resume, or name another directory"
            )
        job = self._job
        checkpoint.check(url, manifest, job.fingerprint, job.parameters, job.training_constants)
        self._number = manifest.number
        untold = control.Progress()
        if attempt > 1:
            untold.MergeFrom(manifest.reports)
            untold.checkpoints.add(step=manifest.step, path=url)
        return url, Resumable.of(manifest.progress), untold

    def order(self, step: int, progress: Resumable, reports: control.Progress) -> Commit:
        """Begins a checkpoint; returns what the servers are to be told.

        Args:
            reports: what the driver was told lately.
        """
        order = Commit(step=step, checkpoint=checkpoint.step_url(self._job.message.checkpoint_url, step))
        self._orders[step] = order
        self._parts[step] = {}
        self._progress_at[step] = (progress, reports)
        return order

    def orders_to(self, server: int) -> list[Commit]:
        """Orders that this server has not answered yet."""
        return [order for step, order in self._orders.items() if server not in self._parts[step]]

    def part_written(self, server: int, part: Part) -> None:
        """A slice of a checkpoint is safe, on the book's own server (0) or another."""
        parts = self._parts.get(part.step)
        if parts is None:
            return
        parts[server] = part
        if len(parts) == self._servers:
            completion = asyncio.create_task(self._complete_checkpoint(part.step))
            self._completions.add(completion)  # the loop itself keeps no reference to a task
            completion.add_done_callback(self._completions.discard)

    async def _complete_checkpoint(self, step: int) -> None:
        async with self._completing:
            await self._write_manifest(step)

    async def _write_manifest(self, step: int) -> None:
        parts = self._parts.pop(step, None)
        order = self._orders.pop(step, None)
        if parts is None or order is None:
            return
        job, (progress, reports) = self._job, self._progress_at.pop(step)
        if len({part.memory for part in parts.values()}) != 1:
            summary = f"the servers' optimizers came to different decisions at step {step}"
            self._failed(control.Failure.INTERNAL, summary)
            return
        manifest = Checkpoint(
            step=step,
            number=self._number + 1,
            fingerprint=job.fingerprint,
            parameters=job.parameters,
            training=job.training_constants,
            progress=progress.message(),
            reports=reports,
            parts=[part.file for part in sorted(parts.values(), key=lambda part: (part.file.begin, part.file.end))],
            optimizers=job.optimizer_kinds,
            memory=next(iter(parts.values())).memory,
            model=job.description,
            inputs=[TensorSpec(shape=spec.shape, dtype=spec.dtype) for spec in job.input_specs],
            layout=[ParameterPlace(name=info.name, shape=info.shape, offset=info.offset) for info in job.layout],
        )
        try:
            await asyncio.to_thread(checkpoint.write_manifest, order.checkpoint, manifest)
        except InputError as error:
            self._failed(control.Failure.INPUT, str(error))
            return
        self._number += 1
        self._written(step, order.checkpoint)
        try:
            await asyncio.to_thread(self._pruner.prune, frozenset(self._orders))
        except InputError as error:  # no reason to end a training
            logger.warning("superseded checkpoints stay: %s", error)
