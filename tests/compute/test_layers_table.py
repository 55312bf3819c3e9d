"""Layers on tables, and products and distances between their parts, against PyTorch."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from layer_check import check_layer

import compute
from compute import InputError, TensorSpec, nn
from compute.graph import build_graph

functional = torch.nn.functional
Reference = Callable[..., Any]


def product(*parts: torch.Tensor) -> torch.Tensor:
    return functools.reduce(operator.mul, parts)


def mean(*parts: torch.Tensor) -> torch.Tensor:
    return sum(parts[1:], parts[0]) / len(parts)


def largest(*parts: torch.Tensor) -> torch.Tensor:
    return functools.reduce(torch.maximum, parts)


def smallest(*parts: torch.Tensor) -> torch.Tensor:
    return functools.reduce(torch.minimum, parts)


def distinct(shapes: list[tuple[int, ...]], batch: int) -> list[np.ndarray]:
    """Parts without equal values, all of which bfloat16 has."""
    counts = [batch * math.prod(shape) for shape in shapes]
    values = np.random.default_rng(batch).permutation(sum(counts)).astype(np.float32) / 32 - np.float32(2)
    parts = np.split(values, np.cumsum(counts)[:-1])
    return [part.reshape(batch, *shape) for part, shape in zip(parts, shapes, strict=True)]


@pytest.mark.parametrize(
    ("layer", "reference"),
    [
        (nn.CAddTable(), lambda *parts: sum(parts[1:], parts[0])),
        (nn.CAveTable(), mean),
        (nn.CMulTable(), product),
        (nn.CMaxTable(), largest),
        (nn.CMinTable(), smallest),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
@pytest.mark.parametrize(
    "shapes",
    [[(3,)], [(3, 4), (3, 4)], [(2, 3, 4), (1, 3, 1), (2, 1, 4)], [(4,), (4,), (4,), (4,)], [(1,), (1, 5)]],
    ids=str,
)
def test_combinations_of_any_number(layer: nn.Module, reference: Reference, shapes: list[tuple[int, ...]]) -> None:
    rank = max(map(len, shapes))

    def aligned(*parts: torch.Tensor) -> torch.Tensor:
        """Samples broadcast among each other, so missing dimensions go behind the batch's."""
        padded = [part.reshape(len(part), *(1,) * (rank + 1 - part.ndim), *part.shape[1:]) for part in parts]
        result: torch.Tensor = reference(*torch.broadcast_tensors(*padded))
        return result

    for batch in (1, 2, 5):  # 2: a batch that could be taken for a dimension of the samples
        check_layer(layer, shapes, aligned, data=distinct(shapes, batch), seed=batch)


@pytest.mark.parametrize("shapes", [[(3,), (3,)], [(2, 3), (3,)], [(1,), (4, 1)], [(2, 1, 3), (2, 4, 1)]], ids=str)
def test_difference_and_quotient(shapes: list[tuple[int, ...]]) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.uniform(0.5, 2, (2, *shape)).astype(np.float32) for shape in shapes)
    rank = max(map(len, shapes))

    def aligned(function: Reference) -> Reference:
        return lambda *parts: function(
            *(part.reshape(2, *(1,) * (rank + 1 - part.ndim), *part.shape[1:]) for part in parts)
        )

    check_layer(nn.CSubTable(), shapes, aligned(torch.sub), data=[a, b])
    check_layer(nn.CDivTable(), shapes, aligned(torch.div), data=[a, -b])


def test_the_gradient_of_equal_parts_goes_to_the_first() -> None:
    x = np.zeros((1, 2), dtype=np.float32)
    for layer in (nn.CMaxTable(), nn.CMinTable()):
        grads = layer.backward_many((x, x), (x,), (x + 3,), {}, {}, None)  # type: ignore[arg-type]
        assert [g.tolist() for g in grads if g is not None] == [[[3.0, 3.0]], [[0.0, 0.0]]]


def test_products_with_zeros_have_the_right_gradient() -> None:
    x = np.array([[0.0, 1.0, 2.0]], dtype=np.float32)
    check_layer(nn.CMulTable(), [(3,), (3,), (3,)], product, data=[x, x[:, ::-1].copy(), x])


