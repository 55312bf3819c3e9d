"""Which samples a step, a micro-batch and a validation block cover. Pure arithmetic over the job's constants."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compute.optim import sum_block
from executor.reduction_tree import DIGEST_MODULUS


@dataclass(frozen=True)
class StepPlan:
    """The cut of an epoch into steps and of a step into micro-batches (docs/architecture.md, "Training").

    Attributes:
        samples: in the data set.
        batch_size: samples of a full step.
        micro_batches: leaves of a full step's tree at the most.
    """

    samples: int
    batch_size: int
    micro_batches: int

    @property
    def micro_batch_size(self) -> int:
        """Samples of a full micro-batch."""
        return -(-self.batch_size // self.micro_batches)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch, the short one included."""
        return -(-self.samples // self.batch_size)

    def epoch(self, step: int) -> int:
        """Epoch, from 1, of a step, from 1."""
        return (step - 1) // self.steps_per_epoch + 1

    def step_in_epoch(self, step: int) -> int:
        """Position, from 0, of a step in its epoch."""
        return (step - 1) % self.steps_per_epoch

    def ends_epoch(self, step: int) -> bool:
        """Whether the step is the last of its epoch."""
        return step % self.steps_per_epoch == 0

    def step_samples(self, step: int) -> int:
        """Samples of a step."""
        return min(self.batch_size, self.samples - self.step_in_epoch(step) * self.batch_size)

    def leaves(self, step: int) -> int:
        """Micro-batches of a step."""
        return -(-self.step_samples(step) // self.micro_batch_size)

    def micro_batch(self, step: int, leaf: int) -> tuple[int, int]:
        """Range [begin, end) of positions in the epoch's order that a micro-batch covers."""
        start = self.step_in_epoch(step) * self.batch_size
        end = start + self.step_samples(step)
        begin = start + leaf * self.micro_batch_size
        return begin, min(begin + self.micro_batch_size, end)


def slice_bounds(parameters: int, servers: int, index: int) -> tuple[int, int]:
    """Range [begin, end) of the flat vector that server `index` of `servers` holds.

    Bounds are multiples of compute.optim.sum_block, of which sums over the whole vector are made; sizes differ by one
    such block at the most.
    """
    block = sum_block(parameters)
    blocks = -(-parameters // block)
    begin, end = (min(blocks * position // servers * block, parameters) for position in (index, index + 1))
    return begin, end


def index_hashes(indices: NDArray[np.int64]) -> int:
    """Sum modulo 2^64 of a 64-bit hash of each sample index, to tell sets of samples apart in any order.

    The hash is the finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    """
    z = (indices.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return int(np.sum(z, dtype=np.uint64)) % DIGEST_MODULUS
