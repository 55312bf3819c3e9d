"""Layers whose outputs are as many elements as the values say: nn.DenseToSparse and nn.MaskedSelect."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from layer_check import check_layer

import compute
from compute import InputError, TensorSpec, nn


def thinned(batch: int, *shape: int) -> np.ndarray:
    """Half zeros."""
    rng = np.random.default_rng(batch)
    return rng.standard_normal((batch, *shape), dtype=np.float32) * (rng.random((batch, *shape)) < 0.5)


def packed(x: torch.Tensor, mask: torch.Tensor, size: int, padding: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Row by row by torch.masked_select: the values and the places."""
    values, places = [], []
    for row, chosen in zip(x.reshape(len(x), -1), mask.reshape(len(x), -1), strict=True):
        found = torch.masked_select(row, chosen)
        values.append(torch.cat([found, torch.full((size - len(found),), padding, dtype=found.dtype)]))
        index = chosen.nonzero().ravel()
        places.append(torch.cat([index, torch.full((size - len(index),), -1)]))
    return torch.stack(values), torch.stack(places)


@pytest.mark.parametrize("size", [None, 9])
@pytest.mark.parametrize("batch", [1, 4])
def test_dense_to_sparse(size: int | None, batch: int) -> None:
    data = [thinned(batch, 12)]

    def reference(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, places = packed(x, x != 0, size or 12, 0.0)
        return places, values

    check_layer(nn.DenseToSparse(size), [(12,)], reference, data=data)
    check_layer(
        nn.DenseToSparse(size, propagate_back=False), [(12,)], lambda x: reference(x.detach() + 0 * x), data=data
    )


def test_a_sparse_layer_behind_is_a_linear_one() -> None:
    check_layer(
        nn.Sequential(nn.DenseToSparse(), nn.SparseLinear(12, 3)),
        [(12,)],
        lambda x, sparselinear_1_weight, sparselinear_1_bias: (
            (x * (x != 0)) @ sparselinear_1_weight + sparselinear_1_bias
        ),
        data=[np.where(thinned(5, 12) == 0, np.float32(1e-30), thinned(5, 12))],
    )


@pytest.mark.parametrize(("shape", "size", "padding"), [((7,), None, 0.0), ((3, 4), 10, -1.0), ((2, 1, 3), None, 5.0)])
@pytest.mark.parametrize("dtype", ["int64", "float32"])
def test_masked_select(shape: tuple[int, ...], size: int | None, padding: float, dtype: str) -> None:
    mask = (thinned(4, *shape) != 0).astype(dtype)
    mask[0], mask[1] = 0, np.arange(mask[1].size).reshape(shape) < 6  # none, and as many as ever
    x = np.random.default_rng(1).standard_normal(mask.shape, dtype=np.float32)

    def reference(x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, _ = packed(x, mask != 0, size or x[0].numel(), padding)
        return values, (mask != 0).reshape(len(x), -1).sum(1)

    check_layer(nn.MaskedSelect(size, padding), [shape, TensorSpec(shape, dtype)], reference, data=[x, mask])


def test_too_many_are_an_error_that_names_the_sample() -> None:
    program = compute.compile(nn.DenseToSparse(2, name="few"), None, (4,), engine="numpy")
    x = np.zeros((3, 4), dtype=np.float32)
    x[1, :3] = 1
    message = r"layer few \(DenseToSparse\): sample 1 of the batch has 3 elements that are not 0, at most 2 were said"
    with pytest.raises(InputError, match=message):
        program.forward(x)
    for module, specs, text in (
        (nn.DenseToSparse(), (TensorSpec((2, 3)),), r"needs float32 \(features\)"),
        (nn.MaskedSelect(), (TensorSpec((3,)), TensorSpec((4,))), "needs float32 values and a mask of their shape"),
    ):
        with pytest.raises(InputError, match=text):
            compute.compile(module, None, specs, engine="numpy")
    with pytest.raises(InputError, match="size must be a whole number"):
        nn.MaskedSelect(0)
