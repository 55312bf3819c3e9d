"""Attention and its parts against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from layer_check import check_layer

import compute
from compute import InputError, TensorSpec, nn
from compute.nn.layer import LayerContext, Pass

functional = torch.nn.functional
Tensor = torch.Tensor
LENGTHS = TensorSpec((), "int64")
ZERO = 2e-6
"""Of the gradient of the bias of the keys, which is 0: it adds the same to all of a query's scores."""


def whole(*shape: int) -> TensorSpec:
    return TensorSpec(shape, "int64")


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def split(x: Tensor, heads: int) -> Tensor:
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    parts = [split(x, heads) for x in (q, k, v)]
    y = functional.scaled_dot_product_attention(*parts, attn_mask=mask, is_causal=causal)
    return y.transpose(1, 2).flatten(2)


@pytest.mark.parametrize(
    ("heads", "queries", "keys", "size", "value_size"),
    [(1, 1, 1, 1, 1), (1, 3, 5, 4, 2), (2, 4, 4, 6, 6), (3, 7, 2, 9, 3), (4, 17, 33, 16, 8)],
)
@pytest.mark.parametrize("causal", [False, True])
def test_core(heads: int, queries: int, keys: int, size: int, value_size: int, causal: bool) -> None:
    check_layer(
        nn.ScaledDotProductAttention(heads, causal=causal),
        [(queries, size), (keys, size), (keys, value_size)],
        lambda q, k, v: attention(q, k, v, heads, causal=causal),
    )


def test_lengths() -> None:
    lengths = np.array([5, 1, 3])

    def reference(q: Tensor, k: Tensor, v: Tensor, given: Tensor) -> Tensor:
        return attention(q, k, v, 2, (torch.arange(5) < given[:, None])[:, None, None])

    data = [normal(3, 4, 6), normal(3, 5, 6, seed=1), normal(3, 5, 2, seed=2), lengths]
    check_layer(nn.ScaledDotProductAttention(2), [(4, 6), (5, 6), (5, 2), LENGTHS], reference, data=data)


def test_whole_masks_together_with_causal() -> None:
    rng = np.random.default_rng(0)
    padding, pairs = rng.integers(0, 2, (3, 4)), rng.integers(0, 2, (3, 4, 4))
    padding[:, 0] = 0
    pairs[:, :, 0] = 0

    def reference(q: Tensor, k: Tensor, v: Tensor, padding: Tensor, pairs: Tensor) -> Tensor:
        kept = (padding == 0)[:, None, None] & (pairs == 0)[:, None] & torch.ones(4, 4, dtype=torch.bool).tril()
        return attention(q, k, v, 2, kept)

    check_layer(
        nn.ScaledDotProductAttention(2, causal=True),
        [(4, 6), (4, 6), (4, 2), whole(4), whole(4, 4)],
        reference,
        data=[normal(3, 4, 6), normal(3, 4, 6, seed=1), normal(3, 4, 2, seed=2), padding, pairs],
    )


