"""Models of sequences: against PyTorch twins with the same weights, and that a few steps of training help."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from layer_check import check_layer

import compute
from compute import TensorSpec, models, nn
from compute.description import describe, restore

Tensor = torch.Tensor
functional = torch.nn.functional

CHAOTIC = None
"""No bound in bf16: in Transformers so narrow one rounding decides over much, in PyTorch's bf16 as well."""


def ids(*shape: int) -> TensorSpec:
    return TensorSpec(shape, "int64")


def part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}


def transformer_weights(module: torch.nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    own = {}
    for name, _ in module.named_parameters():
        if "in_proj_" in name:
            prefix, kind = name.replace(".", "_").split("in_proj_")
            own[name] = torch.cat([weights[f"{prefix}{which}_proj_{kind}"] for which in "qkv"])
        else:
            own[name] = weights[name.replace(".", "_")]
    return own


def positions(times: int, size: int) -> Tensor:
    return torch.tensor(nn.PositionalEncoding().table(times, size).astype(np.float64))


def causal(times: int) -> Tensor:
    return torch.full((times, times), -torch.inf, dtype=torch.float64).triu(1)


def lstm(size: int, hidden: int, layers: int, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    module = torch.nn.LSTM(size, hidden, layers, batch_first=True).double()
    return torch.func.functional_call(module, weights, (x,))[0]


def test_simple_rnn() -> None:
    def reference(x: Tensor, **w: Tensor) -> Tensor:
        module = torch.nn.RNN(5, 4, batch_first=True).double()
        h = torch.func.functional_call(module, part(w, "rnn_"), (x,))[0]
        return functional.linear(h, w["output_weight"], w["output_bias"])

    check_layer(models.simple_rnn(5, 4, 6), [(3, 5)], reference)


@pytest.mark.parametrize(("tied", "size"), [(False, None), (True, None), (True, 3), (False, 3)])
def test_lstm_language_model(tied: bool, size: int | None) -> None:
    def reference(x: Tensor, **w: Tensor) -> Tensor:
        h = lstm(size or 5, 5, 2, part(w, "lstm_"), w["embedding_weight"][x])
        if tied and size:
            h = functional.linear(h, w["projection_weight"], w["projection_bias"])
        return h @ w["embedding_weight"].T if tied else functional.linear(h, w["output_weight"], w["output_bias"])

    model = models.lstm_language_model(9, 5, dropout=0.0, embedding_dim=size, tied=tied)
    check_layer(model, [ids(4)], reference, integers=9)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("max_length", [None, 7])
def test_transformer_language_model(tied: bool, max_length: int | None) -> None:
    module = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(8, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True),
        2,
        torch.nn.LayerNorm(8),
        enable_nested_tensor=False,
    ).double()

    def reference(x: Tensor, **w: Tensor) -> Tensor:
        h = w["embedding_weight"][x]
        h = h + w["position_weight"][:5] if max_length else h * 8**0.5 + positions(5, 8)
        own = transformer_weights(module, part(w, "encoder_"))
        h = torch.func.functional_call(module, own, (h,), {"mask": causal(5)})
        return h @ w["embedding_weight"].T if tied else functional.linear(h, w["output_weight"], w["output_bias"])

    model = models.transformer_language_model(11, 8, 2, 2, dropout=0.0, max_length=max_length, tied=tied)
    check_layer(model, [ids(5)], reference, integers=11, atol=1e-5, rtol=2e-5, bf16=CHAOTIC)


@pytest.mark.parametrize("target_vocabulary", [None, 6])
@pytest.mark.parametrize("lengths", [True, False])
def test_transformer(target_vocabulary: int | None, lengths: bool) -> None:
    module = torch.nn.Transformer(8, 2, 1, 2, 10, 0.0, batch_first=True).double()

    def reference(source: Tensor, target: Tensor, *rest: Tensor, **w: Tensor) -> Tensor:
        out = w["embedding_weight"] if target_vocabulary is None else w["target_embedding_weight"]
        x = w["embedding_weight"][source] * 8**0.5 + positions(5, 8)
        y = out[target] * 8**0.5 + positions(3, 8)
        masks: dict[str, Any] = {"tgt_mask": causal(3)}
        if rest:
            ignored = torch.where(torch.arange(5) < rest[0][:, None], 0.0, -torch.inf).double()
            masks |= {"src_key_padding_mask": ignored, "memory_key_padding_mask": ignored}
        h = torch.func.functional_call(module, transformer_weights(module, part(w, "transformer_")), (x, y), masks)
        return h @ out.T if target_vocabulary is None else functional.linear(h, w["output_weight"], w["output_bias"])

    rng = np.random.default_rng(0)
    data = [rng.integers(0, 9, (3, 5)), rng.integers(0, 6, (3, 3))] + ([np.array([5, 1, 3])] if lengths else [])
    specs = [ids(5), ids(3)] + ([ids()] if lengths else [])
    model = models.transformer(9, target_vocabulary, 8, 2, 1, 2, 10, 0.0, lengths=lengths)
    check_layer(model, specs, reference, data=data, atol=1e-5, rtol=3e-5, bf16=CHAOTIC)


@pytest.mark.parametrize(("vocabulary", "hidden_size"), [(9, None), (None, 7)])
def test_text_cnn(vocabulary: int | None, hidden_size: int | None) -> None:
    def reference(x: Tensor, **w: Tensor) -> Tensor:
        h = (w["embedding_weight"][x] if vocabulary else x).transpose(1, 2)
        found = []
        for size in (2, 3):
            prefix = f"words_words{size}_conv{size}_"
            conv = functional.conv1d(h, w[f"{prefix}weight"], w[f"{prefix}bias"])
            found.append(torch.relu(conv).amax(2))
        h = torch.cat(found, 1)
        if hidden_size:
            h = torch.relu(functional.linear(h, w["hidden_weight"], w["hidden_bias"]))
        return torch.log_softmax(functional.linear(h, w["output_weight"], w["output_bias"]), 1)

    model = models.text_cnn(3, vocabulary, 4, (2, 3), 5, dropout=0.0, hidden_size=hidden_size)
    check_layer(model, [ids(6) if vocabulary else (6, 4)], reference, integers=9)


SMALL: dict[str, nn.Module] = {
    "lstm": models.lstm_language_model(12, 16, dropout=0.2),
    "tied lstm": models.lstm_language_model(12, 16, dropout=0.2, tied=True),
    "transformer": models.transformer_language_model(12, 16, 2, 2, dropout=0.1),
}


@pytest.mark.parametrize("name", SMALL)
def test_language_models_learn(name: str) -> None:
    """Counting modulo 12 in steps of 1 or 2; what the first token does not tell, the second does."""
    model = SMALL[name]
    program = compute.compile(model, nn.CrossEntropyLoss(), ids(8), engine="numpy")
    program.parameters[:] = compute.initial_parameters(model, ids(8), 1)
    program.parameters_changed()
    rng = np.random.default_rng(0)
    moments = [np.zeros_like(program.parameters) for _ in range(2)]
    losses = []
    for step in range(1, 121):
        tokens = (rng.integers(0, 12, (16, 1)) + rng.integers(1, 3, (16, 1)) * np.arange(9)) % 12
        losses.append(program.forward_backward(tokens[:, :-1], tokens[:, 1:], 1 / 16, (1, step, 0)) / 16)
        for moment, decay, value in zip(moments, (0.9, 0.99), (1, program.gradients), strict=True):
            moment += (1 - decay) * (program.gradients * value - moment)
        first, second = moments[0] / (1 - 0.9**step), moments[1] / (1 - 0.99**step)
        program.parameters[:] -= 0.01 * first / (np.sqrt(second) + 1e-8)
        program.parameters_changed()
    assert 0.7 * np.log(12) < losses[0] < 1.6 * np.log(12)
    assert np.mean(losses[-5:]) < 0.6 * losses[0]


@pytest.mark.parametrize(
    ("model", "specs"),
    [
        (models.simple_rnn(5, 4, 6), (TensorSpec((3, 5)),)),
        (models.lstm_language_model(9, 5, tied=True), (ids(4),)),
        (models.transformer_language_model(9, 8, 2, 2), (ids(4),)),
        (models.transformer(9, 7, 8, 2, 1, 1, 10), (ids(5), ids(3), ids())),
        (models.text_cnn(3, 9, 4, (2, 3), 5), (ids(6),)),
        (nn.Recurrent(nn.MultiRNNCell(nn.LSTMCell(3, 3, peephole=True), nn.GRUCell(3, 3))), (TensorSpec((4, 3)),)),
        (nn.Recurrent(nn.ConvLSTMCell(2, 3, (3, 1))), (TensorSpec((4, 2, 5, 5)),)),
        (nn.BiRecurrent(nn.RNNCell(3, 3), nn.GRUCell(3, 3), merge="sum"), (TensorSpec((4, 3)),)),
        (nn.EmbeddingBag(9, 3, mode="sum", padding_idx=0), (ids(4),)),
    ],
)
def test_models_are_saved_as_data(model: nn.Module, specs: tuple[TensorSpec, ...]) -> None:
    again = restore(describe(model))
    assert compute.parameter_layout(again, specs) == compute.parameter_layout(model, specs)
    start = compute.initial_parameters(model, specs, 3)
    assert compute.initial_parameters(again, specs, 3).tobytes() == start.tobytes()


@pytest.mark.parametrize(
    "model", [models.lstm_language_model(9, 6, dropout=0.0), models.transformer_language_model(9, 8, 2, 2)]
)
def test_shorter_sequences_give_the_same_start(model: nn.Module) -> None:
    """What comes later in a sequence changes nothing before it; shapes may differ from those compiled for."""
    program = compute.compile(model, nn.CrossEntropyLoss(), ids(7), engine="numpy")
    program.parameters[:] = compute.initial_parameters(model, ids(7), 2)
    program.parameters_changed()
    tokens = np.random.default_rng(0).integers(0, 9, (3, 7))
    whole = program.forward(tokens).copy()
    for times in (1, 4):
        np.testing.assert_allclose(program.forward(tokens[:, :times]), whole[:, :times], rtol=1e-4, atol=1e-5)


def test_translation_by_beam_search() -> None:
    """Scores are those of the sequences, computed one by one."""
    model = models.transformer(9, None, 8, 2, 1, 1, 10, lengths=False)
    specs = (ids(4), ids(5))
    program = compute.compile(model, nn.CrossEntropyLoss(), specs, engine="numpy")
    program.parameters[:] = compute.initial_parameters(model, specs, 5)
    program.parameters_changed()
    source = np.random.default_rng(0).integers(2, 9, (2, 4))

    def step(tokens: Any, states: Any) -> Any:
        scores = program.forward((states[0], tokens))[:, -1].astype(np.float64)
        return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)), states

    first = np.ones(2, dtype=np.int64)
    found = nn.beam_search(step, first, beam_size=6, max_length=5, end_id=0, states=(source,))
    assert (found.scores[:, :-1] >= found.scores[:, 1:]).all()
    for sample, (beams, scores) in enumerate(zip(found.tokens, found.scores, strict=True)):
        given = scores > -np.inf
        assert given[:4].all()
        assert len({tuple(beam) for beam in beams[given].tolist()}) == given.sum()
        for beam, score in zip(beams[given], scores[given], strict=True):
            total, tokens = 0.0, np.array([[1]])
            for token in beam:
                total += step(tokens, (source[sample : sample + 1],))[0][0, token]
                tokens = np.append(tokens, [[token]], axis=1)
                if token == 0:
                    break
            assert score == pytest.approx(total, rel=1e-5)