def test_combinations_refuse_what_does_not_fit() -> None:
    with pytest.raises(InputError, match="do not broadcast"):
        build_graph(nn.CMulTable(), (TensorSpec((3,)), TensorSpec((4,))))
    with pytest.raises(InputError, match=r"takes 2 input\(s\) and is given 3"):
        build_graph(nn.CSubTable(), (TensorSpec((3,)),) * 3)


@pytest.mark.parametrize("dim", [0, 1, -1, -2])
def test_join_and_pack(dim: int) -> None:
    torch_dim = dim + 1 if dim >= 0 else dim
    shapes = [(2, 3), (2, 5)] if dim in (1, -1) else [(1, 3), (4, 3)]
    check_layer(nn.JoinTable(dim), shapes, lambda *parts: torch.cat(parts, torch_dim))
    check_layer(nn.Pack(dim), [(2, 3)] * 3, lambda *parts: torch.stack(parts, torch_dim))
    check_layer(nn.Pack(dim), [TensorSpec((2, 3), "int64")] * 2, lambda *parts: torch.stack(parts, torch_dim))
    check_layer(nn.JoinTable(dim), [TensorSpec((2, 3), "int64")] * 2, lambda *parts: torch.cat(parts, torch_dim))
    with pytest.raises(InputError, match="all float32 or all int64"):
        build_graph(nn.JoinTable(dim), (TensorSpec((2, 3), "int64"), TensorSpec((2, 3))))
    with pytest.raises(InputError, match="one shape"):
        build_graph(nn.Pack(dim), (TensorSpec((2, 3)), TensorSpec((2, 4))))


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_split(dim: int, dtype: str) -> None:
    torch_dim = dim + 1 if dim >= 0 else dim
    for shape in ((2, 3), (5, 4), (3, 2)):
        spec = TensorSpec(shape, dtype)
        check_layer(nn.SplitTable(dim), [spec], lambda x: torch.unbind(x, torch_dim))

        def halves(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            size = x.shape[torch_dim]
            return torch.split(x, [size // 2, size - size // 2], torch_dim)

        check_layer(nn.BifurcateSplitTable(dim), [spec], halves)
    with pytest.raises(InputError, match="cannot halve"):
        build_graph(nn.BifurcateSplitTable(0), (1, 3))


def test_a_split_of_one_slice_is_a_table() -> None:
    check_layer(nn.Sequential(nn.SplitTable(0), nn.SelectTable(0)), [(1, 4)], lambda x: x[:, 0])


def test_containers_of_layers_with_weights() -> None:
    linear = torch.nn.functional.linear
    check_layer(
        nn.Concat(nn.Tanh(), nn.Linear(4, 5), dim=1),
        [(3, 4)],
        lambda x, linear_1_weight, linear_1_bias: torch.cat([x.tanh(), linear(x, linear_1_weight, linear_1_bias)], 2),
    )
    check_layer(
        nn.Bottle(nn.Linear(4, 2)),
        [(3, 4)],
        lambda x, linear_weight, linear_bias: linear(x, linear_weight, linear_bias),
    )


def test_modules_that_rearrange_tables() -> None:
    three = [(2,), (3,), (4,)]
    for index in (0, 2, -1):
        check_layer(
            nn.Sequential(nn.ParallelTable(nn.Tanh(), nn.Tanh(), nn.Tanh()), nn.SelectTable(index)),
            three,
            lambda *parts, i=index: torch.tanh(parts[i]),
        )
    for offset, length, part in ((0, 2, slice(0, 2)), (1, -1, slice(1, 3)), (-2, 1, slice(1, 2)), (0, -2, slice(0, 2))):
        check_layer(
            nn.Sequential(nn.MapTable(nn.Tanh()), nn.NarrowTable(offset, length)),
            three,
            lambda *parts, p=part: [torch.tanh(x) for x in parts[p]],
        )
    nested = nn.Sequential(
        nn.ConcatTable(nn.Tanh(), nn.ConcatTable(nn.ReLU(), nn.ConcatTable(nn.Abs()))),
        nn.FlattenTable(),
        nn.JoinTable(),
    )
    check_layer(nested, [(3,)], lambda x: torch.cat([torch.tanh(x), torch.relu(x), x.abs()], 1))
    for module, message in (
        (nn.SelectTable(3), "there is no part 3 in a table of 3"),
        (nn.NarrowTable(1, 3), "a table of 3 has no 3 parts from 1 on"),
    ):
        with pytest.raises(InputError, match=message):
            build_graph(nn.Sequential(nn.ConcatTable(nn.Tanh(), nn.Tanh(), nn.Tanh()), module), (4,))
    with pytest.raises(InputError, match="FlattenTable takes a table"):
        build_graph(nn.Sequential(nn.Tanh(), nn.FlattenTable()), (4,))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)], ids=str)
