"""Computes what a lease asks for: gradients of a block of micro-batches, or metric sums of a validation block."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

import compute
from compute import InputError, predictions
from compute.data.prefetch import Prefetcher
from compute.memory import aligned
from compute.spec import as_arrays
from executor.job import LoadedJob
from executor.reduction_tree import Node, Partial
from executor.step_plan import index_hashes
from proto.exchange_pb2 import Grant

Vector = NDArray[np.float32]

FinalOf = Callable[[Vector, int, int], None]
"""Told that elements [begin, end) of a vector have their values."""

NeededOf = Callable[[int, int], None]
"""Returns when elements [begin, end) of the parameters are there; see Program.forward_backward."""

WARM_UP_ROUNDS = 2
MICRO_BATCHES_AHEAD = 2
MAX_CONFIDENCE = 3

Part = tuple[int, int, int]
"""What is read ahead: (step, micro-batch, 0), or (0, first, last) for samples of the validation set."""
Batch = tuple[Any, Any]
"""Inputs and targets, each one array or a tuple of arrays."""


class LeaseRevoked(Exception):
    """What is being computed is not needed any more; `done` micro-batches of the lease were."""

    def __init__(self, done: int) -> None:
        super().__init__(f"after {done} micro-batches")
        self.done = done


class LeaseComputer:
    """The compiled model and the data sets of one worker. Not thread-safe: one lease at a time.

    Attributes:
        data_s, compute_s, pull_s: seconds so far of waiting for data, of computing, and of waiting for parameters.
    """

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
        self._kept: list[Vector] = []  # gradients of left children that wait for their siblings, the largest first
        self._rounding = job.rounding(0)
        self.data_s = 0.0
        self.compute_s = 0.0
        self.pull_s = 0.0

    def load_pieces(self, pieces: Iterable[tuple[int, memoryview]]) -> None:
        """Takes parameters over: offsets in elements, and float32 bytes. They take effect with `use_parameters`."""
        for offset, data in pieces:
            values = np.frombuffer(data, dtype="<f4")
            self._program.parameters[offset : offset + values.size] = values

    @property
    def parameters(self) -> NDArray[np.float32]:
        """Of the network, (parameters,): where `load_pieces` puts them. Likewise."""
        return self._program.parameters

    def use_parameters(self) -> None:
        """After `load_pieces`, before anything is computed."""
        self._program.parameters_changed()

    def warm_up(self) -> float:
        """Opens the data, makes the plan of a full micro-batch; returns the seconds that one takes."""
        initial = compute.initial_parameters(self._job.spec.model, self._job.input_specs, self._job.spec.seed)
        self.load_pieces([(0, initial.data.cast("B"))])
        self.use_parameters()
        seconds = 0.0
        for _ in range(0 if self._job.spec.inference else WARM_UP_ROUNDS):
            begun = time.monotonic()
            self._leaf(1, 0, None)
            seconds = time.monotonic() - begun
        validation = self._job.spec.validation
        if validation is not None:
            self._parts.get((0, 0, 1))
        return seconds

    def close(self) -> None:
        """Ends the threads that read ahead."""
        self._parts.close()

    def train(
        self,
        grant: Grant,
        progress: Callable[[], None],
        final: FinalOf | None = None,
        needed: NeededOf | None = None,
    ) -> Partial:
        """Gradient of the grant's node, in the order of additions that the tree prescribes.

        Args:
            grant: a TRAIN lease.
            progress: called after each micro-batch; what it raises ends the computation, as LeaseRevoked does.
            final: called with the vector that will be returned and a range [begin, end) of its elements as soon as
                these have their values, during the last backward pass; for every element once.
            needed: asked before parameters are read; what it raises ends the computation. None: all are there.

        Returns:
            The node's value; its gradient, of the whole flat vector, is valid until the next call.
        """
        plan, step = self._job.plan, grant.step
        place = (step, grant.level, grant.index)
        if self._last is not None and self._last[0] == place:  # asked for again, since a server was lost
            value = self._last[1]
            if final is not None:
                final(value.gradient, 0, value.gradient.size)
            return value
        self._last = None
        likely = self._next_lease.after(step, grant.first)
        expected = [(step, leaf, 0) for leaf in range(grant.first, grant.last)]
        if likely is not None and likely[1] < plan.leaves(likely[0]):
            expected.append((*likely, 0))
        self._parts.expect(expected)
        partial = self._reduce(step, Node(grant.level, grant.index), plan.leaves(step), progress, final, needed)
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
        with self._reader.naming((0, grant.first, grant.last)):
            outputs = as_arrays(self._program.forward(x))
        progress()
        if validation.predictions:
            predictions.write_part(validation.predictions, grant.first, outputs)
        return [[float(v) for v in metric.sums(outputs, as_arrays(target))] for metric in validation.metrics]

    def _reduce(
        self,
        step: int,
        node: Node,
        leaves: int,
        progress: Callable[[], None],
        final: FinalOf | None,
        needed: NeededOf | None,
    ) -> Partial:
        first, last = node.leaves(leaves)
        waiting: list[Partial] = []  # left children, the largest first
        for leaf in range(first, last - 1):
            value = self._rounded(Partial(self._program.gradients, self._leaf(step, leaf, None, needed)))
            needed = None  # the first micro-batch has read all
            progress()
            place = leaf - first
            while place & 1:  # a right child: its sibling is the one that has waited the shortest
                value = self._rounded(waiting.pop().add(value))
                place >>= 1
            waiting.append(self._keep(len(waiting), value))

        # With the last leaf all sums are made that are left. A node without a right child is its left one.
        def add(begin: int, end: int) -> None:
            right = self._program.gradients
            rounding = self._job.rounding(begin)
            if rounding is not None:
                rounding(right[begin:end])
            for left in reversed(waiting):
                np.add(left.gradient[begin:end], right[begin:end], out=left.gradient[begin:end])
                right = left.gradient
                if rounding is not None:
                    rounding(right[begin:end])
            if final is not None:
                final(right, begin, end)

        loss = self._leaf(step, last - 1, add, needed)
        progress()
        for left in reversed(waiting):
            loss = left.loss + loss
        return Partial(waiting[0].gradient if waiting else self._program.gradients, loss)

    def _rounded(self, value: Partial) -> Partial:
        """The value, its gradient rounded in place where the job's nodes have fewer bits."""
        if self._rounding is not None:
            self._rounding(value.gradient)
        return value

    def _keep(self, depth: int, value: Partial) -> Partial:
        """The value, with its gradient in memory that lasts until the lease's end."""
        if depth == len(self._kept):
            self._kept.append(aligned(self._program.gradients.shape))
        if value.gradient is not self._kept[depth]:
            np.copyto(self._kept[depth], value.gradient)
        return Partial(self._kept[depth], value.loss)

    def _leaf(
        self,
        step: int,
        leaf: int,
        final: Callable[[int, int], None] | None,
        needed: NeededOf | None = None,
    ) -> float:
        """Computes a micro-batch's gradients; the sum of its losses."""
        begun = time.monotonic()
        x, target = self._parts.get((step, leaf, 0))
        read = time.monotonic()
        pulled = 0.0

        def waiting(begin: int, end: int) -> None:
            nonlocal pulled
            asked = time.monotonic()
            if needed is not None:
                needed(begin, end)
            pulled += time.monotonic() - asked

        scale = 1.0 / self._job.plan.step_samples(step)
        key = (self._job.spec.seed, step, leaf)
        with self._reader.naming((step, leaf, 0)):
            loss = self._program.forward_backward(x, target, scale, key, final, waiting if needed else None)
        self.data_s += read - begun
        self.compute_s += time.monotonic() - read - pulled
        self.pull_s += pulled
        return loss


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

    @contextmanager
    def naming(self, part: Part) -> Iterator[None]:
        """Puts the file and record of the sample that an InputError is about, as the data set names it, before it."""
        try:
            yield
        except InputError as error:
            if error.sample is None:
                raise
            spec = self._job.spec
            step, first, last = part
            dataset, indices = spec.dataset, np.arange(first, last)
            if step:
                begin, end = self._job.plan.micro_batch(step, first)
                indices = self.order(step)[begin:end]
            elif spec.validation is not None:
                dataset = spec.validation.dataset
            raise InputError(f"{dataset.source.describe(int(indices[error.sample]))}: {error}") from None

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