@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 4, 5)])
def test_added_masks_have_gradients(shape: tuple[int, ...]) -> None:
    def reference(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return attention(q, k, v, 2, mask.reshape(len(q), *(1,) * (4 - mask.ndim), *shape).expand(-1, 2, 4, 5))

    check_layer(nn.ScaledDotProductAttention(2), [(4, 6), (5, 6), (5, 2), shape], reference)


def test_infinite_masks() -> None:
    mask = np.where(np.random.default_rng(0).random((3, 4, 5)) < 0.4, -np.inf, 0).astype(np.float32)
    mask[:, :, 0] = 0
    check_layer(
        nn.ScaledDotProductAttention(2),
        [(4, 6), (5, 6), (5, 2), (4, 5)],
        lambda q, k, v, mask: attention(q, k, v, 2, mask[:, None]),
        data=[normal(3, 4, 6), normal(3, 5, 6, seed=1), normal(3, 5, 2, seed=2), mask],
    )


def test_weights_are_an_output_with_a_gradient() -> None:
    def reference(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
        weights = torch.softmax(split(q, 2) @ split(k, 2).transpose(2, 3) / 3**0.5, 3)
        return [(weights @ split(v, 2)).transpose(1, 2).flatten(2), weights]

    check_layer(nn.ScaledDotProductAttention(2, return_weights=True), [(4, 6), (5, 6), (5, 2)], reference)


def test_a_query_without_keys_gives_zero() -> None:
    layer = nn.ScaledDotProductAttention()
    context = LayerContext(0, Pass(), (True,) * 4, {})
    inputs = (normal(1, 2, 3), normal(1, 2, 3), normal(1, 2, 3), np.array([[[1, 1], [0, 1]]]))
    (y,) = layer.forward_many(inputs, {}, context)
    assert (y[0, 0] == 0).all()
    np.testing.assert_array_equal(y[0, 1], inputs[2][0, 0])
    for grad in layer.backward_many(inputs, (y,), (np.ones_like(y),), {}, {}, context)[:3]:
        assert grad is not None
        assert np.isfinite(grad).all()


def test_large_scores_do_not_overflow() -> None:
    context = LayerContext(0, Pass(), (True,) * 3, {})
    inputs = tuple(1e4 * normal(2, 3, 4, seed=i) for i in range(3))
    (y,) = nn.ScaledDotProductAttention(2).forward_many(inputs, {}, context)
    assert np.isfinite(y).all()


def test_dropout_of_weights() -> None:
    """Training uses the mask that the layer drew, in both directions; evaluation uses none."""
    masks: list[np.ndarray] = []
    layer = nn.ScaledDotProductAttention(2, dropout=0.25)
    forward = layer.forward_many

    def spy(inputs: Any, parameters: Any, context: LayerContext) -> Any:
        outputs = forward(inputs, parameters, context)
        if context.training:
            masks[:] = [context.saved["mask"]]
        return outputs

    layer.forward_many = spy  # type: ignore[method-assign]

    def reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = torch.softmax(split(q, 2) @ split(k, 2).transpose(2, 3) / 3**0.5, 3)
        weights = weights * torch.tensor(masks[0].astype(np.float64))
        return (weights @ split(v, 2)).transpose(1, 2).flatten(2)

    check_layer(layer, [(9, 6), (9, 6), (9, 2)], reference, evaluation=False, batch=4)
    assert set(np.unique(masks[0])) == {np.float32(0), np.float32(4 / 3)}
    assert (masks[0] == 0).mean() == pytest.approx(0.25, abs=0.08)


def multihead(module: torch.nn.MultiheadAttention, weights: dict[str, Tensor], *inputs: Tensor, **masks: Any) -> Any:
    """torch's module with our weights, which are `q_proj_weight` and so on."""
    own = {name.replace("out_proj_", "out_proj."): w for name, w in weights.items() if name.startswith("out_proj")}
    parts = [weights[f"{part}_proj_weight"] for part in "qkv"]
    if module._qkv_same_embed_dim:
        own["in_proj_weight"] = torch.cat(parts)
    else:
        own |= {f"{part}_proj_weight": w for part, w in zip("qkv", parts, strict=True)}
    if "q_proj_bias" in weights:
        own["in_proj_bias"] = torch.cat([weights[f"{part}_proj_bias"] for part in "qkv"])
    return torch.func.functional_call(module, own, inputs, masks)


@pytest.mark.parametrize("bias", [True, False])
def test_multihead_attention_to_itself(bias: bool) -> None:
    twin = torch.nn.MultiheadAttention(6, 3, bias=bias, batch_first=True).double()
    check_layer(
        nn.MultiheadAttention(6, 3, bias=bias),
        [(5, 6)],
        lambda x, **w: multihead(twin, w, x, x, x)[0],
        atol=ZERO,
    )


def test_multihead_attention_to_others() -> None:
    """Keys and values of other sizes; a padding mask and an added mask, and the weights."""
    twin = torch.nn.MultiheadAttention(6, 3, kdim=4, vdim=5, batch_first=True).double()
    padding = np.array([[0, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0]])

    def reference(q: Tensor, k: Tensor, v: Tensor, padding: Tensor, added: Tensor, **w: Tensor) -> Any:
        masks = {"key_padding_mask": torch.where(padding > 0, -torch.inf, 0.0).double()}
        masks["attn_mask"] = added.repeat_interleave(3, 0)
        return multihead(twin, w, q, k, v, average_attn_weights=False, **masks)

    check_layer(
        nn.MultiheadAttention(6, 3, kdim=4, vdim=5, return_weights=True),
        [(2, 6), (4, 4), (4, 5), whole(4), (2, 4)],
        reference,
        data=[normal(3, 2, 6), normal(3, 4, 4, seed=1), normal(3, 4, 5, seed=2), padding, normal(3, 2, 4, seed=3)],
        atol=ZERO,
    )


def test_start_values_are_those_of_torch() -> None:
    for options in ({}, {"kdim": 20, "vdim": 30}):
        torch.manual_seed(1)
        twin = torch.nn.MultiheadAttention(64, 4, **options)
        model = nn.MultiheadAttention(64, 4, **options)
        specs = tuple(TensorSpec((3, size)) for size in (64, options.get("kdim", 64), options.get("vdim", 64)))
        layout = compute.parameter_layout(model, specs)
        start = compute.initial_parameters(model, specs, 1)
        for info in layout:
            ours = start[info.offset : info.offset + info.size]
            name = info.name
            if name.endswith("bias"):
                assert (ours == 0).all()
                continue
            theirs = dict(twin.named_parameters())[
                name if name == "out_proj.weight" else name.replace(".", "_") if options else "in_proj_weight"
            ]
            bound = float(theirs.abs().max().detach())
            assert np.abs(ours).max() == pytest.approx(bound, rel=0.01)
            assert ours.std() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_wrong_shapes_and_arguments() -> None:
    def error(layer: nn.Module, *specs: TensorSpec) -> str:
        with pytest.raises(InputError) as caught:
            compute.compile(layer, nn.NLLLoss(), specs, engine="numpy")
        return str(caught.value)

    q, k = TensorSpec((4, 6)), TensorSpec((5, 6))
    core = nn.ScaledDotProductAttention(2, name="core")
    assert "core (ScaledDotProductAttention)" in error(core, q, k)
    assert "needs a table of queries, keys and values" in error(core, q, k)
    assert "as many keys as values" in error(core, q, k, q)
    assert "divided by the number of heads, 4" in error(nn.ScaledDotProductAttention(4), q, k, k)
    assert "mask 0 must be int64 (), (5) or (4, 5), or float32" in error(core, q, k, k, TensorSpec((4,), "int64"))
    assert "takes one sequence, or a table of query, key, value" in error(nn.MultiheadAttention(6, 2), q, k)
    with pytest.raises(InputError, match="embed_dim 6 cannot be divided by num_heads 4"):
        nn.MultiheadAttention(6, 4)
    with pytest.raises(InputError, match="probability p must be"):
        nn.ScaledDotProductAttention(dropout=1.0)


@pytest.mark.parametrize("shape", [(1, 1), (5, 8), (7, 5)])
def test_positions(shape: tuple[int, int]) -> None:
    times, size = shape

    def reference(x: Tensor) -> Tensor:
        y = torch.empty(shape, dtype=torch.float64)
        for t in range(times):
            for i in range(size):
                angle = torch.tensor(t / 10000 ** ((i - i % 2) / size), dtype=torch.float64)
                y[t, i] = torch.cos(angle) if i % 2 else torch.sin(angle)
        return 3 * x + y

    check_layer(nn.PositionalEncoding(3.0), [shape], reference)
    layer = nn.LearnedPositionalEncoding(7, size)
    check_layer(layer, [shape], lambda x, weight: x + weight[:times])
    with pytest.raises(InputError, match="at most 7 times"):
        compute.compile(layer, nn.NLLLoss(), (8, size), engine="numpy")
