"""The fixed binary tree over micro-batches that gives every floating-point addition of a step its place.

Leaf j is micro-batch j. A node (level l, position i) spans the leaves [i * 2^l, (i + 1) * 2^l). Its value is the sum of
its two children; where a step has fewer leaves than the node spans, a node with one child present is that child. The
sum therefore depends on the number of leaves alone, not on who computed what, in which order it arrived, or how large
the pieces were in which it came.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]

Round = Callable[[Vector], None]
"""What is done, in place, to the gradient of every node, where a job's nodes have fewer bits than float32."""

DIGEST_MODULUS = 1 << 64


class Node(NamedTuple):
    """Position in the tree."""

    level: int
    position: int

    @property
    def parent(self) -> "Node":
        """The node one level up."""
        return Node(self.level + 1, self.position >> 1)

    @property
    def sibling(self) -> "Node":
        """The other child of the parent."""
        return Node(self.level, self.position ^ 1)

    def leaves(self, count: int) -> tuple[int, int]:
        """The range [first, last) of leaves it spans in a tree of `count` leaves."""
        return min(self.position << self.level, count), min((self.position + 1) << self.level, count)


@dataclass
class Partial:
    """Value of a node.

    Attributes:
        gradient: float32, a slice of the flat gradient vector.
        loss: sum of the samples' losses, float64.
        samples: how many samples contributed.
        digest: sum modulo 2^64 of the hashes of their indices.
    """

    gradient: Vector
    loss: float = 0.0
    samples: int = 0
    digest: int = 0

    def add(self, right: "Partial") -> "Partial":
        """This plus its right sibling; takes over this one's memory if it may be written to."""
        out = self.gradient if self.gradient.flags.writeable else None
        return Partial(
            np.add(self.gradient, right.gradient, out=out),
            self.loss + right.loss,
            self.samples + right.samples,
            (self.digest + right.digest) % DIGEST_MODULUS,
        )


def root_level(leaves: int) -> int:
    """Level of the root of a tree of `leaves` leaves.

    Raises:
        ValueError: there are none.
    """
    if leaves < 1:
        raise ValueError(f"a tree needs at least one leaf, got {leaves}")
    return (leaves - 1).bit_length()


class ReductionTree:
    """Collects the nodes of one step and adds them as soon as both children of a node are there."""

    def __init__(self, leaves: int, rounding: Round | None = None) -> None:
        """
        Args:
            leaves: how many.
            rounding: of the sums; nodes that are added are rounded already.
        """
        self.leaves = leaves
        self._rounding = rounding
        self._root = Node(root_level(leaves), 0)
        self._present: dict[Node, Partial] = {}

    @property
    def result(self) -> Partial | None:
        """Value of the root once every leaf is covered, else None."""
        return self._present.get(self._root)

    def exists(self, node: Node) -> bool:
        """Whether the tree has such a node."""
        return 0 <= node.level <= self._root.level and node.position >= 0 and node.position << node.level < self.leaves

    def covers(self, node: Node) -> bool:
        """Whether the value of `node` is already part of what is here."""
        while node.level <= self._root.level:
            if node in self._present:
                return True
            node = node.parent
        return False

    def add(self, node: Node, value: Partial) -> bool:
        """Takes the value of a node; False when it was here already, and nothing changed.

        Raises:
            ValueError: the tree has no such node.
        """
        if not self.exists(node):
            raise ValueError(f"{node} is not in a tree of {self.leaves} leaves")
        if self.covers(node):
            return False
        # Pieces of this node that came earlier, in a finer cut, are part of the value that has come now.
        for other in [n for n in self._present if n.level < node.level]:
            if other.position >> (node.level - other.level) == node.position:
                del self._present[other]
        self._present[node] = value
        while node != self._root:
            sibling = node.sibling
            if not self.exists(sibling):  # beyond the last leaf: the parent is this child
                merged = self._present.pop(node)
            elif sibling in self._present:
                left, right = sorted((node, sibling))
                merged = self._present.pop(left).add(self._present.pop(right))
                if self._rounding is not None:
                    self._rounding(merged.gradient)
            else:
                break
            node = node.parent
            self._present[node] = merged
        return True
