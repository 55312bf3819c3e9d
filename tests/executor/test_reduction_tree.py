"""The tree's sum has the same bits whatever the order and size of the pieces."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.reduction_tree import Node, Partial, ReductionTree, root_level


def leaf_values(count: int) -> list[Partial]:
    rng = np.random.default_rng(count)
    # Magnitudes far apart, so that another order of additions almost surely shows in the bits.
    scales = 10.0 ** rng.integers(-6, 6, size=(count, 1))
    values = (rng.standard_normal((count, 5)) * scales).astype(np.float32)
    return [Partial(v, float(v[0]), j + 1, 1 << (j % 64)) for j, v in enumerate(values)]


def by_definition(node: Node, leaves: list[Partial]) -> Partial | None:
    """The sum as the module's docstring defines it, written without the tree."""
    if node.position << node.level >= len(leaves):
        return None
    if node.level == 0:
        leaf = leaves[node.position]
        return Partial(leaf.gradient.copy(), leaf.loss, leaf.samples, leaf.digest)
    left = by_definition(Node(node.level - 1, 2 * node.position), leaves)
    right = by_definition(Node(node.level - 1, 2 * node.position + 1), leaves)
    assert left is not None
    return left if right is None else left.add(right)


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[int, list[Node]]:
    """A number of leaves and nodes, with repeats, that cover them all, in any order."""
    count = draw(st.integers(1, 33))
    nodes = [Node(0, j) for j in range(count)]
    top = root_level(count)
    for _ in range(draw(st.integers(0, 12))):
        level = draw(st.integers(0, top))
        nodes.append(Node(level, draw(st.integers(0, (count - 1) >> level))))
    return count, draw(st.permutations(nodes))


@given(deliveries())
def test_any_order_and_any_cut_gives_the_same_bits(delivery: tuple[int, list[Node]]) -> None:
    count, nodes = delivery
    leaves = leaf_values(count)
    tree = ReductionTree(count)
    for node in nodes:
        value = by_definition(node, leaves)
        assert value is not None
        covered = tree.covers(node)
        assert tree.add(node, value) is not covered
    expected = by_definition(Node(root_level(count), 0), leaves)
    result = tree.result
    assert expected is not None
    assert result is not None
    assert result.gradient.tobytes() == expected.gradient.tobytes()
    assert (result.loss, result.samples, result.digest) == (expected.loss, expected.samples, expected.digest)
    assert result.samples == count * (count + 1) // 2  # each leaf exactly once


def test_the_order_of_additions_matters_for_these_values() -> None:
    """Guards the test above: a sum in another order would be found out."""
    leaves = leaf_values(16)
    in_a_row = leaves[0].gradient.copy()
    for leaf in leaves[1:]:
        in_a_row += leaf.gradient
    tree_sum = by_definition(Node(4, 0), leaves)
    assert tree_sum is not None
    assert in_a_row.tobytes() != tree_sum.gradient.tobytes()


def test_a_missing_leaf_keeps_the_tree_open() -> None:
    leaves = leaf_values(5)
    tree = ReductionTree(5)
    for j in (0, 1, 2, 4):
        tree.add(Node(0, j), leaves[j])
    assert tree.result is None


@pytest.mark.parametrize("node", [Node(0, 5), Node(-1, 0), Node(4, 0), Node(0, -1), Node(3, 1)])
def test_nodes_outside_are_refused(node: Node) -> None:
    with pytest.raises(ValueError, match="not in a tree of 5 leaves"):
        ReductionTree(5).add(node, leaf_values(1)[0])


def test_read_only_values_are_not_written_to() -> None:
    left, right = (np.frombuffer(np.float32([v, v]).tobytes(), dtype=np.float32) for v in (1.0, 2.0))
    assert Partial(left).add(Partial(right)).gradient.tolist() == [3.0, 3.0]
    assert left.tolist() == [1.0, 1.0]
