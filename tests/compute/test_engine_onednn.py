"""The engine onednn against the engine numpy: layers and graphs of layers, in fp32 and bf16; and with itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from layer_check import WeightedSum
from numpy.typing import NDArray

import compute
from compute import models, nn
from compute.arena import Arena
from compute.engines.staged import LayerStage, StagedPlan
from compute.spec import Shape, SpecsLike

Array = NDArray[np.float32]
KEY = (7, 3, 1)


class Case:
    """A network, the shape of its samples, and the kinds of layers in it that run by their own formulas."""

    def __init__(self, make: Callable[[], nn.Module], inputs: SpecsLike, plain: tuple[str, ...] = ()) -> None:
        self.make, self.inputs, self.plain = make, inputs, plain


def conv(*more: nn.Module, channels: int = 16, **options: object) -> nn.Sequential:
    """A convolution from (4, 9, 8), followed by `more` and a classifier."""
    first = nn.Conv2d(4, channels, **{"kernel_size": 3, **options})  # type: ignore[arg-type]
    return nn.Sequential(first, *more, nn.Flatten(), classifier(first, more))


def classifier(first: nn.Module, more: tuple[nn.Module, ...]) -> nn.Module:
    shape: Shape = (4, 9, 8)
    for layer in (first, *more):
        shape = layer.output_shape(shape)
    return nn.Sequential(nn.Linear(int(np.prod(shape)), 5), nn.LogSoftmax(), name="head")


def residual() -> nn.Module:
    image = nn.Input()
    x = nn.ReLU()(nn.BatchNorm2d(16)(nn.Conv2d(4, 16, 3, padding=1)(image)))
    branch = nn.BatchNorm2d(16)(nn.Conv2d(16, 16, 3, padding=1, bias=False)(x))
    x = nn.ReLU()(nn.CAddTable()(branch, x))
    branch = nn.ReLU()(nn.Conv2d(16, 16, 1)(x))
    x = nn.CAddTable()(branch, x, x)
    x = nn.Flatten()(nn.AdaptiveAvgPool2d(1)(x))
    return nn.Graph(image, nn.LogSoftmax()(nn.Linear(16, 5)(x)))


def inception() -> nn.Module:
    image = nn.Input()
    x = nn.ReLU()(nn.Conv2d(4, 16, 3, padding=1)(image))
    one = nn.ReLU()(nn.Conv2d(16, 16, 1)(x))
    three = nn.ReLU()(nn.Conv2d(16, 32, 3, padding=1)(x))
    pool = nn.MaxPool2d(3, 1, 1)(x)
    x = nn.JoinTable(0)(one, three, pool)
    x = nn.AvgPool2d(3, 2)(nn.LocalResponseNorm(5)(x))
    return nn.Graph(image, nn.LogSoftmax()(nn.Linear(64 * 4 * 3, 5)(nn.Flatten()(x))))


def heads() -> nn.Module:
    """Several classifiers, whose calls come one after another before any of their results is used."""
    image = nn.Input()
    x = nn.ReLU()(nn.Conv2d(4, 16, 3)(image))
    wires = [nn.Linear(16 * 42, 3)(nn.Flatten()(wire)) for wire in (x, nn.ReLU()(nn.Conv2d(16, 16, 3, padding=1)(x)))]
    return nn.Graph(image, nn.JoinTable(0)(*[nn.LogSoftmax()(nn.Tanh()(wire)) for wire in [*wires, *wires]]))


def shared_gradient() -> nn.Module:
    """A sum's gradient goes to two kernels that both want it in another layout and may overwrite what is theirs."""
    image = nn.Input()
    one = nn.ReLU()(nn.Conv2d(4, 16, 3)(image))
    two = nn.ReLU()(nn.Conv2d(4, 16, 3)(image))
    x = nn.Softplus()(nn.CAddTable()(nn.Tanh()(one), nn.Tanh()(two)))
    return nn.Graph(image, nn.LogSoftmax()(nn.Linear(16 * 42, 5)(nn.Flatten()(x))))