def test_mixture_of_experts(shape: tuple[int, ...]) -> None:
    def mixture(gate: torch.Tensor, *experts: torch.Tensor) -> torch.Tensor:
        return sum(gate[:, i].reshape(-1, *(1,) * len(shape)) * expert for i, expert in enumerate(experts))  # type: ignore[return-value]

    check_layer(nn.MixtureTable(), [(4,), *[shape] * 4], mixture)
    check_layer(nn.MixtureTable(), [(4,), (4, *shape)], lambda gate, stack: mixture(gate, *stack.unbind(1)))
    check_layer(nn.MixtureTable(), [(1,), (1, *shape)], lambda gate, stack: mixture(gate, *stack.unbind(1)))
    check_layer(nn.MixtureTable(), [(4,), *[shape] * 4], mixture, batch=4)
    experts = nn.ConcatTable(*(nn.Linear(5, 3, bias=False) for _ in range(4)))
    whole = nn.Sequential(
        nn.ConcatTable(nn.Sequential(nn.Linear(5, 4), nn.Softmax()), experts), nn.MixtureTable(), nn.Tanh()
    )
    assert build_graph(whole, (5,)).output_specs[0].shape == (3,)
    with pytest.raises(InputError, match="k experts of one shape"):
        build_graph(nn.MixtureTable(), (TensorSpec((3,)), TensorSpec((4,)), TensorSpec((4,))))


@pytest.mark.parametrize(("trans_a", "trans_b"), [(False, False), (True, False), (False, True), (True, True)])
def test_matrix_products(trans_a: bool, trans_b: bool) -> None:
    def turned(x: torch.Tensor, turn: bool) -> torch.Tensor:
        return x.transpose(-1, -2) if turn else x

    for m, k, n, lead in ((3, 4, 5, ()), (1, 1, 1, ()), (2, 6, 1, (3,)), (1, 2, 3, (2, 2))):
        a, b = (k, m) if trans_a else (m, k), (n, k) if trans_b else (k, n)
        check_layer(
            nn.MM(trans_a, trans_b),
            [(*lead, *a), (*lead, *b)],
            lambda x, y: torch.matmul(turned(x, trans_a), turned(y, trans_b)),
        )
        check_layer(
            nn.MV(trans_a),
            [(*lead, *a), (*lead, k)],
            lambda x, y: torch.matmul(turned(x, trans_a), y[..., None])[..., 0],
        )
    with pytest.raises(InputError, match="cannot multiply"):
        nn.MM(trans_a, trans_b).output_shape((2, 3), (5, 4))
    with pytest.raises(InputError, match="needs two matrices"):
        nn.MM().output_shape((2, 3), (5,))
    with pytest.raises(InputError, match=r"cannot multiply \(3, 2\)"):
        nn.MV(True).output_shape((2, 3), (3,))


@pytest.mark.parametrize("shape", [(4,), (1,), (3, 4), (2, 3, 1)], ids=str)
def test_dot_products_and_distances(shape: tuple[int, ...]) -> None:
    pair = [shape, shape]
    check_layer(nn.DotProduct(), pair, lambda a, b: (a * b).sum(-1))
    for dim in range(-len(shape), len(shape)):
        torch_dim = dim + 1 if dim >= 0 else dim
        check_layer(nn.CosineSimilarity(dim), pair, torch.nn.CosineSimilarity(torch_dim), atol=1e-6)
    for p in (1.0, 2.0, 3.5, float("inf")):
        for keepdim in (False, True):
            check_layer(nn.PairwiseDistance(p, 1e-6, keepdim), pair, torch.nn.PairwiseDistance(p, 1e-6, keepdim))
        check_layer(nn.PairwiseDistance(p), pair, torch.nn.PairwiseDistance(p), scale=1e4)
    for layer in (nn.DotProduct(), nn.CosineSimilarity(), nn.PairwiseDistance()):
        with pytest.raises(InputError, match="needs two of one shape"):
            layer.output_shape(shape, (*shape, 2))


