"""Runs one oneDNN operation on plain numpy arrays, whatever layouts it chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from compute.bfloat16 import from_bfloat16, to_bfloat16
from compute.engines import dnnl

torch.set_num_threads(1)

TYPES = [pytest.param(dnnl.F32, id="f32"), pytest.param(dnnl.BF16, id="bf16")]
TOLERANCE = {dnnl.F32: 1e-5, dnnl.BF16: 2e-2}

Floats = NDArray[np.float32]


def random_array(rng: np.random.Generator, *shape: int, dtype: dnnl.DataType = dnnl.F32) -> Floats:
    """Normal numbers that `dtype` holds exactly."""
    x = rng.standard_normal(shape).astype(np.float32)
    return x if dtype is dnnl.F32 else from_bfloat16(to_bfloat16(x))


def load(api: dnnl.Api, layout: dnnl.Descriptor, array: Floats) -> dnnl.Memory:
    """`array` in a layout and its type."""
    target = api.memory(layout)
    source = api.memory(api.strided(array.shape), np.ascontiguousarray(array))
    assert dnnl.copy(api, source, target)() == 0
    return target


def fetch(memory: dnnl.Memory) -> Floats:
    """A memory's elements as float32."""
    api = memory.descriptor.library
    assert isinstance(api, dnnl.Api)
    target = api.memory(api.strided(memory.descriptor.dims))
    assert dnnl.copy(api, memory, target)() == 0
    return target.view().copy()


def run(
    operation: dnnl.Operation,
    inputs: Mapping[int, Floats | dnnl.Memory],
    outputs: Sequence[int],
    layouts: Mapping[int, dnnl.Descriptor] | None = None,
) -> dict[int, dnnl.Memory]:
    """Executes the operation, twice with the same bits; `layouts` are those that it cannot tell (post-ops')."""
    api, layouts = operation.api, layouts or {}
    memories = {}
    for argument, value in inputs.items():
        if isinstance(value, dnnl.Memory):
            memories[argument] = value
        else:
            memories[argument] = load(api, layouts.get(argument) or operation.layout(argument), value)
    for argument in outputs:
        memories[argument] = api.memory(layouts.get(argument) or operation.layout(argument))
        # All bits set are NaN: what is not written shows.
        memories[argument].array.view(np.uint8).fill(0xFF)
    call = operation.bind(memories)
    assert call() == 0
    first = {argument: memories[argument].array.view(np.uint8).copy() for argument in outputs}
    assert call() == 0
    for argument in outputs:
        np.testing.assert_array_equal(memories[argument].array.view(np.uint8), first[argument])
    assert call.record.name == operation.kind
    assert call.record.implementation
    assert call.record.size_bytes > 0
    return memories


def check(actual: Floats, expected: torch.Tensor | NDArray[np.float64], dtype: dnnl.DataType) -> None:
    """Compares by the largest expected element, as far as the type can tell."""
    wanted = expected.detach().numpy() if isinstance(expected, torch.Tensor) else expected
    assert actual.shape == wanted.shape
    error = np.abs(actual - wanted).max(initial=0.0) / max(np.abs(wanted).max(initial=0.0), 1e-6)
    assert error <= TOLERANCE[dtype], f"relative error {error:.2e}"


def double(x: Floats, requires_grad: bool = True) -> torch.Tensor:
    """The array for PyTorch, in float64."""
    return torch.tensor(x.astype(np.float64), requires_grad=requires_grad)


def gradients(y: torch.Tensor, grad_y: Floats, *leaves: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """PyTorch's gradients of leaves."""
    return torch.autograd.grad(y, leaves, double(grad_y, False))