def shared() -> nn.Module:
    layer = nn.Conv2d(16, 16, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(4, 16, 3), nn.ReLU(), layer, nn.ReLU(), layer, nn.Flatten(), nn.Linear(16 * 42, 5), nn.LogSoftmax()
    )


def attention(dropout: float = 0.0) -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout, "gelu", norm_first=True, causal=True)
    return nn.Sequential(nn.Embedding(11, 16), nn.TransformerEncoder(layer, 2, nn.LayerNorm(16)), last(16))


def recurrent(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Embedding(11, 12), layer, last(20))


def last(features: int) -> nn.Module:
    """A distribution from a sequence."""
    return nn.Sequential(nn.Flatten(), nn.Linear(6 * features, 5), nn.LogSoftmax(), name="head")


def masked(added: bool) -> nn.Module:
    """Attention with a mask of padding that the input's first ids say, or with one that is trained."""
    ids = nn.Input()
    x = nn.Embedding(11, 16)(ids)
    mask = nn.Squeeze(1)(nn.Embedding(11, 1)(ids)) if added else ids
    y = nn.ScaledDotProductAttention(2, causal=added, dropout=0.1 * added)(x, x, x, mask)
    return nn.Graph(ids, last(16)(y))


IMAGE = (4, 9, 8)
IDS = (compute.TensorSpec((6,), "int64"),)