def test_vectors_of_length_zero() -> None:
    zero, one = np.zeros((2, 3), dtype=np.float32), np.ones((2, 3), dtype=np.float32)
    check_layer(nn.CosineSimilarity(), [(3,), (3,)], torch.nn.CosineSimilarity(1), data=[zero, one], rtol=1e-4)
    check_layer(nn.PairwiseDistance(eps=0.0), [(3,), (3,)], torch.nn.PairwiseDistance(eps=0.0), data=[one, one])
    check_layer(nn.Cosine(3, 2), [(3,)], cosine, data=[zero])


@pytest.mark.parametrize("count", [2, 3, 5])
def test_cross_product(count: int) -> None:
    def reference(*parts: torch.Tensor) -> torch.Tensor:
        pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
        return torch.stack([(parts[i] * parts[j]).sum(1) for i, j in pairs], 1)

    check_layer(nn.CrossProduct(), [(4,)] * count, reference)
    check_layer(nn.CrossProduct(), [(1,)] * count, reference, batch=1)
    with pytest.raises(InputError, match="at least two vectors"):
        nn.CrossProduct().output_shape((3,))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lead", [(), (3,), (2, 1)], ids=str)
def test_bilinear(bias: bool, lead: tuple[int, ...]) -> None:
    for sizes in ((3, 4, 5), (1, 1, 1), (2, 7, 1)):
        check_layer(
            nn.Bilinear(*sizes, bias=bias),
            [(*lead, sizes[0]), (*lead, sizes[1])],
            lambda a, b, weight, bias=None: functional.bilinear(a, b, weight, bias),
        )
    with pytest.raises(InputError, match=r"needs \(\.\.\., 3\) and \(\.\.\., 4\)"):
        nn.Bilinear(3, 4, 5).output_shape((3,), (5,))


