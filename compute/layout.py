"""Where each parameter lies in the flat vector, and its first values."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.graph import build_graph
from compute.nn.module import Module, Shape
from compute.philox import Stream


@dataclass(frozen=True)
class ParameterInfo:
    """A parameter of the flat vector.

    Attributes:
        name: layer.parameter.
        shape: its shape.
        offset: of its first element in the flat vector.
        kind: "weight", or "statistic" for what is averaged over steps and not trained.
        momentum: of a statistic: running = (1 - momentum) * running + momentum * mean of the step.
        frozen: a weight that no update touches.
        learning_rate_scale: factor of a weight's learning rate.
        l1, l2: a weight's regularizers: its gradient is increased by l1 * sign(weight) + l2 * weight.
    """

    name: str
    shape: Shape
    offset: int
    kind: str = "weight"
    momentum: float = 0.1
    frozen: bool = False
    learning_rate_scale: float = 1.0
    l1: float = 0.0
    l2: float = 0.0


def parameter_layout(model: Module, input_shape: Shape) -> list[ParameterInfo]:
    """The parameters in the order of the flat vector, without gaps. Raises InputError if the shapes do not fit."""
    graph = build_graph(model, input_shape)
    return [ParameterInfo(p.name, tuple(p.spec.shape), p.offset) for p in graph.parameters]


def initial_parameters(model: Module, input_shape: Shape, seed: int) -> NDArray[np.float32]:
    """The flat parameter vector, float32 (P,), before step 1; the same on every machine.

    Raises:
        InputError: shapes do not fit, or an initializer gave a wrong shape.
    """
    graph = build_graph(model, input_shape)
    flat = np.empty(graph.size, dtype=np.float32)
    for index, parameter in enumerate(graph.parameters):
        shape = tuple(parameter.spec.shape)
        values = np.asarray(parameter.spec.initializer(shape, Stream("initial parameters", seed, index)))
        if values.shape != shape:
            raise InputError(f"the initializer of {parameter.name} gave shape {values.shape}, it must give {shape}")
        flat[parameter.offset : parameter.offset + parameter.size] = values.ravel()
    return flat


def fingerprint(model: Module, input_shape: Shape) -> str:
    """SHA-256 in hex of the parameters' names and shapes: equal for models whose weights are interchangeable."""
    rows = [[info.name, *info.shape] for info in parameter_layout(model, input_shape)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
