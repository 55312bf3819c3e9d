"""BinaryTreeLSTM against autograd through its formulas, node by node."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from layer_check import check_layer

import compute
from compute import InputError, TensorSpec, nn

Tensor = torch.Tensor


def random_tree(rng: np.random.Generator, leaves: int, nodes: int) -> np.ndarray:
    """A tree over words 0..leaves-1 in `nodes` rows, in random order, the rest empty."""
    names = list(rng.permutation(nodes)[: 2 * leaves - 1])
    tree = np.full((nodes, 3), -1)
    roots = []
    for word in range(leaves):
        name = names.pop()
        tree[name, 2] = word
        roots.append(name)
    while len(roots) > 1:
        place = rng.integers(0, len(roots) - 1)
        name = names.pop()
        tree[name, :2] = roots[place : place + 2]
        roots[place : place + 2] = [name]
    return tree


@pytest.mark.parametrize("gate_output", [True, False])
@pytest.mark.parametrize(("leaves", "nodes", "times"), [((1, 1), 1, 1), ((4, 1, 2), 8, 5), ((6, 6, 3, 5), 11, 6)])
def test_trees(leaves: tuple[int, ...], nodes: int, times: int, gate_output: bool) -> None:
    rng = np.random.default_rng(0)
    trees = np.stack([random_tree(rng, count, nodes) for count in leaves])

    def reference(x: Tensor, tree: Tensor, **w: Tensor) -> Tensor:
        def gated(o: Tensor) -> Tensor:
            return torch.sigmoid(o) if gate_output else torch.ones_like(o)

        def node(sample: int, name: int) -> tuple[Tensor, Tensor]:
            left, right, word = tree[sample, name].tolist()
            if word >= 0:
                c, o = (w["weight_leaf"] @ x[sample, word] + w["bias_leaf"]).chunk(2)
                return gated(o) * torch.tanh(c), c
            (left_h, left_c), (right_h, right_c) = node(sample, left), node(sample, right)
            i, fl, fr, g, o = (w["weight_left"] @ left_h + w["weight_right"] @ right_h + w["bias"]).chunk(5)
            c = torch.sigmoid(i) * torch.tanh(g) + torch.sigmoid(fl) * left_c + torch.sigmoid(fr) * right_c
            return gated(o) * torch.tanh(c), c

        empty = torch.zeros(3, dtype=torch.float64)
        rows = [
            [empty if (tree[sample, name] == -1).all() else node(sample, name)[0] for name in range(nodes)]
            for sample in range(len(x))
        ]
        return torch.stack([torch.stack(row) for row in rows])

    check_layer(
        nn.BinaryTreeLSTM(4, 3, gate_output),
        [(times, 4), TensorSpec((nodes, 3), "int64")],
        reference,
        data=[rng.standard_normal((len(leaves), times, 4), dtype=np.float32), trees],
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((-1, -1, 2), r"node 1 of the tree of sample 1 is \(-1, -1, 2\); it must be .* with a word in 0..1"),
        ((0, 3, -1), r"is \(0, 3, -1\).*with nodes in 0..2"),
        ((0, -1, -1), r"is \(0, -1, -1\); it must be"),
        ((0, 0, 1), r"is \(0, 0, 1\); it must be"),
        ((0, 1, -1), "node 1 of the tree of sample 1 has a child that is empty or above itself"),
        ((0, 2, -1), "node 1 of the tree of sample 1 has a child that is empty"),
    ],
)
def test_wrong_trees(row: tuple[int, ...], message: str) -> None:
    specs = (TensorSpec((2, 4)), TensorSpec((3, 3), "int64"))
    program = compute.compile(nn.BinaryTreeLSTM(4, 3, name="tree"), nn.MSELoss(), specs, engine="numpy")
    trees = np.full((2, 3, 3), -1)
    trees[:, 0] = (-1, -1, 0)
    trees[1, 1] = row
    with pytest.raises(InputError, match=r"layer tree \(BinaryTreeLSTM\).*" + message):
        program.forward((np.ones((2, 2, 4), dtype=np.float32), trees))


def test_wrong_shapes() -> None:
    for words, tree in (((2, 3), (3, 3)), ((2, 4), (3, 2))):
        specs = (TensorSpec(words), TensorSpec(tree, "int64"))
        with pytest.raises(InputError, match="a tree int64"):
            compute.compile(nn.BinaryTreeLSTM(4, 3), nn.MSELoss(), specs, engine="numpy")
