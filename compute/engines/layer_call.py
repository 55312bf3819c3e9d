"""Calls of a layer's own formulas, with what they need to know; checks what users' layers return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.graph import Graph, Node
from compute.nn.layer import Array, Arrayed, LayerContext, Pass
from compute.spec import Arrays, Shape


class LayerCall:
    """One node's layer for one batch size.

    Args:
        current: the pass that the plan is in.
        needed: for each value of the graph, whether its gradient is needed.
        parameters, gradients: by name; gradients of weights are added to, statistics overwritten.
    """

    def __init__(
        self,
        node: Node,
        graph: Graph,
        batch: int,
        current: Pass,
        needed: list[bool],
        parameters: Arrayed,
        gradients: Arrayed,
    ) -> None:
        self.node = node
        self._repeat = graph.values[node.sources[0]].repeat if node.sources else 1
        self._shapes: list[Shape] = [graph.values[value].shape(batch) for value in node.outputs]
        self._parameters = parameters
        statistics = {p.spec.name for p in node.parameters if p.spec.kind == "statistic"}
        self._gradients = {name: grad for name, grad in gradients.items() if name not in statistics}
        self._context = LayerContext(
            node.index,
            current,
            tuple(needed[source] for source in node.sources),
            {name: grad for name, grad in gradients.items() if name in statistics},
        )
        self._inputs: Arrays = ()
        self._outputs: Arrays = ()

    def forward(self, inputs: Arrays) -> Arrays:
        """The layer's outputs."""
        self._context.saved = {}
        try:
            outputs = self.node.layer.forward_many(inputs, self._parameters, self._context)
        except InputError as error:
            raise named(error, self.node, self._repeat) from None
        outputs = tuple(
            self._checked(value, shape, spec.dtype, "forward")
            for value, shape, spec in zip(outputs, self._shapes, self.node.output_specs, strict=True)
        )
        self._inputs, self._outputs = inputs, outputs
        return outputs

    def set_outputs(self, outputs: Arrays) -> None:
        """Says where the outputs of the last forward are kept."""
        self._outputs = outputs

    def clear_gradients(self) -> None:
        """Zeros the gradients of the weights."""
        for gradient in self._gradients.values():
            gradient.fill(0.0)

    def backward(self, grads: Mapping[int, Array]) -> tuple[Array | None, ...]:
        """The gradients of the inputs, given those of the outputs by value number (zeros where there is none)."""
        grad_outputs = tuple(
            grads[value] if value in grads else np.zeros(shape, dtype=np.float32)
            for value, shape in zip(self.node.outputs, self._shapes, strict=True)
        )
        grad_inputs = self.node.layer.backward_many(
            self._inputs, self._outputs, grad_outputs, self._parameters, self._gradients, self._context
        )
        return tuple(
            None if grad is None else self._checked(grad, x.shape, "float32", "backward")
            for grad, x in zip(grad_inputs, self._inputs, strict=True)
        )

    def _checked(self, value: Any, shape: Shape, dtype: str, method: str) -> NDArray[Any]:
        if np.shape(value) != shape:
            where = f"layer {self.node.name} ({self.node.layer.kind})"
            raise InputError(f"{where}: {method} must return shape {shape}, returned {np.shape(value)}")
        return np.asarray(value, dtype=dtype)


def named(error: InputError, node: Node, repeat: int) -> InputError:
    """An error of a node's values, such as of an id that is out of range, with the name of its layer.

    Args:
        repeat: how many rows a sample has in what the node takes.
    """
    sample = None if error.sample is None else error.sample // repeat
    return InputError(f"layer {node.name} ({node.layer.kind}): {error}", sample)


def views(node: Node, flat: Array) -> Arrayed:
    """A node's parameters (or gradients) as views of the flat vector, by their name within the layer."""
    return {p.spec.name: flat[p.span].reshape(p.spec.shape) for p in node.parameters}