CASES = {
    "convolution": Case(conv, IMAGE),
    "odd channels": Case(lambda: conv(nn.ReLU(), nn.Conv2d(21, 19, 3), channels=21), IMAGE),
    "stride": Case(lambda: conv(nn.Tanh(), stride=(2, 1), padding=(2, 0), kernel_size=(5, 4)), IMAGE),
    "without bias": Case(lambda: conv(nn.Sigmoid(), bias=False), IMAGE),
    "same padding": Case(lambda: conv(padding="same", kernel_size=(4, 3)), IMAGE),
    "groups": Case(lambda: conv(nn.ReLU(), nn.Conv2d(32, 32, 3, groups=2), channels=32, groups=2), IMAGE),
    "depthwise": Case(lambda: conv(nn.Conv2d(16, 16, 3, groups=16, padding=1)), IMAGE),
    "dilation": Case(lambda: conv(dilation=(2, 3), padding=2), IMAGE),
    "transposed": Case(
        lambda: conv(
            nn.ReLU(), nn.ConvTranspose2d(16, 24, 3, 2, 1, 1), nn.Tanh(), nn.ConvTranspose2d(24, 16, (2, 3), groups=2)
        ),
        IMAGE,
    ),
    "group norm": Case(lambda: conv(nn.GroupNorm(4, 16), nn.ReLU(), nn.InstanceNorm2d(16, affine=True)), IMAGE),
    "padding mask": Case(lambda: masked(False), IDS),
    "trained mask": Case(lambda: masked(True), IDS, ("Squeeze",)),
    "1d": Case(
        lambda: nn.Sequential(
            nn.Conv1d(3, 16, 5, 2), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.LogSoftmax()
        ),
        (3, 21),
    ),
    "3d": Case(
        lambda: nn.Sequential(
            nn.Conv3d(2, 16, 3), nn.ReLU(), nn.AvgPool3d(2), nn.Flatten(), nn.Linear(16 * 8, 5), nn.LogSoftmax()
        ),
        (2, 6, 7, 6),
    ),
    "small images": Case(
        lambda: nn.Sequential(
            nn.Conv2d(4, 128, 1),
            nn.Conv2d(128, 128, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(128, 144, (1, 4), padding=(0, 1)),
            nn.Flatten(),
            nn.LogSoftmax(),
        ),
        (4, 3, 4),
    ),
    "one pixel": Case(
        lambda: nn.Sequential(
            nn.Conv2d(4, 128, 1), nn.Conv2d(128, 128, 3, padding=1), nn.Flatten(), nn.Linear(128, 5), nn.LogSoftmax()
        ),
        (4, 1, 1),
    ),
    "batch norm": Case(lambda: conv(nn.BatchNorm2d(16, eps=1e-3), nn.ReLU(), nn.MaxPool2d(2)), IMAGE),
    "batch norm without relu": Case(lambda: conv(nn.BatchNorm2d(16, affine=False), nn.Tanh()), IMAGE),
    "batch norm without statistics": Case(lambda: conv(nn.BatchNorm2d(16, track_running_stats=False)), IMAGE),
    "frozen batch norm": Case(lambda: conv(nn.BatchNorm2d(16).freeze(), nn.ReLU()), IMAGE),
    "batch norm of features": Case(
        lambda: nn.Sequential(nn.Linear(7, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 5), nn.LogSoftmax()), (7,)
    ),
    "pooling": Case(
        lambda: conv(nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(2, 1, 1), nn.AdaptiveMaxPool2d((5, 1))), IMAGE
    ),
    "pooling without padding": Case(lambda: conv(nn.AvgPool2d(3, 2, 1, count_include_pad=False)), IMAGE),
    "pooling by formula": Case(lambda: conv(nn.AdaptiveAvgPool2d((4, 3))), IMAGE, ("AdaptiveAvgPool2d",)),
    "dropout": Case(lambda: conv(nn.ReLU(), nn.Dropout(0.25), nn.Conv2d(16, 20, 3), nn.Dropout(0.3)), IMAGE),
    "residual": Case(residual, IMAGE),
    "inception": Case(inception, IMAGE),
    "shared": Case(shared, IMAGE),
    "heads": Case(heads, IMAGE),
    "shared gradient": Case(shared_gradient, IMAGE, ("Softplus",)),
    "linear": Case(
        lambda: nn.Sequential(nn.Linear(7, 40), nn.ReLU(), nn.Linear(40, 3, bias=False), nn.Flatten(), nn.LogSoftmax()),
        (30, 7),
    ),
    "activations": Case(
        lambda: conv(nn.GELU(), nn.SiLU(), nn.Mish(), nn.LeakyReLU(0.1), nn.GELU("tanh"), nn.Softmax()), IMAGE
    ),
    "attention": Case(attention, IDS),
    "attention with dropout": Case(lambda: attention(0.1), IDS),
    "lstm": Case(lambda: recurrent(nn.LSTM(12, 20, 2, dropout=0.5)), IDS),
    "lstm without bias": Case(lambda: recurrent(nn.LSTM(12, 20, bias=False)), IDS),
    "rnn": Case(lambda: recurrent(nn.RNN(12, 20, 2, nonlinearity="relu")), IDS),
    "gru": Case(lambda: recurrent(nn.GRU(12, 20, 2, dropout=0.25)), IDS),
    "gru in both directions": Case(lambda: recurrent(nn.GRU(12, 10, bidirectional=True)), IDS),
    "lstm in both directions": Case(lambda: recurrent(nn.LSTM(12, 10, 2, bidirectional=True, dropout=0.3)), IDS),
    "lstm with peepholes": Case(
        lambda: recurrent(nn.LSTM(12, 10, 2, bidirectional=True, dropout=0.3, peephole=True)), IDS
    ),
    "lstm with peepholes, without bias": Case(lambda: recurrent(nn.LSTM(12, 20, bias=False, peephole=True)), IDS),
    "lstm of one step": Case(
        lambda: nn.Sequential(
            nn.LSTM(7, 20, bidirectional=True, peephole=True), nn.Flatten(), nn.Linear(40, 5), nn.LogSoftmax()
        ),
        (1, 7),
    ),
    "wide lstm": Case(
        lambda: nn.Sequential(
            nn.LSTM(8, 256, 2, bidirectional=True), nn.Flatten(), nn.Linear(5 * 512, 5), nn.LogSoftmax()
        ),
        (5, 8),
    ),
    "lstm by formula": Case(
        lambda: recurrent(nn.Sequential(nn.LSTM(12, 20, return_state=True), nn.SelectTable(0))),
        IDS,
        ("LSTM",),
    ),
}


def program(
    case: Case, engine: str, precision: str = "fp32", threads: int = 1, criterion: nn.Criterion | None = None
) -> compute.Program:
    """Compiled, with its first parameters; those that start as 0 or 1 are moved a little."""
    made = compute.compile(case.make(), criterion or nn.NLLLoss(), case.inputs, engine, threads, precision)
    rng = np.random.default_rng(1)
    flat = compute.initial_parameters(case.make(), case.inputs, 5)
    made.parameters[:] = flat + 0.1 * np.abs(rng.standard_normal(flat.size, dtype=np.float32)) * np.isin(flat, (0, 1))
    made.parameters_changed()
    return made


def batch(made: compute.Program, n: int) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    rng = np.random.default_rng(n)
    (spec,) = made.input_specs
    labels = rng.integers(0, made.output_specs[0].shape[0], n)
    if spec.dtype == "int64":
        return rng.integers(0, 11, (n, *spec.shape)), labels
    return rng.standard_normal((n, *spec.shape), dtype=np.float32), labels


def results(made: compute.Program, n: int) -> dict[str, Array]:
    """The gradients by name, the loss, and the output in evaluation."""
    x, target = batch(made, n)
    made.gradients.fill(0.0)
    loss = made.forward_backward(x, target, 0.5 / n, KEY)
    found = {p.name: made.gradients[p.span].copy() for p in made.graph.parameters}
    return {**found, "loss": np.array([loss], dtype=np.float32), "output": np.copy(made.forward(x))}


def plain_layers(made: compute.Program) -> set[str]:
    """Kinds of the layers that run by their own formulas."""
    plan = next(iter(made._plans.values()))
    plan = getattr(plan, "plan", plan)
    assert isinstance(plan, StagedPlan)
    stages = [stage for stage, _ in plan._stages]
    stages += [inner for stage in stages for inner in getattr(stage, "_stages", [])]
    return {stage.nodes[0].layer.kind for stage in stages if isinstance(stage, LayerStage)}


@pytest.mark.parametrize("name", CASES)
def test_fp32_agrees_with_the_formulas(name: str) -> None:
    case = CASES[name]
    ours, formulas = program(case, "onednn"), program(case, "numpy")
    # The second shape of batch, and again the first, whose plans share memory.
    for n in (6, 5, 6):
        found, expected = results(ours, n), results(formulas, n)
        largest = max(float(np.abs(expected[p.name]).max()) for p in ours.graph.parameters if p.trained)
        for key, value in expected.items():
            # Gradients that are sums of what cancels, such as of a bias before a batch norm, count by the others' size.
            size = max(float(np.abs(value).max()), 0.02 * largest if key not in ("loss", "output") else 0.0)
            np.testing.assert_allclose(found[key], value, rtol=0, atol=2e-5 * size + 1e-9, err_msg=f"{key}, n={n}")
    assert plain_layers(ours) == set(case.plain)


@pytest.mark.parametrize("name", CASES)
def test_bf16_agrees_with_fp32(name: str) -> None:
    case = CASES[name]
    ours, formulas = program(case, "onednn", "bf16"), program(case, "numpy")
    found, expected = results(ours, 6), results(formulas, 6)
    np.testing.assert_allclose(found["output"], expected["output"], atol=2e-2 * np.abs(expected["output"]).max())
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=2e-2)
    names = [p.name for p in ours.graph.parameters if p.trained]
    ours_all, all_expected = (np.concatenate([values[key] for key in names]) for values in (found, expected))
    # A rounding may move an element across a ReLU's or a pooling's edge, so that single elements say nothing.
    assert np.linalg.norm(ours_all - all_expected) < 4e-2 * np.linalg.norm(all_expected)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", CASES)
