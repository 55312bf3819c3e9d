"""Computes what a lease asks for: gradients of a block of micro-batches, or metric sums of a validation block."""

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

import compute
from executor.job import LoadedJob
from executor.reduction_tree import Node, Partial
from executor.step_plan import index_hashes
from proto.exchange_pb2 import Grant

Vector = NDArray[np.float32]

WARM_UP_ROUNDS = 2


class LeaseComputer:
    """The compiled model and the data sets of one worker. Not thread-safe: one lease at a time."""

    def __init__(self, job: LoadedJob, threads: int) -> None:
        self._job = job
        spec = job.spec
        self._program = compute.compile(
            spec.model, spec.criterion, job.input_shape, engine=spec.engine, threads=threads
        )
        self._epoch = 0
        self._order: NDArray[np.int64] = np.empty(0, dtype=np.int64)
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
        self.load_parameters([self._job.initial_parameters().data.cast("B")])
        seconds = 0.0
        for _ in range(WARM_UP_ROUNDS):
            begun = time.monotonic()
            self._leaf(1, 0, Partial(self._program.gradients))
            seconds = time.monotonic() - begun
        validation = self._job.spec.validation
        if validation is not None:
            validation.dataset.batch(np.zeros(1, dtype=np.int64), (0, 0, 0))
        return seconds

    def train(self, grant: Grant, progress: Callable[[], None]) -> Partial:
        """Gradient of the grant's node, in the order of additions that the tree prescribes.

        Args:
            grant: a TRAIN lease.
            progress: called after each micro-batch.

        Returns:
            The node's value; its gradient, of the whole flat vector, is valid until the next call.
        """
        plan, step = self._job.plan, grant.step
        partial = self._reduce(step, Node(grant.level, grant.index), plan.leaves(step), progress)
        begin, end = plan.micro_batch(step, grant.first)[0], plan.micro_batch(step, grant.last - 1)[1]
        partial.samples = end - begin
        partial.digest = index_hashes(self._order[begin:end])
        return partial

    def score(self, grant: Grant, progress: Callable[[], None]) -> list[list[float]]:
        """Sums of each of the job's metrics over the grant's samples of the validation set."""
        validation = self._job.spec.validation
        if validation is None:
            raise ValueError("a VALIDATE lease for a job without a validation")
        x, target = validation.dataset.batch(
            np.arange(grant.first, grant.last, dtype=np.int64), (self._job.spec.seed, 0, grant.first)
        )
        output = self._program.forward(x)
        progress()
        return [[float(v) for v in metric.sums((output,), (target,))] for metric in validation.metrics]

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
        spec, plan = self._job.spec, self._job.plan
        epoch = plan.epoch(step)
        if epoch != self._epoch:
            self._order = compute.data.epoch_order(plan.samples, spec.seed, epoch)
            self._epoch = epoch
        begin, end = plan.micro_batch(step, leaf)
        key = (spec.seed, step, leaf)
        x, target = spec.dataset.batch(self._order[begin:end], key)
        partial.loss = self._program.forward_backward(x, target, 1.0 / plan.step_samples(step), key)
