"""The part of a phase's work that is in nobody's hands and not done."""

from collections.abc import Iterable

from executor.reduction_tree import Node, root_level


class FreeWork:
    """Leaves 0 to count - 1, kept as the largest nodes of the reduction tree that are wholly free.

    Where only single leaves may be leased, those that never were are not kept one by one: they come in order.

    Attributes:
        count: leaves of the phase, free or not.
        leaves: how many are free.
        fresh: of single leaves: the first that was never taken.
    """

    def __init__(self, count: int = 0, single: bool = False) -> None:
        self.count = count
        self.single = single
        self.leaves = count if single else 0
        self.fresh = 0 if single else count
        self._nodes: dict[Node, None] = {}  # an ordered set; of single leaves, those that came back
        if not single:
            self.add(range(count))

    @property
    def returned(self) -> bool:
        """Whether there is any that is not fresh."""
        return bool(self._nodes)

    def holds(self, leaf: int) -> bool:
        """Whether a leaf, that is not fresh, is free."""
        return any(self._overlaps(node, leaf, leaf + 1) for node in self._nodes)

    def truncate(self) -> None:
        """What was never taken is no part of the phase any more."""
        self.leaves -= self.count - self.fresh
        self.count = self.fresh

    def add(self, leaves: Iterable[int]) -> None:
        """Adds leaves that are not free yet; last in the row, so that one does not keep another from its turn."""
        for leaf in leaves:
            self.leaves += 1
            node = Node(0, leaf)
            top = 0 if self.single else root_level(self.count)
            while node.level < top:
                exists = node.sibling.leaves(self.count)[0] < self.count
                if exists and node.sibling not in self._nodes:
                    break
                self._nodes.pop(node.sibling, None)
                node = node.parent
            self._nodes[node] = None

    def remove(self, first: int, last: int) -> None:
        """Takes the leaves [first, last) out, as far as they are free."""
        if self.single:
            for leaf in range(first, last):
                if Node(0, leaf) in self._nodes:
                    del self._nodes[Node(0, leaf)]
                    self.leaves -= 1
            return
        for node in [n for n in self._nodes if self._overlaps(n, first, last)]:
            del self._nodes[node]
            begin, end = node.leaves(self.count)
            self.leaves -= end - begin
            self.add(leaf for leaf in range(begin, end) if not first <= leaf < last)

    def take(self, share: int, place: int) -> Node:
        """Takes the largest node of at most `share` leaves out, one that holds leaf `place` if possible."""
        node = self._next_single() if self.single else self._largest(share, place)
        self.remove(*node.leaves(self.count))
        return node

    def _next_single(self) -> Node:
        if not self._nodes:
            self._nodes[Node(0, self.fresh)] = None
            self.fresh += 1
        return next(iter(self._nodes))

    def _largest(self, share: int, place: int) -> Node:
        best: tuple[tuple[int, bool], Node] | None = None
        for node in self._nodes:
            first, last = node.leaves(self.count)
            while last - first > share:
                left, right = Node(node.level - 1, 2 * node.position), Node(node.level - 1, 2 * node.position + 1)
                middle = right.leaves(self.count)[0]
                node = right if first < middle <= place < last else left
                first, last = node.leaves(self.count)
            key = (last - first, first <= place < last)
            if best is None or key > best[0]:
                best = key, node
        if best is None:
            raise RuntimeError("no work is free")
        return best[1]

    def _overlaps(self, node: Node, first: int, last: int) -> bool:
        begin, end = node.leaves(self.count)
        return begin < last and first < end
