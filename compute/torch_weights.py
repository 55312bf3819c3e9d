"""Parameters from PyTorch's state dictionaries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.graph import GraphParameter, build_graph
from compute.nn.module import Module
from compute.spec import SpecsLike

PARTS = ("q_proj", "k_proj", "v_proj")


def parameters_from_torch(model: Module, inputs: SpecsLike, state: Mapping[str, Any]) -> NDArray[np.float32]:
    """The flat parameter vector, float32 (P,), with the values of a PyTorch module's `state_dict()`.

    Names must be the same: nn.LSTM(name="rnn") takes "rnn.weight_ih_l0". A model that is one layer takes names without
    a layer ("weight_ih_l0"). The projections of nn.MultiheadAttention are taken out of "in_proj_weight" and
    "in_proj_bias", or from "q_proj_weight" and so on. "num_batches_tracked" is not needed.

    Args:
        state: by name, tensors or arrays.

    Raises:
        InputError: a parameter is missing, has another shape, or something in `state` is not in the model.
    """
    graph = build_graph(model, inputs)
    unused = {name for name in state if not name.endswith("num_batches_tracked")}
    flat = np.empty(graph.size, dtype=np.float32)
    for parameter in graph.parameters:
        value, used = _find(parameter, state, len(graph.nodes) == 1)
        if value.shape != parameter.spec.shape:
            raise InputError(f"{used} of PyTorch has shape {value.shape}, {parameter.name} {parameter.spec.shape}")
        flat[parameter.span] = value.ravel()
        unused.discard(used)
    if unused:
        raise InputError(f"the model has no parameters for PyTorch's {', '.join(sorted(unused))}")
    return flat


def _find(parameter: GraphParameter, state: Mapping[str, Any], alone: bool) -> tuple[NDArray[Any], str]:
    """The parameter's value and its name in `state`."""
    name = parameter.spec.name if alone and parameter.name not in state else parameter.name
    if name in state:
        return np.asarray(state[name]), name
    found = re.fullmatch(r"(.*?)([qkv]_proj)\.(weight|bias)", name)
    if found:
        prefix, part, kind = found.groups()
        whole = f"{prefix}in_proj_{kind}"
        if whole in state:
            return np.split(np.asarray(state[whole]), 3)[PARTS.index(part)], whole
        name = f"{prefix}{part}_{kind}"
        if name in state:
            return np.asarray(state[name]), name
    known = ", ".join(sorted(state)) or "nothing"
    raise InputError(f"PyTorch's state has no {name} for {parameter.name}; it has {known}")
