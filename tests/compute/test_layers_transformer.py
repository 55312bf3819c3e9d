"""Transformers against PyTorch's with the same weights; loading of PyTorch's weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from layer_check import check_layer

import compute
from compute import InputError, TensorSpec, nn

Tensor = torch.Tensor
LENGTHS = TensorSpec((), "int64")
ZERO = 3e-6
"""Of the gradient of the bias of the keys, which is 0: it adds the same to all of a query's scores."""

STACKED = 5e-2
"""Relative error in bf16 where a dozen kernels follow one another."""


def call(module: torch.nn.Module, weights: dict[str, Tensor], *inputs: Tensor, **options: Any) -> Any:
    """torch's module with our weights, named as check_layer does."""
    own = {}
    for name, _ in module.named_parameters():
        if "in_proj_" in name:
            prefix, kind = name.replace(".", "_").split("in_proj_")
            own[name] = torch.cat([weights[f"{prefix}{part}_proj_{kind}"] for part in "qkv"])
        else:
            own[name] = weights[name.replace(".", "_")]
    return torch.func.functional_call(module, own, inputs, options)


def causal(times: int) -> Tensor:
    return torch.full((times, times), -torch.inf, dtype=torch.float64).triu(1)


def padding(lengths: Tensor, times: int) -> Tensor:
    return torch.where(torch.arange(times) < lengths[:, None], 0.0, -torch.inf).double()


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


OPTIONS = [
    {"activation": activation, "norm_first": norm_first}
    for activation, norm_first in (("relu", False), ("gelu", False), ("relu", True), ("gelu", True))
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("is_causal", [False, True])
def test_encoder_layer(options: dict[str, Any], is_causal: bool) -> None:
    twin = torch.nn.TransformerEncoderLayer(6, 2, 10, 0.0, batch_first=True, **options).double()

    def reference(x: Tensor, lengths: Tensor, **w: Tensor) -> Tensor:
        mask = causal(5) if is_causal else None
        return call(twin, w, x, src_mask=mask, src_key_padding_mask=padding(lengths, 5))

    layer = nn.TransformerEncoderLayer(6, 2, 10, 0.0, causal=is_causal, **options)
    data = [normal(3, 5, 6), np.array([5, 1, 3])]
    check_layer(layer, [(5, 6), LENGTHS], reference, data=data, atol=ZERO, rtol=2e-5)


@pytest.mark.parametrize("options", OPTIONS)
def test_decoder_layer(options: dict[str, Any]) -> None:
    twin = torch.nn.TransformerDecoderLayer(6, 3, 10, 0.0, batch_first=True, **options).double()

    def reference(x: Tensor, memory: Tensor, memory_lengths: Tensor, lengths: Tensor, **w: Tensor) -> Tensor:
        return call(
            twin,
            w,
            x,
            memory,
            tgt_mask=causal(4),
            memory_key_padding_mask=padding(memory_lengths, 5),
            tgt_key_padding_mask=padding(lengths, 4),
        )

    check_layer(
        nn.TransformerDecoderLayer(6, 3, 10, 0.0, **options),
        [(4, 6), (5, 6), LENGTHS, LENGTHS],
        reference,
        data=[normal(3, 4, 6), normal(3, 5, 6, seed=1), np.array([5, 2, 1]), np.array([4, 1, 3])],
        atol=ZERO,
        rtol=2e-5,
        bf16=STACKED,
    )


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")  # of torch, which computes something else faster
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize(("layers", "activation", "bf16"), [((2, 3), "relu", None), ((1, 1), "gelu", STACKED)])
def test_whole_transformer(norm_first: bool, layers: tuple[int, int], activation: str, bf16: float | None) -> None:
    """In bf16 a deep one so narrow is chaotic, PyTorch's too: one ReLU that is rounded to zero changes all."""
    options = {"norm_first": norm_first, "activation": activation}
    twin = torch.nn.Transformer(8, 2, *layers, 12, 0.0, batch_first=True, **options).double()

    def reference(source: Tensor, target: Tensor, **w: Tensor) -> Tensor:
        return call(twin, w, source, target, tgt_mask=causal(3))

    layer = nn.Transformer(8, 2, *layers, 12, 0.0, **options)
    check_layer(layer, [(5, 8), (3, 8)], reference, atol=ZERO, rtol=3e-5, bf16=bf16, seed=1)


def test_encoder_without_masks_and_norm() -> None:
    twin = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(4, 1, 3, 0.0, batch_first=True), 2, enable_nested_tensor=False
    ).double()
    layer = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 1, 3, 0.0), 2)
    check_layer(layer, [(1, 4)], lambda x, **w: call(twin, w, x), atol=ZERO, rtol=2e-5)


def test_feed_forward() -> None:
    def reference(x: Tensor, **w: Tensor) -> Tensor:
        linear = torch.nn.functional.linear
        h = torch.relu(linear(x, w["linear1_weight"], w["linear1_bias"]))
        return linear(h, w["linear2_weight"], w["linear2_bias"])

    check_layer(nn.FeedForward(4, 7), [(3, 4)], reference)