def test_the_same_bits_every_time(name: str, precision: str) -> None:
    first, second = program(CASES[name], "onednn", precision), program(CASES[name], "onednn", precision)
    results(second, 3)
    expected = results(first, 6)
    for made in (first, second):
        made.parameters_changed()
        for key, value in results(made, 6).items():
            assert value.tobytes() == expected[key].tobytes(), key


@pytest.mark.parametrize("name", ["residual", "batch norm", "small images", "attention", "lstm"])
def test_two_threads(name: str) -> None:
    case = CASES[name]
    ours, again = program(case, "onednn", threads=2), program(case, "onednn", threads=2)
    found, repeated, expected = results(ours, 6), results(again, 6), results(program(case, "numpy"), 6)
    for key, value in expected.items():
        assert found[key].tobytes() == repeated[key].tobytes()
        if key in ("loss", "output"):
            np.testing.assert_allclose(found[key], value, rtol=0, atol=2e-5 * float(np.abs(value).max()))


def test_new_parameters_reach_all_plans() -> None:
    """Weights in the kernels' layouts are copied anew for each plan that uses them."""
    case = CASES["residual"]
    ours, formulas = program(case, "onednn"), program(case, "numpy")
    for scale in (1.0, 0.5, 2.0):
        for made in (ours, formulas):
            made.parameters *= np.float32(scale)
            made.parameters_changed()
        for n in (4, 3):
            found, expected = results(ours, n), results(formulas, n)
            np.testing.assert_allclose(found["output"], expected["output"], rtol=1e-4, atol=1e-5)


