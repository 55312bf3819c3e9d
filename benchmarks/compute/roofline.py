"""What a training step could reach at best on this machine, measured in the same process as the step.

    limit = floating-point operations / median rate of large matrix products
            + what is bound by memory, as measured: batch norm, pooling, softmax, activations, the loss, the update
            + one copy of the weights into the kernels' type, at the rate of large copies

without any overlap. Operations are counted by the layers' definitions, with the multiplications of padding, so kernels
that skip those may exceed the rate. Reorders, Python, and whatever products lose against the large ones are what a step
may still gain; so are the passes over memory that fusing would save.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute import Program, nn
from compute.engines.staged import Call, Emitted, StagedPlan
from compute.graph import Graph, Node
from compute.nn.conv import Convolution
from compute.profile import copy_rate, large_product

PRODUCTS = 5
"""Large products measured before each step."""

NOT_BOUND = ("reorder", "concat", "sum")
"""Kernels that only carry data to where others want it."""


@dataclass(frozen=True)
class Roofline:
    """The parts of the limit for one step.

    Attributes:
        flops: of the products, by definition.
        rate: FLOP/s of large products, median.
        passes_s: kernels and formulas bound by memory.
        update_s: the optimizer's.
        copy_s: of the weights.
        step_s: what steps took meanwhile, watched.
    """

    flops: float
    rate: float
    passes_s: float
    update_s: float
    copy_s: float
    step_s: float

    @property
    def limit_s(self) -> float:
        """Seconds of a step that reaches the limit."""
        return self.flops / self.rate + self.passes_s + self.update_s + self.copy_s


def step_flops(graph: Graph, batch: int) -> float:
    """Floating-point operations of the products of a training step: forward, and for both gradients."""
    needed, total = graph.needs_gradient(), 0.0
    for node in graph.nodes:
        trained = any(parameter.trained for parameter in node.parameters)
        passes = 1 + trained + any(needed[source] for source in node.sources)
        total += passes * forward_flops(node)
    return total * batch


def forward_flops(node: Node) -> float:
    """Of a sample's forward pass; 0 for layers without products."""
    layer = node.layer
    if isinstance(layer, nn.ScaledDotProductAttention):
        *heads, queries, size = node.input_specs[0].shape
        keys, values = node.input_specs[1].shape[-2], node.input_specs[2].shape[-1]
        return 2.0 * math.prod(heads) * queries * keys * (size + values)
    weights = sum(math.prod(p.spec.shape) for p in node.parameters if len(p.spec.shape) > 1)
    shape = node.output_specs[0].shape
    match layer:
        case Convolution():
            positions = math.prod(shape[1:])
        case nn.Linear():
            positions = math.prod(shape[:-1])
        case nn.Embedding() if node.input_specs[0].dtype == "float32":
            positions = math.prod(shape[:-1])
        case nn.LSTM() | nn.GRU() | nn.RNN():
            positions = shape[0]
        case _:
            return 0.0
    return 2.0 * weights * positions


def measure(
    program: Program,
    x: NDArray[Any],
    target: NDArray[Any],
    update: Callable[[], None],
    threads: int = 1,
    steps: int = 5,
) -> Roofline:
    """Runs some watched steps, with large products in between; one thread by its processor time, several by the clock.

    Args:
        update: the optimizer's step.

    Raises:
        TypeError: the engine does not prepare its calls (engine numpy).
    """
    plan = program.training_plan(x)
    if not isinstance(plan, StagedPlan):
        raise TypeError("engine numpy prepares no calls, so there is no telling what its time goes to")
    product, flops = large_product(program)
    clock = time.thread_time if threads == 1 else time.perf_counter
    passes = [0.0]

    def watched(emitted: Emitted) -> Call:
        record = getattr(emitted.call, "record", None)
        bound = record is None or (record.flops == 0 and record.name not in NOT_BOUND)

        def call() -> Any:
            begun = clock()
            status = emitted.call()
            spent = clock() - begun
            passes[0] += spent if bound else 0.0
            return status

        return call

    loss = plan._loss_gradient

    def watched_loss(*args: Any) -> float:
        begun = clock()
        found = loss(*args)
        passes[0] += clock() - begun
        return found

    rates, passes_s, update_s, step_s = [], [], [], []
    plan.watch(watched)
    plan._loss_gradient = watched_loss  # type: ignore[method-assign]
    try:
        for _ in range(steps):
            for _ in range(PRODUCTS):
                begun = clock()
                product()
                rates.append(flops / (clock() - begun))
            passes[0] = 0.0
            begun = clock()
            program.parameters_changed()
            program.forward_backward(x, target, 1.0 / len(x), (1, 1, 0))
            passes_s.append(passes[0])
            computed = clock()
            update()
            update_s.append(clock() - computed)
            step_s.append(clock() - begun)
    finally:
        plan.watch(None)
        plan._loss_gradient = loss  # type: ignore[method-assign]
    weights = sum(math.prod(p.spec.shape) for p in program.graph.parameters if len(p.spec.shape) > 1)
    size = np.dtype(np.float32).itemsize + (2 if program.precision == "bf16" else 4)
    return Roofline(
        step_flops(program.graph, len(x)),
        median(rates),
        median(passes_s),
        median(update_s),
        weights * size / copy_rate(clock),
        median(step_s),
    )