def cosine(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    def unit(v: torch.Tensor) -> torch.Tensor:
        return v / v.norm(dim=-1, keepdim=True).clamp(min=1e-12)

    return unit(x) @ unit(weight).T


def euclidean(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (x[..., None, :] - weight).norm(dim=-1)


@pytest.mark.parametrize("lead", [(), (3,), (2, 2)], ids=str)
def test_learnt_directions_and_centres(lead: tuple[int, ...]) -> None:
    for size, count in ((4, 3), (1, 1), (7, 2)):
        for scale in (1.0, 1e4):
            check_layer(nn.Cosine(size, count), [(*lead, size)], cosine, scale=scale, atol=1e-6)
            check_layer(nn.Euclidean(size, count), [(*lead, size)], euclidean, scale=scale)
    with pytest.raises(InputError, match=r"needs \(\.\.\., 4\)"):
        nn.Cosine(4, 3).output_shape((5,))


def test_distance_zero_has_gradient_zero() -> None:
    layer = nn.Euclidean(2, 1)
    x, weight = np.ones((1, 2), dtype=np.float32), np.ones((1, 2), dtype=np.float32)
    gradients = {"weight": np.zeros((1, 2), dtype=np.float32)}
    y = layer.forward(x, {"weight": weight}, None)  # type: ignore[arg-type]
    grad = layer.backward(x, y, np.ones_like(y), {"weight": weight}, gradients, None)  # type: ignore[arg-type]
    assert y == 0
    assert not grad.any()
    assert not gradients["weight"].any()


@pytest.mark.parametrize("bias", [True, False])
def test_highway(bias: bool) -> None:
    def reference(x: torch.Tensor, **p: torch.Tensor) -> torch.Tensor:
        h = torch.relu(functional.linear(x, p["transform_weight"], p.get("transform_bias")))
        t = torch.sigmoid(functional.linear(x, p["gate_weight"], p.get("gate_bias")))
        return t * h + (1 - t) * x

    check_layer(nn.Highway(4, bias, nn.ReLU()), [(4,)], reference)
    check_layer(nn.Highway(4, bias, nn.ReLU()), [(3, 4)], reference)
    names = [p.name for p in compute.parameter_layout(nn.Sequential(nn.Highway(4, bias), nn.Highway(4, bias)), (4,))]
    assert len(set(names)) == 8 if bias else 4


def bag(
    ids: torch.Tensor, values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | float = 0.0
) -> torch.Tensor:
    rows = weight[ids.clamp(min=0)] * (ids >= 0)[..., None]
    return (rows * values[..., None]).sum(1) + bias


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("features", "out", "count"), [(7, 3, 5), (1, 1, 1), (50, 4, 9)])
def test_sparse_linear(bias: bool, features: int, out: int, count: int) -> None:
    rng = np.random.default_rng(count)
    layer = nn.SparseLinear(features, out, bias)
    specs = [TensorSpec((count,), "int64"), TensorSpec((count,))]
    for batch in (1, 6):
        ids = rng.integers(-1, features, (batch, count))  # padding and repetitions
        values = rng.standard_normal((batch, count), dtype=np.float32)
        check_layer(layer, specs, bag, data=[ids, values])
        check_layer(layer, specs[:1], lambda i, **p: bag(i, torch.ones(i.shape, dtype=torch.float64), **p), data=[ids])
    empty = np.full((2, count), -1)
    check_layer(layer, specs, bag, data=[empty, np.ones((2, count), dtype=np.float32)])
    dense = np.zeros((6, features), dtype=np.float32)
    for row, i, v in zip(dense, ids, values, strict=True):
        np.add.at(row, i[i >= 0], v[i >= 0])
    weight = rng.standard_normal((features, out), dtype=np.float32)
    parameters = {"weight": weight, "bias": np.zeros(out, dtype=np.float32)}
    np.testing.assert_allclose(
        layer.forward_many((ids, values), parameters, None)[0],  # type: ignore[arg-type]
        dense @ weight,
        rtol=1e-4,
        atol=1e-5,
    )


def test_sparse_layers_refuse_wrong_ids_and_types() -> None:
    ids, values = np.array([[0, 7]]), np.ones((1, 2), dtype=np.float32)
    parameters = {"weight": np.ones((7, 1), dtype=np.float32), "bias": np.ones(1, dtype=np.float32)}
    with pytest.raises(InputError, match=r"id 7 is not in 0\.\.6, nor -1 for padding"):
        nn.SparseLinear(7, 1).forward_many((ids, values), parameters, None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"id -2 is not in 0\.\.6"):
        nn.SparseLinear(7, 1).forward_many((ids - 2, values), parameters, None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"id 7 is not in 0\.\.6"):
        nn.SparseJoinTable(7).forward_many((ids, values), {}, None)  # type: ignore[arg-type]
    for specs in ((TensorSpec((3,)), TensorSpec((3,))), (TensorSpec((3,), "int64"), TensorSpec((4,)))):
        with pytest.raises(InputError, match="needs 1 x ids"):
            build_graph(nn.SparseLinear(7, 1), specs)


def test_sparse_join() -> None:
    rng = np.random.default_rng(0)
    ids = [rng.integers(-1, size, (4, k)) for size, k in ((3, 2), (5, 3))]
    values = [rng.standard_normal(i.shape, dtype=np.float32) for i in ids]
    specs = [TensorSpec((2,), "int64"), TensorSpec((2,)), TensorSpec((3,), "int64"), TensorSpec((3,))]

    def joined(i: torch.Tensor, v: torch.Tensor, j: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.cat([i, torch.where(j >= 0, j + 3, -1)], 1), torch.cat([v, w], 1)

    data = [ids[0], values[0], ids[1], values[1]]
    check_layer(nn.SparseJoinTable(3, 5), specs, joined, data=data)
    check_layer(
        nn.Sequential(nn.SparseJoinTable(3, 5), nn.SparseLinear(8, 2)),
        specs,
        lambda *x, sparselinear_1_weight, sparselinear_1_bias: bag(
            *joined(*x), sparselinear_1_weight, sparselinear_1_bias
        ),
        data=data,
    )
