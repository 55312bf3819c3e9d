"""Where each parameter lies in the flat vector, and its first values."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.graph import GraphParameter, build_graph
from compute.nn.module import Module
from compute.nn.regularizer import Regularizer
from compute.philox import Stream
from compute.spec import Shape, SpecsLike


@dataclass(frozen=True)
class ParameterInfo:
    """A parameter in the flat vector and how it is updated.

    Attributes:
        name: layer.parameter.
        offset: in elements.
        kind: "weight" or "statistic" (see nn.Parameter).
        momentum: of a statistic.
        frozen: its layer is: it keeps its value.
        learning_rate_scale: factor of the optimizer's rate.
        l1, l2: the gradient gets l1 * sign(w) + l2 * w.
    """

    name: str
    shape: Shape
    offset: int
    kind: Literal["weight", "statistic"] = "weight"
    momentum: float = 0.1
    frozen: bool = False
    learning_rate_scale: float = 1.0
    l1: float = 0.0
    l2: float = 0.0

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def parameter_layout(model: Module, inputs: SpecsLike) -> list[ParameterInfo]:
    """The parameters in the order of the flat vector, without gaps, all statistics behind all weights.

    Raises:
        InputError: the shapes do not fit.
    """
    return [_info(parameter) for parameter in build_graph(model, inputs).parameters]


def _info(parameter: GraphParameter) -> ParameterInfo:
    layer, spec = parameter.layer, parameter.spec
    is_bias = spec.name.startswith("bias")
    regularizer = (layer.bias_regularizer if is_bias else layer.weight_regularizer) or Regularizer()
    return ParameterInfo(
        parameter.name,
        tuple(spec.shape),
        parameter.offset,
        spec.kind,
        spec.momentum,
        layer.frozen,
        layer.bias_rate_scale if is_bias else layer.weight_rate_scale,
        regularizer.l1,
        regularizer.l2,
    )


def initial_parameters(model: Module, inputs: SpecsLike, seed: int) -> NDArray[np.float32]:
    """The flat parameter vector, float32 (P,), before step 1; the same on every machine.

    Raises:
        InputError: shapes do not fit, or an initializer gave a wrong shape.
    """
    graph = build_graph(model, inputs)
    flat = np.empty(graph.size, dtype=np.float32)
    for index, parameter in enumerate(graph.parameters):
        shape = tuple(parameter.spec.shape)
        values = np.asarray(parameter.spec.initializer(shape, Stream("initial parameters", seed, index)))
        if values.shape != shape:
            raise InputError(f"the initializer of {parameter.name} gave shape {values.shape}, it must give {shape}")
        flat[parameter.offset : parameter.offset + parameter.size] = values.ravel()
    return flat


def fingerprint(model: Module, inputs: SpecsLike) -> str:
    """SHA-256 in hex of the parameters' names and shapes: equal for models whose weights are interchangeable."""
    rows = [[info.name, *info.shape] for info in parameter_layout(model, inputs)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