def test_dropout_is_where_torch_has_it() -> None:
    """In training every layer of the graph that drops out is one that torch has; in evaluation nothing is dropped."""
    layer = nn.TransformerDecoderLayer(6, 2, 10, 0.5)
    specs = (TensorSpec((4, 6)), TensorSpec((5, 6)))
    graph = compute.graph.build_graph(layer, specs)
    names = [node.name for node in graph.nodes if isinstance(node.layer, nn.Dropout)]
    assert names == ["dropout1", "dropout2", "dropout", "dropout3"]
    attention = [node.layer.dropout for node in graph.nodes if isinstance(node.layer, nn.ScaledDotProductAttention)]
    assert attention == [0.5, 0.5]
    program = compute.compile(layer, nn.MSELoss(), specs, engine="numpy")
    program.parameters[:] = compute.initial_parameters(layer, specs, 1)
    x = (normal(2, 4, 6), normal(2, 5, 6))
    target = np.zeros((2, 4, 6), dtype=np.float32)
    losses = [program.forward_backward(x, target, 1.0, (1, 1, part)) for part in (0, 1, 0)]
    assert losses[0] == losses[2] != losses[1]
    first = program.forward(x).copy()
    assert first.tobytes() == program.forward(x).tobytes()


MODULES: dict[str, tuple[nn.Module, torch.nn.Module, tuple[tuple[int, ...], ...], Callable[..., Any]]] = {
    "lstm": (
        nn.LSTM(3, 4, 2, bidirectional=True),
        torch.nn.LSTM(3, 4, 2, bidirectional=True, batch_first=True),
        ((5, 3),),
        lambda module, x: module(x)[0],
    ),
    "attention": (
        nn.MultiheadAttention(4, 2, kdim=3, vdim=5),
        torch.nn.MultiheadAttention(4, 2, kdim=3, vdim=5, batch_first=True),
        ((5, 4), (6, 3), (6, 5)),
        lambda module, *x: module(*x)[0],
    ),
    "transformer": (
        nn.Transformer(4, 2, 1, 2, 5),
        torch.nn.Transformer(4, 2, 1, 2, 5, batch_first=True),
        ((5, 4), (3, 4)),
        lambda module, *x: module(*x, tgt_mask=causal(3).float()),
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_weights_of_torch_are_loaded(name: str) -> None:
    model, twin, shapes, run = MODULES[name]
    specs = tuple(TensorSpec(shape) for shape in shapes)
    twin.eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in twin.parameters():
            weight.copy_(torch.randn(weight.shape))
    program = compute.compile(model, nn.MSELoss(), specs, engine="numpy")
    program.parameters[:] = compute.parameters_from_torch(model, specs, twin.state_dict())
    program.parameters_changed()
    x = tuple(normal(2, *shape, seed=i) for i, shape in enumerate(shapes))
    with torch.no_grad():
        expected = run(twin, *map(torch.tensor, x)).numpy()
    np.testing.assert_allclose(program.forward(x), expected, rtol=1e-4, atol=1e-5)


def test_weights_that_do_not_fit() -> None:
    model = nn.Sequential(nn.Linear(3, 2, name="fc"))
    good = {"fc.weight": np.zeros((2, 3)), "fc.bias": np.zeros(2)}
    assert compute.parameters_from_torch(model, (3,), {**good, "bn.num_batches_tracked": np.array(1)}).shape == (8,)
    with pytest.raises(InputError, match=r"state has no bias for fc.bias; it has fc.weight"):
        compute.parameters_from_torch(model, (3,), {"fc.weight": good["fc.weight"]})
    with pytest.raises(InputError, match=r"fc.weight of PyTorch has shape \(3, 2\), fc.weight \(2, 3\)"):
        compute.parameters_from_torch(model, (3,), {**good, "fc.weight": np.zeros((3, 2))})
    with pytest.raises(InputError, match="no parameters for PyTorch's other"):
        compute.parameters_from_torch(model, (3,), {**good, "other": np.zeros(1)})


def test_wrong_inputs_and_arguments() -> None:
    def error(layer: nn.Module, *specs: TensorSpec) -> str:
        with pytest.raises(InputError) as caught:
            compute.compile(layer, nn.MSELoss(), specs, engine="numpy")
        return str(caught.value)

    x = TensorSpec((4, 6))
    assert "takes a table of two sequences and up to two masks, got 1" in error(nn.TransformerDecoderLayer(6, 2), x)
    assert "self_attn.q_proj (Linear) cannot take float32 (4, 6)" in error(nn.TransformerEncoderLayer(8, 2), x)
    with pytest.raises(InputError, match="activation must be relu or gelu"):
        nn.TransformerEncoderLayer(8, 2, activation="tanh")
    with pytest.raises(InputError, match="num_layers must be"):
        nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2), 0)
    with pytest.raises(InputError, match=r"takes a layer such as nn.TransformerEncoderLayer\(512, 8\)"):
        nn.TransformerEncoder("layer", 2)  # type: ignore[arg-type]
