"""LSTM over binary trees."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.embedding import add_rows
from compute.nn.gated_cell import ONE, sigmoid_inplace
from compute.nn.init import FanIn, Initializer
from compute.nn.layer import Array, Arrayed, Layer, LayerContext
from compute.nn.module import Parameter, positive
from compute.spec import Arrays, Shape, Specs, TensorSpec

Ids = NDArray[np.int64]


class Level(NamedTuple):
    """Nodes whose children were computed before, and what the backward pass needs of them.

    Attributes:
        rows, left, right: places in the flat list of all samples' nodes.
        gates: (rows, 5 * hidden_size).
        squashed: tanh of the new c.
    """

    rows: Ids
    left: Ids
    right: Ids
    gates: Array
    squashed: Array


class BinaryTreeLSTM(Layer):
    """From the leaves to the root of binary trees (Tai, Socher and Manning, 2015, section 3.2; BigDL's BinaryTreeLSTM).

    Takes a table of words float32 (times, input_size) and a tree int64 (nodes, 3), its nodes in any order; a row is
        (-1, -1, w)       a leaf: word w, from 0
        (left, right, -1) an inner node with two children, nodes of the same tree from 0
        (-1, -1, -1)      nothing; fills up trees with fewer nodes
    Gives h of each node, (nodes, hidden_size), 0 where there is none.

        leaf:        c, a_o = weight_leaf x + bias_leaf
        inner node:  a = weight_left h_left + weight_right h_right + bias, its parts in the order i, l, r, g, o
                     c = sigmoid(a_i) tanh(a_g) + sigmoid(a_l) c_left + sigmoid(a_r) c_right
        both:        h = sigmoid(a_o) tanh(c), or tanh(c) if gate_output=False

    Parameters: `weight_leaf` (2 * hidden_size, input_size), `bias_leaf` (2 * hidden_size,), `weight_left` and
    `weight_right` (5 * hidden_size, hidden_size), `bias` (5 * hidden_size,), all uniform in +-1/sqrt(hidden_size).

    Raises:
        InputError: in the forward pass, a row of a tree is none of these, or a node is below itself.
    """

    arity = 2

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        gate_output: bool = True,
        weight_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        positive(self.kind, input_size=input_size, hidden_size=hidden_size)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.gate_output = gate_output
        self.weight_init = weight_init or FanIn(hidden_size)
        self.bias_init = bias_init or FanIn(hidden_size)

    def output_specs(self, *inputs: TensorSpec) -> Specs:
        words, tree = inputs
        if words.dtype != "float32" or len(words.shape) != 2 or words.shape[1] != self.input_size:
            raise InputError(f"needs words float32 (times, {self.input_size}) and a tree int64 (nodes, 3)")
        if tree.dtype != "int64" or len(tree.shape) != 2 or tree.shape[1] != 3:
            raise InputError("needs, behind the words, a tree int64 (nodes, 3)")
        return (TensorSpec((tree.shape[0], self.hidden_size)),)

    def parameters(self, words_shape: Shape, tree_shape: Shape) -> list[Parameter]:
        size = self.hidden_size
        return [
            Parameter("weight_leaf", (2 * size, self.input_size), self.weight_init),
            Parameter("bias_leaf", (2 * size,), self.bias_init),
            Parameter("weight_left", (5 * size, size), self.weight_init),
            Parameter("weight_right", (5 * size, size), self.weight_init),
            Parameter("bias", (5 * size,), self.bias_init),
        ]

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        words, tree = inputs
        n, nodes = tree.shape[:2]
        size = self.hidden_size
        _check(tree, words.shape[1])
        left, right, word = (tree[:, :, column].ravel() for column in range(3))
        first = np.repeat(np.arange(n), nodes)  # the sample of each node
        h, c = (np.zeros((n * nodes, size), dtype=np.float32) for _ in range(2))
        leaves = np.flatnonzero(word >= 0)
        places = first[leaves] * words.shape[1] + word[leaves]
        a = words.reshape(-1, self.input_size)[places] @ parameters["weight_leaf"].T
        a += parameters["bias_leaf"]
        c[leaves] = a[:, :size]
        gate = self._gated(a[:, size:])
        squashed = np.tanh(a[:, :size])
        h[leaves] = gate * squashed
        context.saved["leaves"] = leaves, places, gate, squashed
        levels = []
        for rows in _levels(left, right, leaves, nodes):
            below, beside = first[rows] * nodes + left[rows], first[rows] * nodes + right[rows]
            a = h[below] @ parameters["weight_left"].T
            a += h[beside] @ parameters["weight_right"].T
            a += parameters["bias"]
            i, forget_left, forget_right, g, o = self._parts(a)
            sigmoid_inplace(a[:, : 3 * size])
            np.tanh(g, out=g)
            o[...] = self._gated(o)
            c[rows] = i * g + forget_left * c[below] + forget_right * c[beside]
            squashed = np.tanh(c[rows])
            h[rows] = o * squashed
            levels.append(Level(rows, below, beside, a, squashed))
        context.saved["levels"], context.saved["c"] = levels, c
        return (h.reshape(n, nodes, size),)

    def _gated(self, a: Array) -> Array:
        if not self.gate_output:
            return np.ones_like(a)
        gate = a.copy()
        sigmoid_inplace(gate)
        return gate

    def _parts(self, a: Array) -> list[Array]:
        return [a[:, part * self.hidden_size : (part + 1) * self.hidden_size] for part in range(5)]

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        size, c = self.hidden_size, context.saved["c"]
        h = outputs[0].reshape(-1, size)
        grad_h = grad_outputs[0].reshape(-1, size).copy()
        grad_c = np.zeros_like(grad_h)
        for level in reversed(context.saved["levels"]):
            i, forget_left, forget_right, g, o = self._parts(level.gates)
            grad_a = np.empty_like(level.gates)
            parts = self._parts(grad_a)
            grad = grad_h[level.rows]
            total = grad_c[level.rows] + grad * o * (ONE - level.squashed * level.squashed)
            factors = (g, c[level.left], c[level.right])
            for part, gate, factor in zip(parts[:3], (i, forget_left, forget_right), factors, strict=True):
                part[...] = total * factor * gate * (ONE - gate)
            parts[3][...] = total * i * (ONE - g * g)
            parts[4][...] = grad * level.squashed * o * (ONE - o)  # 0 where o is always 1
            for name, child, forget in (("left", level.left, forget_left), ("right", level.right, forget_right)):
                weight = f"weight_{name}"
                gradients[weight] += grad_a.T @ h[child]
                add_rows(grad_h, child, grad_a @ parameters[weight])
                add_rows(grad_c, child, total * forget)
            gradients["bias"] += grad_a.sum(axis=0)
        leaves, places, gate, squashed = context.saved["leaves"]
        grad_a = np.empty((len(leaves), 2 * size), dtype=np.float32)
        grad = grad_h[leaves]
        grad_a[:, :size] = grad_c[leaves] + grad * gate * (ONE - squashed * squashed)
        grad_a[:, size:] = grad * squashed * gate * (ONE - gate)
        words = inputs[0].reshape(-1, self.input_size)
        gradients["weight_leaf"] += grad_a.T @ words[places]
        gradients["bias_leaf"] += grad_a.sum(axis=0)
        if not context.needed[0]:
            return (None, None)
        grad_words = np.zeros_like(words)
        add_rows(grad_words, places, grad_a @ parameters["weight_leaf"])
        return (grad_words.reshape(inputs[0].shape), None)


def _levels(left: Ids, right: Ids, leaves: Ids, nodes: int) -> list[Ids]:
    """Inner nodes, each behind its children, in groups that can be computed together.

    Raises:
        InputError: a node has an empty child, or is below itself.
    """
    offsets = np.arange(len(left)) // nodes * nodes
    done = np.zeros(len(left), dtype=np.bool_)
    done[leaves] = True
    waiting = np.flatnonzero(left >= 0)
    found = []
    while len(waiting):
        ready = done[offsets[waiting] + left[waiting]] & done[offsets[waiting] + right[waiting]]
        if not ready.any():
            sample, node = divmod(int(waiting[0]), nodes)
            text = f"node {node} of the tree of sample {sample} has a child that is empty or above itself"
            raise InputError(text, sample)
        found.append(waiting[ready])
        done[found[-1]] = True
        waiting = waiting[~ready]
    return found


def _check(tree: Ids, words: int) -> None:
    """Raises InputError unless every row is a leaf, an inner node or empty."""
    left, right, word = (tree[:, :, column] for column in range(3))
    nodes = tree.shape[1]
    children = (left >= 0) & (left < nodes) & (right >= 0) & (right < nodes)
    childless = (left == -1) & (right == -1)
    wrong = ~((childless & (word >= -1) & (word < words)) | (children & (word == -1)))
    if wrong.any():
        sample, node = (int(index) for index in np.argwhere(wrong)[0])
        row = tuple(int(value) for value in tree[sample, node])
        raise InputError(
            f"node {node} of the tree of sample {sample} is {row}; it must be (-1, -1, word) with a word in "
            f"0..{words - 1}, (left, right, -1) with nodes in 0..{nodes - 1}, or (-1, -1, -1)",
            sample,
        )
