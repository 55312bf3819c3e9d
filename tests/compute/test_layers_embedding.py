"""Embeddings against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from layer_check import check_layer

import compute
from compute import InputError, TensorSpec, nn
from compute.nn.embedding import add_rows
from compute.philox import Stream

functional = torch.nn.functional


def ids(*shape: int) -> TensorSpec:
    return TensorSpec(shape, "int64")


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 4)])
@pytest.mark.parametrize("padding_idx", [None, 0, -1])
@pytest.mark.parametrize("sparse", [False, True])
def test_embedding(shape: tuple[int, ...], padding_idx: int | None, sparse: bool) -> None:
    layer = nn.Embedding(5, 3, padding_idx=padding_idx, sparse=sparse)
    check_layer(
        layer,
        [ids(*shape)],
        lambda x, weight: functional.embedding(x, weight, padding_idx),
        integers=5,
        batch=4,
    )


@pytest.mark.parametrize(("count", "dim", "bags"), [(1, 1, 1), (1000, 17, 501), (3, 64, 1000)])
def test_embedding_sizes(count: int, dim: int, bags: int) -> None:
    check_layer(nn.Embedding(count, dim), [ids(bags)], lambda x, weight: weight[x], integers=count, batch=2)


def test_tied_output_layer() -> None:
    """One object looks up and scores; its gradient is the sum of both."""
    tokens = nn.Input()
    embedding = nn.Embedding(11, 6, name="tied")
    model = nn.Graph(tokens, embedding(nn.Tanh()(embedding(tokens))))

    check_layer(
        model,
        [ids(5)],
        lambda x, tied_weight: functional.linear(torch.tanh(tied_weight[x]), tied_weight),
        integers=11,
    )
    check_layer(nn.Embedding(4, 3), [(2, 3)], lambda x, weight: functional.linear(x, weight))


def shortened(rows: torch.Tensor, limit: float, p: float) -> torch.Tensor:
    norms = rows.norm(p, dim=-1, keepdim=True)
    return torch.where(norms > limit, rows * limit / (norms + 1e-7), rows)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("limit", [0.7, 1.6, 100.0])
def test_max_norm(limit: float, norm_type: float) -> None:
    """No row, some rows, all rows are too long."""
    layer = nn.Embedding(7, 5, padding_idx=2, max_norm=limit, norm_type=norm_type)

    def reference(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return shortened(functional.embedding(x, weight, 2), limit, norm_type)

    check_layer(layer, [ids(3, 4)], reference, integers=7)
    check_layer(
        nn.EmbeddingBag(7, 5, mode="sum", max_norm=limit, norm_type=norm_type),
        [ids(4), (4,)],
        lambda x, w, weight: (shortened(weight[x], limit, norm_type) * w[:, :, None]).sum(1),
        integers=7,
    )


def test_max_norm_looks_up_what_torch_does() -> None:
    weight = np.random.default_rng(0).standard_normal((6, 4), dtype=np.float32)
    program = compute.compile(nn.Embedding(6, 4, max_norm=1.5), None, ids(6), engine="numpy")
    program.parameters[:] = weight.ravel()
    found = program.forward(np.arange(6)[None])[0]
    np.testing.assert_allclose(
        found, functional.embedding(torch.arange(6), torch.tensor(weight), max_norm=1.5), rtol=1e-6
    )
    np.testing.assert_array_equal(program.parameters, weight.ravel())


def test_wrong_max_norm() -> None:
    for kind in (nn.Embedding, nn.EmbeddingBag):
        with pytest.raises(InputError, match="max_norm must be a positive number, got 0"):
            kind(2, 2, max_norm=0)
        with pytest.raises(InputError, match="norm_type must be a positive number"):
            kind(2, 2, max_norm=1.0, norm_type=float("inf"))
    with pytest.raises(InputError, match="with max_norm it is no output layer"):
        compute.compile(nn.Embedding(3, 2, max_norm=1.0), None, (2,), engine="numpy")


@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize("padding_idx", [None, 2])
def test_bags_as_in_torch(mode: str, padding_idx: int | None) -> None:
    for bag in (1, 6):
        check_layer(
            nn.EmbeddingBag(7, 3, mode=mode, padding_idx=padding_idx),
            [ids(bag)],
            lambda x, weight: functional.embedding_bag(x, weight, mode=mode, padding_idx=padding_idx),
            integers=7,
            batch=5,
        )


@pytest.mark.parametrize("mode", ["sum", "mean", "sqrtn"])
def test_weighted_bags(mode: str) -> None:
    def reference(x: torch.Tensor, w: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        w = w * (x != 1)
        y = (weight[x] * w[:, :, None]).sum(1)
        return y / {"sum": 1.0, "mean": w.sum(1)[:, None], "sqrtn": (w * w).sum(1).sqrt()[:, None]}[mode]

    rng = np.random.default_rng(0)
    data = (rng.integers(2, 6, (4, 5)), rng.random((4, 5), dtype=np.float32) + np.float32(0.1))
    data[0][0, 2:4] = 1
    check_layer(nn.EmbeddingBag(6, 3, mode=mode, padding_idx=1), [ids(5), (5,)], reference, data=data)


def test_weighted_sum_as_in_torch() -> None:
    check_layer(
        nn.EmbeddingBag(6, 3, mode="sum"),
        [ids(5), (5,)],
        lambda x, w, weight: functional.embedding_bag(x, weight, mode="sum", per_sample_weights=w),
        integers=6,
    )


@pytest.mark.parametrize("mode", ["sum", "mean", "sqrtn"])
def test_empty_bags_are_zero(mode: str) -> None:
    model = nn.EmbeddingBag(4, 3, mode=mode, padding_idx=0)
    program = compute.compile(model, nn.NLLLoss(), ids(2), engine="numpy")
    program.parameters.fill(1.0)
    out = program.forward(np.array([[0, 0], [0, 1]]))
    assert (out[0] == 0).all()
    assert (out[1] == 1).all()
    program.forward_backward(np.array([[0, 0]]), np.array([1]), 1.0)
    assert (program.gradients == 0).all()


def test_start_values() -> None:
    weight = nn.Embedding(2000, 50, padding_idx=3).parameters(())[0].initializer((2000, 50), Stream("x", 1))
    assert (weight[3] == 0).all()
    assert abs(weight.mean()) < 0.02
    assert weight.std() == pytest.approx(1, abs=0.02)


def test_add_rows_is_exact_and_touches_used_rows_only() -> None:
    rng = np.random.default_rng(1)
    index = rng.integers(0, 50, 400) * 2
    rows = rng.integers(-8, 8, (400, 3)).astype(np.float32)
    expected = np.zeros((100, 3), dtype=np.float32)
    np.add.at(expected, index, rows)
    target = np.zeros_like(expected)
    target[1::2] = np.nan
    add_rows(target, index, rows)
    np.testing.assert_array_equal(target[::2], expected[::2])
    assert np.isnan(target[1::2]).all()


def test_wrong_ids_name_layer_place_and_value() -> None:
    model = nn.Sequential(nn.Embedding(4, 2, name="words"), nn.Flatten(), nn.LogSoftmax())
    program = compute.compile(model, nn.NLLLoss(), ids(3), engine="numpy")
    for bad in (4, -1, 2**62):
        tokens = np.zeros((2, 3), dtype=np.int64)
        tokens[1, 2] = bad
        message = rf"layer words \(Embedding\): id {bad} in sample 1 of the batch at position 2 is not in 0..3"
        with pytest.raises(InputError, match=message):
            program.forward(tokens)
    with pytest.raises(InputError, match=r"layer words \(Embedding\) cannot take float32 \(3\): needs int64 ids"):
        compute.compile(model, nn.NLLLoss(), (3,), engine="numpy")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_embeddings": 0, "embedding_dim": 2}, "num_embeddings must be a whole number"),
        ({"num_embeddings": 2, "embedding_dim": 2, "padding_idx": 2}, r"padding_idx must be None or in -2..1"),
    ],
)
def test_wrong_arguments(arguments: dict[str, int], message: str) -> None:
    for kind in (nn.Embedding, nn.EmbeddingBag):
        with pytest.raises(InputError, match=message):
            kind(**arguments)
    with pytest.raises(InputError, match="mode must be one of mean, sum, sqrtn"):
        nn.EmbeddingBag(2, 2, mode="max")
    with pytest.raises(InputError, match=r"needs int64 ids \(bag,\)"):
        compute.compile(nn.EmbeddingBag(2, 2), nn.NLLLoss(), (3,), engine="numpy")
