"""A compiled model: `compile` and `Program`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.graph import Graph, build_graph
from compute.memory import aligned
from compute.nn.criterion import Criterion
from compute.nn.module import Module, Shape
from compute.spec import TensorSpec

Array = NDArray[np.float32]

ENGINES = {
    "onednn": "compute.engines.onednn",
    "mkl": "compute.engines.mkl",
    "numpy": "compute.engines.plain",
}
"""Engine names and the modules that hold them; a module is imported, and its libraries loaded, when it is asked for."""


class Plan(ABC):
    """All that a program prepares for one batch size: buffers, kernels, the order of calls."""

    @abstractmethod
    def forward(self, x: Array, key: tuple[int, int, int], training: bool) -> Array:
        """Runs the network; the view that it returns, (n, *output_shape), is valid until the next call."""

    @abstractmethod
    def backward(self, target: NDArray[np.int64], scale: float) -> float:
        """After a training forward: overwrites the program's gradients; returns the plain sum of losses."""


class Engine(ABC):
    """Makes plans for one program. Subclasses live in compute.engines, one module per engine, under the name `make`."""

    def __init__(self, program: Program, threads: int) -> None:
        self.program = program
        self.threads = threads

    @abstractmethod
    def plan(self, batch: int, training: bool) -> Plan:
        """A new plan for `batch` samples; one for evaluation needs no memory for the backward pass."""

    @abstractmethod
    def parameters_changed(self) -> None:
        """The flat parameters have new values: forget what was derived from them."""


class Program:
    """A model compiled for one engine. Not thread-safe: one caller at a time.

    Attributes:
        parameters: float32 (P,), C-contiguous, 64-byte aligned; after writing to it call `parameters_changed`.
        gradients: float32 (P,), likewise; overwritten by `forward_backward`.
        input_shape, output_shape: shapes of one sample.
    """

    def __init__(self, graph: Graph, criterion: Criterion, engine: str, threads: int) -> None:
        self.graph = graph
        self.criterion = criterion
        self.input_shape = graph.input_shape
        self.output_shape = graph.output_shape
        self.parameters: Array = aligned((graph.size,))
        self.gradients: Array = aligned((graph.size,))
        make: Any = import_module(ENGINES[engine]).make
        self._engine: Engine = make(self, threads)
        self._plans: dict[tuple[int, bool], Plan] = {}

    def parameters_changed(self) -> None:
        """Says that `parameters` holds new values."""
        self._engine.parameters_changed()

    def forward_backward(
        self, x: Array, target: NDArray[np.int64], scale: float, key: tuple[int, int, int] = (0, 0, 0)
    ) -> float:
        """One training pass over a micro-batch.

        Args:
            x: float32 (n, *input_shape).
            target: int64 (n,).
            scale: factor of the gradients, usually 1 / samples of the step.
            key: (seed, step, micro_batch) for random layers.

        Returns:
            The plain sum of the samples' losses; `gradients` holds those of scale * that sum.

        Raises:
            InputError: x or target has a wrong shape or type, or a label is out of range.
        """
        x = self._checked(x)
        if target.shape != (len(x),) or target.dtype != np.int64:
            raise InputError(f"targets must be int64 ({len(x)},), got {target.dtype} {target.shape}")
        plan = self._plan(len(x), True)
        plan.forward(x, key, True)
        return plan.backward(target, scale)

    def forward(self, x: Array) -> Array:
        """The outputs in evaluation mode, float32 (n, *output_shape); the view is valid until the next call."""
        x = self._checked(x)
        return self._plan(len(x), False).forward(x, (0, 0, 0), False)

    def _checked(self, x: Array) -> Array:
        if x.shape[1:] != self.input_shape or len(x) == 0 or x.dtype != np.float32:
            wanted = ", ".join(str(size) for size in self.input_shape)
            raise InputError(f"the network takes float32 (n, {wanted}) with n >= 1, got {x.dtype} {x.shape}")
        return np.ascontiguousarray(x)

    def _plan(self, batch: int, training: bool) -> Plan:
        plan = self._plans.get((batch, training))
        if plan is None:
            plan = self._plans[batch, training] = self._engine.plan(batch, training)
        return plan


def compile(
    model: Module, criterion: Criterion, input_shape: Shape, engine: str = "onednn", threads: int = 1
) -> Program:
    """Plans a model for samples of `input_shape` on an engine; its parameters start as zeros.

    Args:
        engine: "onednn", "mkl" or "numpy".
        threads: threads the engine may use; results are bit-identical for equal engine, threads and instruction set.

    Raises:
        InputError: shapes do not fit, the engine is unknown or its libraries cannot be loaded.
    """
    check_engine(engine)
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InputError(f"threads must be a whole number of at least 1, got {threads!r}")
    if not isinstance(criterion, Criterion):
        raise InputError(f"the criterion must be an nn.Criterion such as nn.NLLLoss(), got {criterion!r}")
    graph = build_graph(model, input_shape)
    criterion.check((TensorSpec(graph.output_shape),), (TensorSpec((), "int64"),))
    return Program(graph, criterion, engine, threads)


def check_engine(engine: str) -> None:
    """Raises InputError unless `engine` is known."""
    if engine not in ENGINES:
        raise InputError(f"unknown engine {engine!r}; choose one of {', '.join(sorted(ENGINES))}")
