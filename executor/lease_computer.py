"""Computes what a lease asks for: gradients of a block of micro-batches, or metric sums of a validation block."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import compute
from compute import predictions
from compute.data.prefetch import Prefetcher
from compute.spec import as_arrays
from executor.job import LoadedJob
from executor.reduction_tree import Node, Partial
from executor.step_plan import index_hashes
from proto.exchange_pb2 import Grant

Vector = NDArray[np.float32]

WARM_UP_ROUNDS = 2
MICRO_BATCHES_AHEAD = 2
MAX_CONFIDENCE = 3

Part = tuple[int, int, int]
"""What is read ahead: (step, micro-batch, 0), or (0, first, last) for samples of the validation set."""
Batch = tuple[Any, Any]
"""Inputs and targets, each one array or a tuple of arrays."""


class LeaseComputer:
    """The compiled model and the data sets of one worker. Not thread-safe: one lease at a time."""

    def __init__(self, job: LoadedJob, threads: int) -> None:
        self._job = job
        spec = job.spec
        self._program = compute.compile(
            spec.model, spec.criterion, job.input_specs, engine=spec.engine, threads=threads, precision=spec.precision
        )
        self._reader = _Reader(job)
        self._parts: Prefetcher[Part, Batch] = Prefetcher(self._reader, ahead=MICRO_BATCHES_AHEAD)
        self._next_lease = _NextLease()
        self._last: tuple[tuple[int, int, int], Partial] | None = None  # what `train` has returned, and of which node
        self._partials: dict[int, Vector] = {}  # level -> gradient of a left child that waits for its sibling

    def load_parameters(self, slices: list[bytes | bytearray | memoryview]) -> None:
        """Takes the parameters over from the servers' slices, in order."""
        offset = 0
        for data in slices:
            values = np.frombuffer(data, dtype="<f4")
            self._program.parameters[offset : offset + values.size] = values
            offset += values.size
        self._program.parameters_changed()

    def warm_up(self) -> float:
        """Opens the data, makes the plan of a full micro-batch; returns the seconds that one takes."""
        initial = compute.initial_parameters(self._job.spec.model, self._job.input_specs, self._job.spec.seed)
        self.load_parameters([initial.data.cast("B")])
        seconds = 0.0
        for _ in range(0 if self._job.spec.inference else WARM_UP_ROUNDS):
            begun = time.monotonic()
            self._leaf(1, 0, Partial(self._program.gradients))
            seconds = time.monotonic() - begun
        validation = self._job.spec.validation
        if validation is not None:
            self._parts.get((0, 0, 1))
        return seconds

    def close(self) -> None:
        """Ends the threads that read ahead."""
        self._parts.close()

    def train(self, grant: Grant, progress: Callable[[], None]) -> Partial:
        """Gradient of the grant's node, in the order of additions that the tree prescribes.

        Args:
            grant: a TRAIN lease.
            progress: called after each micro-batch.

        Returns:
            The node's value; its gradient, of the whole flat vector, is valid until the next call.
        """
        plan, step = self._job.plan, grant.step
        place = (step, grant.level, grant.index)
        if self._last is not None and self._last[0] == place:  # asked for again, since a server was lost
            return self._last[1]
        self._last = None
        likely = self._next_lease.after(step, grant.first)
        expected = [(step, leaf, 0) for leaf in range(grant.first, grant.last)]
        if likely is not None and likely[1] < plan.leaves(likely[0]):
            expected.append((*likely, 0))
        self._parts.expect(expected)
        partial = self._reduce(step, Node(grant.level, grant.index), plan.leaves(step), progress)
        begin, end = plan.micro_batch(step, grant.first)[0], plan.micro_batch(step, grant.last - 1)[1]
        partial.samples = end - begin
        partial.digest = index_hashes(self._reader.order(step)[begin:end])
        self._last = (place, partial)
        return partial

    def score(self, grant: Grant, progress: Callable[[], None]) -> list[list[float]]:
        """Sums of each of the job's metrics over the grant's samples of the validation set."""
        validation = self._job.spec.validation
        if validation is None:
            raise ValueError("a VALIDATE lease for a job without a validation")
        x, target = self._parts.get((0, grant.first, grant.last))
        outputs = as_arrays(self._program.forward(x))
        progress()
        if validation.predictions:
            predictions.write_part(validation.predictions, grant.first, outputs)
        return [[float(v) for v in metric.sums(outputs, as_arrays(target))] for metric in validation.metrics]

    def _reduce(self, step: int, node: Node, leaves: int, progress: Callable[[], None]) -> Partial:
        while node.level and Node(node.level - 1, 2 * node.position + 1).leaves(leaves)[0] >= leaves:
            node = Node(node.level - 1, 2 * node.position)  # without a right child a node is its left one
        if not node.level:
            partial = Partial(self._program.gradients)
            self._leaf(step, node.position, partial)
            progress()
            return partial
        left = self._reduce(step, Node(node.level - 1, 2 * node.position), leaves, progress)
        kept = self._partials.get(node.level)
        if kept is None:
            kept = self._partials[node.level] = np.empty_like(self._program.gradients)
        if left.gradient is not kept:
            np.copyto(kept, left.gradient)
            left.gradient = kept
        return left.add(self._reduce(step, Node(node.level - 1, 2 * node.position + 1), leaves, progress))

    def _leaf(self, step: int, leaf: int, partial: Partial) -> None:
        x, target = self._parts.get((step, leaf, 0))
        scale = 1.0 / self._job.plan.step_samples(step)
        partial.loss = self._program.forward_backward(x, target, scale, (self._job.spec.seed, step, leaf))


class _Reader:
    """Reads parts of the job's data sets; called by the prefetcher's threads."""

    def __init__(self, job: LoadedJob) -> None:
        self._job = job
        self._lock = threading.Lock()
        self._orders: dict[int, NDArray[np.int64]] = {}  # epoch -> order, of the two epochs asked for last

    def __call__(self, part: Part) -> Batch:
        spec = self._job.spec
        step, first, last = part
        if step:
            begin, end = self._job.plan.micro_batch(step, first)
            return spec.dataset.batch(self.order(step)[begin:end], (spec.seed, step, first))
        if spec.validation is None:
            raise ValueError("a part of the validation set for a job without a validation")
        return spec.validation.dataset.batch(np.arange(first, last, dtype=np.int64), (spec.seed, 0, first))

    def order(self, step: int) -> NDArray[np.int64]:
        """The order of the epoch that a step belongs to, int64 (samples,)."""
        epoch = self._job.plan.epoch(step)
        with self._lock:
            order = self._orders.pop(epoch, None)
            if order is None:
                order = self._job.spec.dataset.order(self._job.spec.seed, epoch)
            self._orders[epoch] = order
            if len(self._orders) > 2:
                del self._orders[next(iter(self._orders))]
            return order


class _NextLease:
    """Guesses which lease comes next: the same place of the next step, as long as that proves right."""

    def __init__(self) -> None:
        self._guess = (0, 0)
        self._confidence = 1

    def after(self, step: int, first: int) -> tuple[int, int] | None:
        """Step and first micro-batch that probably follow the lease that was given now; None if there is no telling."""
        self._confidence += 1 if self._guess == (step, first) else -1
        self._confidence = min(max(self._confidence, 0), MAX_CONFIDENCE)
        self._guess = (step + 1, first)
        return self._guess if self._confidence else None
