"""What engines that run layer by layer on arrays share: the order of calls, the criterion, custom layers.

An engine gives a class per layer (`Kernel`) for its layout; `LayerPlan` owns the buffers between them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.graph import INPUT, Graph, Node
from compute.memory import aligned
from compute.nn.custom import CustomLayer, LayerContext
from compute.program import Program

Array = NDArray[np.float32]


class Kernel(ABC):
    """One layer for one batch size.

    Attributes:
        x: the input, set by the plan before the first forward (n, *input_shape).
        y: the output buffer (n, *output_shape), made by the kernel, or a view of x.
        grad_y: gradient of y, set by the plan before the first backward.
        grad_x: gradient of x, made by the kernel; None where nobody needs it.
    """

    def __init__(self, node: Node, program: Program, x: Array) -> None:
        self.node = node
        self.x = x
        self.y: Array = x
        self.grad_y: Array = x
        self.grad_x: Array | None = None
        spans = [(p, slice(p.offset, p.offset + p.size)) for p in node.parameters]
        self.parameters = {p.spec.name: program.parameters[s].reshape(p.spec.shape) for p, s in spans}
        self.gradients = {p.spec.name: program.gradients[s].reshape(p.spec.shape) for p, s in spans}

    def prepare_backward(self, grad_y: Array, need_grad_x: bool) -> None:
        """Makes the backward pass's buffers."""
        self.grad_y = grad_y
        if need_grad_x:
            self.grad_x = aligned(self.x.shape)

    @abstractmethod
    def forward(self) -> None:
        """Computes y from x."""

    @abstractmethod
    def backward(self) -> None:
        """Computes grad_x (if there) and the parameters' gradients from grad_y; x and y are those of forward."""


class CustomKernel(Kernel):
    """Calls a user's layer."""

    def __init__(self, node: Node, program: Program, x: Array) -> None:
        super().__init__(node, program, x)
        assert isinstance(node.layer, CustomLayer)
        self.layer = node.layer
        self.context = LayerContext(node.index)
        self.y = aligned((len(x), *node.output_shape))

    def forward(self) -> None:
        self.context.saved = {}
        self._store(self.y, self.layer.forward(self.x, self.parameters, self.context), "forward")

    def backward(self) -> None:
        for gradient in self.gradients.values():
            gradient.fill(0.0)
        grad_x = self.layer.backward(
            self.x, self.y, self.grad_y, self.parameters, self.gradients, self.context
        )
        if self.grad_x is not None:
            self._store(self.grad_x, grad_x, "backward")

    def _store(self, buffer: Array, values: Array, method: str) -> None:
        if np.shape(values) != buffer.shape:
            where = f"layer {self.node.name} ({self.layer.kind})"
            raise InputError(f"{where}: {method} must return shape {buffer.shape}, returned {np.shape(values)}")
        np.copyto(buffer, values, casting="same_kind")


def needs_gradient(graph: Graph) -> list[bool]:
    """For each node: whether its input's gradient is needed, i.e. whether parameters lie before it."""
    trained: list[bool] = []
    needed: list[bool] = []
    for node in graph.nodes:
        before = any(trained[source] for source in node.sources if source != INPUT)
        needed.append(before)
        trained.append(before or bool(node.parameters))
    return needed
