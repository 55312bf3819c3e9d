"""A compiled model: `compile` and `Program`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.graph import Graph, build_graph
from compute.memory import aligned
from compute.nn.criterion import Criterion
from compute.nn.layer import Key
from compute.nn.module import Module
from compute.spec import DTYPES, Arrays, Shape, Specs, SpecsLike, TensorSpec, as_arrays, as_specs

Array = NDArray[np.float32]

ENGINES = {
    "onednn": "compute.engines.onednn",
    "mkl": "compute.engines.mkl",
    "numpy": "compute.engines.plain",
}
"""Engine names and the modules that hold them; a module is imported, and its libraries loaded, when it is asked for."""

PRECISIONS = ("fp32", "bf16")
"""What kernels compute with. Parameters, gradients and sums are float32 in either."""

Final = Callable[[int, int], None]
"""Told that elements [begin, end) of the gradients have their values."""

Needed = Callable[[int, int], None]
"""Told that elements [begin, end) of the parameters are about to be read; returns when they have their values."""

MAX_PLANS = 32
"""Plans kept for different shapes of a batch; the longest unused is forgotten."""


class Plan(ABC):
    """All that a program prepares for one shape of batch: buffers, kernels, the order of calls."""

    @abstractmethod
    def forward(self, inputs: Arrays, key: Key, training: bool, share: float, needed: Needed) -> Arrays:
        """Runs the network; the views that it returns are valid until the next call.

        `needed` is called for all parameters that are read, before they are, here or in the backward pass.
        """

    @abstractmethod
    def backward(self, targets: Arrays, scale: float, final: Final) -> float:
        """After a training forward: overwrites the program's gradients; returns the plain sum of losses.

        `final` is called for every element of the gradients once, when it has its value.
        """


class Engine(ABC):
    """Makes plans for one program. Subclasses live in compute.engines, one module per engine, under the name `make`."""

    def __init__(self, program: Program, threads: int) -> None:
        self.program = program
        self.threads = threads

    @abstractmethod
    def plan(self, graph: Graph, batch: int, training: bool) -> Plan:
        """A new plan for `batch` samples; one for evaluation needs no memory for the backward pass."""

    @abstractmethod
    def parameters_changed(self) -> None:
        """The flat parameters have new values: forget what was derived from them."""


class Program:
    """A model compiled for one engine. Not thread-safe: one caller at a time.

    Attributes:
        parameters: float32 (P,), C-contiguous, 64-byte aligned; after writing to it call `parameters_changed`.
        gradients: float32 (P,), likewise; overwritten by `forward_backward`. Where parameters are statistics it holds
            this micro-batch's share of them.
        input_specs, output_specs: of one sample.
        precision: "fp32" or "bf16".
    """

    def __init__(
        self,
        model: Module,
        graph: Graph,
        criterion: Criterion | None,
        engine: str,
        threads: int,
        precision: str,
        parameters: Array | None = None,
    ) -> None:
        self.graph = graph
        self._criterion = criterion
        self.input_specs = graph.input_specs
        self.output_specs = graph.output_specs
        self.precision = precision
        self.parameters: Array = aligned((graph.size,)) if parameters is None else parameters
        self.gradients: Array = aligned((graph.size,))
        self._model = model
        self._graphs: dict[tuple[Shape, ...], Graph] = {tuple(spec.shape for spec in graph.input_specs): graph}
        self._settings = (engine, threads)
        make: Any = import_module(ENGINES[engine]).make
        self._engine: Engine = make(self, threads)
        self._known_targets: set[tuple[Specs, tuple[tuple[str, Shape], ...]]] = set()
        self._plans: OrderedDict[tuple[tuple[Shape, ...], bool], Plan] = OrderedDict()

    @property
    def criterion(self) -> Criterion:
        """The criterion. Raises InputError if there is none, and so nothing to train for."""
        if self._criterion is None:
            raise InputError("the network was compiled without a criterion, so it can only predict")
        return self._criterion

    def replica(self) -> Program:
        """Another program for the same network on the same `parameters`, for another thread."""
        return Program(self._model, self.graph, self._criterion, *self._settings, self.precision, self.parameters)

    def parameters_changed(self) -> None:
        """Says that `parameters` holds new values."""
        self._engine.parameters_changed()

    def forward_backward(
        self,
        x: NDArray[Any] | Arrays,
        target: NDArray[Any] | Arrays,
        scale: float,
        key: Key = (0, 0, 0),
        final: Final | None = None,
        needed: Needed | None = None,
    ) -> float:
        """One training pass over a micro-batch.

        Args:
            x: (n, *shape) of the model's input, or a tuple of such; sequences may be shorter than the model was
                compiled for, as long as the parameters' shapes do not depend on it.
            target: what the criterion wants, (n, ...) or a tuple of such.
            scale: factor of the gradients, usually 1 / samples of the step.
            key: (seed, step, micro_batch) for random layers.
            final: called with ranges [begin, end) of `gradients` as soon as these have their values, while the rest is
                still being computed; for every element once.
            needed: called with ranges [begin, end) of `parameters` before these are read for the first time since
                `parameters_changed`, and may wait until they are there. What it raises ends the pass.

        Returns:
            The plain sum of the samples' losses; `gradients` holds those of scale * that sum.

        Raises:
            InputError: x or target has a wrong shape or type, or a label is out of range.
        """
        inputs, targets = self._checked(x), as_arrays(target)
        rows = len(inputs[0])
        for item in targets:
            if item.ndim == 0 or len(item) != rows:
                raise InputError(f"there are {rows} samples, but a target of shape {item.shape}")
        plan = self._plan(inputs, True)
        self._check_targets(inputs, targets)
        plan.forward(inputs, key, True, scale * rows, needed or _ignored)
        return plan.backward(targets, scale, final or _ignored)

    def training_plan(self, x: NDArray[Any] | Arrays) -> Plan:
        """The plan of training passes over such a batch, for whoever wants to look into it."""
        return self._plan(self._checked(x), True)

    def forward(self, x: NDArray[Any] | Arrays) -> Any:
        """The outputs in evaluation mode: float32 (n, *shape), or a tuple where the model has several outputs.

        The views are valid until the next call.
        """
        inputs = self._checked(x)
        outputs = self._plan(inputs, False).forward(inputs, (0, 0, 0), False, 1.0, _ignored)
        return outputs[0] if len(outputs) == 1 else outputs

    def _check_targets(self, inputs: Arrays, targets: Arrays) -> None:
        """Asks the criterion about every new kind of targets once."""
        outputs = self._graph(inputs).output_specs
        kind = (outputs, tuple((str(item.dtype), item.shape[1:]) for item in targets))
        if kind not in self._known_targets:
            if not all(dtype in DTYPES for dtype, _ in kind[1]):
                raise InputError(f"targets must be of {' or '.join(DTYPES)}, got {_shown(targets)}")
            self.criterion.check(outputs, tuple(TensorSpec(shape, dtype) for dtype, shape in kind[1]))
            self._known_targets.add(kind)

    def _checked(self, x: NDArray[Any] | Arrays) -> Arrays:
        arrays = as_arrays(x)
        specs = self.input_specs
        fits = len(arrays) == len(specs) and all(
            array.ndim == 1 + len(spec.shape) and array.dtype == spec.dtype and len(array) == len(arrays[0]) > 0
            for array, spec in zip(arrays, specs, strict=True)
        )
        if not fits:
            raise InputError(f"the network takes {_batches(specs)} with n >= 1, got {_shown(arrays)}")
        return tuple(np.ascontiguousarray(array) for array in arrays)

    def _plan(self, inputs: Arrays, training: bool) -> Plan:
        key = (tuple(array.shape for array in inputs), training)
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= MAX_PLANS:
                self._plans.popitem(last=False)
            plan = self._plans[key] = self._engine.plan(self._graph(inputs), len(inputs[0]), training)
        else:
            self._plans.move_to_end(key)
        return plan

    def _graph(self, inputs: Arrays) -> Graph:
        """The graph for samples of these shapes, which may differ from those that the model was compiled for."""
        shapes = tuple(array.shape[1:] for array in inputs)
        if shapes not in self._graphs:
            wanted = f"the network takes {_batches(self.input_specs)}, got {_shown(inputs)}"
            specs = tuple(
                TensorSpec(shape, spec.dtype) for shape, spec in zip(shapes, self.input_specs, strict=True)
            )
            try:
                graph = build_graph(self._model, specs)
            except InputError as error:
                raise InputError(f"{wanted}: {error}") from None
            if [(p.name, p.spec.shape) for p in graph.parameters] != [
                (p.name, p.spec.shape) for p in self.graph.parameters
            ]:
                raise InputError(f"{wanted}, for which the parameters would have other shapes")
            self._graphs[shapes] = graph
        return self._graphs[shapes]


def compile(
    model: Module,
    criterion: Criterion | None,
    inputs: SpecsLike,
    engine: str = "onednn",
    threads: int = 1,
    precision: str = "fp32",
    targets: SpecsLike | None = None,
) -> Program:
    """Plans a model for samples of these shapes and types on an engine; its parameters start as zeros.

    Args:
        criterion: what training makes small; None for a network that only predicts.
        inputs: a shape (one float32 tensor), a TensorSpec or several.
        engine: "onednn", "mkl" or "numpy".
        threads: threads the engine may use; results are bit-identical for equal engine, threads and instruction set.
        precision: "fp32", or "bf16" (engine onednn): kernels take and give bfloat16 and add up in float32.
        targets: of one sample, to have the criterion checked at once and not with the first batch.

    Raises:
        InputError: shapes do not fit, the engine is unknown or its libraries cannot be loaded.
    """
    check_engine(engine, precision)
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InputError(f"threads must be a whole number of at least 1, got {threads!r}")
    if criterion is not None and not isinstance(criterion, Criterion):
        raise InputError(f"the criterion must be an nn.Criterion such as nn.NLLLoss(), got {criterion!r}")
    graph = build_graph(model, inputs)
    if criterion is not None and targets is not None:
        criterion.check(graph.output_specs, as_specs(targets))
    return Program(model, graph, criterion, engine, threads, precision)


def check_engine(engine: str, precision: str = "fp32") -> None:
    """Raises InputError unless `engine` is known and computes in `precision`."""
    if not isinstance(engine, str) or engine not in ENGINES:
        raise InputError(f"unknown engine {engine!r}; choose one of {', '.join(sorted(ENGINES))}")
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    if precision == "bf16" and engine != "onednn":
        raise InputError(f"engine {engine} computes in fp32 only; bf16 takes engine onednn")


def _ignored(_begin: int, _end: int) -> None:
    """Nobody wants to know what is final, or all that is needed is there."""


def _batches(specs: Specs) -> str:
    return " and ".join(f"{s.dtype} ({', '.join(['n', *(str(size) for size in s.shape)])})" for s in specs)


def _shown(arrays: Arrays) -> str:
    return " and ".join(f"{array.dtype} {array.shape}" for array in arrays)