LARGE = {
    "vgg": Case(models.vgg_cifar10, (3, 32, 32)),
    "resnet": Case(models.resnet20, (3, 32, 32)),
    "inception with heads": Case(lambda: models.inception_v1(10, aux=True), (3, 224, 224)),
    "transformer": Case(lambda: nn.Sequential(models.transformer_language_model(11, 16, 2, 2), nn.LogSoftmax()), IDS),
    "lstm model": Case(lambda: nn.Sequential(models.lstm_language_model(11, 16), nn.LogSoftmax()), IDS),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", [*CASES, *LARGE])
def test_that_buffers_share_memory_changes_no_bit(name: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that did not name an array that it uses would find it overwritten."""
    case = CASES.get(name) or LARGE[name]
    together = sums(program(case, "onednn", precision, criterion=WeightedSum()))
    monkeypatch.setattr(Arena, "give_back", lambda self, buffer: None)
    for key, value in sums(program(case, "onednn", precision, criterion=WeightedSum())).items():
        assert value.tobytes() == together[key].tobytes(), key


def sums(made: compute.Program) -> dict[str, Array]:
    """As `results`, for outputs of any shape."""
    rng = np.random.default_rng(3)
    (spec,), (output,) = made.input_specs, made.output_specs
    ids = spec.dtype == "int64"
    x = rng.integers(0, 11, (2, *spec.shape)) if ids else rng.standard_normal((2, *spec.shape), dtype=np.float32)
    loss = made.forward_backward(x, rng.standard_normal((2, *output.shape), dtype=np.float32), 1.0, KEY)
    gradients = made.gradients.copy()
    return {"gradients": gradients, "loss": np.array([loss]), "output": np.copy(made.forward(x))}


def test_buffers_of_a_plan_share_memory() -> None:
    """Of a deep network each convolution's result is needed once in evaluation: two or three buffers do."""
    layers = [layer for _ in range(12) for layer in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())]
    model = nn.Sequential(nn.Conv2d(4, 16, 1), *layers, nn.Flatten(), nn.Linear(16 * 72, 5), nn.LogSoftmax())
    made = compute.compile(model, nn.NLLLoss(), IMAGE)
    made.forward(np.zeros((8, *IMAGE), dtype=np.float32))
    plan = next(iter(made._plans.values()))
    assert isinstance(plan, StagedPlan)
    one = 8 * 16 * 72 * 4
    assert plan.buffers.taken > 12
    assert plan.buffers.peak_bytes <= 4 * one


def test_bf16_takes_a_processor_with_kernels_for_it() -> None:
    """Without them it would run, but by formulas and the library's reference: too slow to be what the user meant."""
    code = (
        "import compute; from compute import nn\n"
        "try: compute.compile(nn.Sequential(nn.Linear(4, 2)), nn.MSELoss(), (4,), precision='bf16')\n"
        "except compute.InputError as error: print(error)"
    )
    # oneDNN's own way to pretend that the processor is older.
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "use precision" in done.stdout


def test_older_processors() -> None:
    """The same networks on AVX2's kernels."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "PYTEST_ADDOPTS": ""}
    chosen = "fp32_agrees and (convolution or residual or attention or lstm or groups)"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", chosen]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
