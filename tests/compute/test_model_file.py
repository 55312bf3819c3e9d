"""Saved models: what comes back, damage, and models that cannot be saved; predictions from several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compute
from compute import InputError, Predictor, TensorSpec, data, models, nn, optim
from compute.description import describe, restore
from compute.model_file import read_header
from proto import model_pb2 as pb
from proto.checkpoint_pb2 import Checkpoint, ParameterPlace


class Scale(nn.CustomLayer):
    def __init__(self, start: float, name: str | None = None) -> None:
        super().__init__(name)
        self.start = start

    def parameters(self, input_shape: nn.Shape) -> list[nn.Parameter]:
        return [nn.Parameter("factor", (1,), nn.init.Constant(self.start))]

    def forward(self, x, parameters, context):  # type: ignore[no-untyped-def]
        return x * parameters["factor"]

    def backward(self, x, y, grad_y, parameters, gradients, context):  # type: ignore[no-untyped-def]
        gradients["factor"][0] = np.sum(grad_y * x)
        return grad_y * parameters["factor"]


def wired() -> tuple[nn.Module, tuple[TensorSpec, ...]]:
    """Two inputs, a shared layer, a user's layer, regularizers, a frozen part."""
    shared = nn.Linear(6, 4, name="shared", weight_init=nn.init.RandomUniform(-0.5, 0.5))
    a, b = nn.Input(), nn.Input()
    joined = nn.JoinTable(0)(shared(a), Scale(2.0, name="scale")(shared(b)))
    rest = nn.Sequential(nn.Concat(nn.Linear(8, 2), nn.Tanh(), dim=0), name="rest").add(nn.LogSoftmax())
    model = nn.Graph([a, b], rest(joined))
    shared.regularize(weight=nn.L2(0.1)).scale_rate(2.0)
    rest.freeze()
    return model, (TensorSpec((6,)), TensorSpec((6,)))


def test_a_model_comes_back_as_it_was(tmp_path: Path) -> None:
    model, inputs = wired()
    parameters = compute.initial_parameters(model, inputs, 5)
    compute.save_model(tmp_path / "a.mesograd", model, inputs, parameters, {"Top1Accuracy": 0.9})
    saved = compute.load_model(tmp_path / "a.mesograd", custom=[Scale])
    assert saved.inputs == inputs
    assert saved.metrics == {"Top1Accuracy": 0.9}
    assert saved.parameters.tobytes() == parameters.tobytes()
    assert compute.parameter_layout(saved.module, inputs) == compute.parameter_layout(model, inputs)
    assert compute.initial_parameters(saved.module, inputs, 5).tobytes() == parameters.tobytes()
    x = tuple(np.random.default_rng(i).standard_normal((3, 6), dtype=np.float32) for i in (1, 2))
    expected = Predictor(model, inputs, parameters, engine="numpy").predict(x)
    assert Predictor.of(saved, engine="numpy").predict(x).tobytes() == expected.tobytes()
    assert compute.load_parameters(tmp_path / "a.mesograd", model, inputs).tobytes() == parameters.tobytes()
    with pytest.raises(InputError, match=r"holds a Scale, which mesograd does not have; pass custom=\[Scale\]"):
        compute.load_model(tmp_path / "a.mesograd")


def test_urls(tmp_path: Path) -> None:
    model = models.lenet5()
    parameters = compute.initial_parameters(model, (1, 28, 28), 1)
    compute.save_model("memory://models/lenet", model, (1, 28, 28), parameters)
    assert compute.load_model("memory://models/lenet").parameters.tobytes() == parameters.tobytes()
    with pytest.raises(InputError, match="does not exist"):
        compute.load_model(tmp_path / "none")
    with pytest.raises(InputError, match="cannot use the URL nowhere://"):
        compute.load_model("nowhere://models/lenet")


def test_damage_is_found_and_named(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2, name="first"), nn.LogSoftmax())
    path = tmp_path / "m"
    compute.save_model(path, model, (3,), compute.initial_parameters(model, (3,), 1))
    whole = path.read_bytes()

    def error(content: bytes) -> str:
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            compute.load_model(path)
        assert str(path) in str(caught.value) or "description" in str(caught.value)
        return str(caught.value)

    assert "not a saved model" in error(b"PK\x03\x04" + whole)
    assert "cut short" in error(whole[:10])
    assert "cut short" in error(whole[:40])
    assert "cut short in first.bias" in error(whole[:-1])
    assert "the digest of first.bias differs" in error(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "format 7" in error(whole[:8] + b"\x07" + whole[9:])
    for cut in range(0, len(whole), 7):
        error(whole[:cut])
    other = nn.Sequential(nn.Linear(3, 4, name="first"), nn.LogSoftmax())
    path.write_bytes(whole)
    with pytest.raises(InputError, match=r"first\.weight \(2, 3\) where this one has first\.weight \(4, 3\)"):
        compute.load_parameters(path, other, (3,))
    with pytest.raises(InputError, match="2 parameter tensors, this model has 4"):
        compute.load_parameters(path, nn.Sequential(nn.Linear(3, 2, name="first"), nn.Linear(2, 2)), (3,))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_one_line(content: bytes) -> None:
    with pytest.raises(InputError):
        read_header("file", b"MESOGRAD" + content[:4])
    try:
        header, _ = read_header("file", b"MESOGRAD" + (1).to_bytes(4, "little") + content)
        restore(header.model)
    except InputError:
        pass


def test_functions_cannot_be_saved() -> None:
    class Apply(nn.CustomLayer):
        def __init__(self, function: object) -> None:
            super().__init__("apply")

    with pytest.raises(InputError, match="apply holds <function"):
        describe(nn.Sequential(Apply(lambda x: x)))


def test_arguments_of_all_kinds_survive() -> None:
    class Holder(nn.CustomLayer):
        def __init__(self, *values: object, name: str | None = None, **more: object) -> None:
            super().__init__(name)
            self.values, self.more = values, more

    values = (None, True, -3, 2.5, "text", [1, (2.0, "x")], nn.init.Zeros(), np.arange(6, dtype=np.int64).reshape(2, 3))
    module = Holder(*values, name="h", key=(1, 2))
    back = restore(describe(module), [Holder])
    assert isinstance(back, Holder)
    assert back.values[:6] == values[:6]
    assert isinstance(back.values[6], nn.init.Zeros)
    np.testing.assert_array_equal(back.values[7], values[7])  # type: ignore[arg-type]
    assert (back.name, back.more) == ("h", {"key": (1, 2)})


@pytest.mark.parametrize("engine", ["numpy", "mkl", "onednn"])
def test_predictions_from_many_threads(engine: str) -> None:
    model = models.lenet5()
    parameters = compute.initial_parameters(model, (1, 28, 28), 1)
    rng = np.random.default_rng(0)
    x = rng.random((50, 1, 28, 28), dtype=np.float32)
    labels = rng.integers(0, 10, 50)
    alone = Predictor(model, (1, 28, 28), parameters, engine=engine)
    expected = alone.predict(x, batch_size=16)
    many = Predictor(model, (1, 28, 28), parameters, engine=engine, replicas=3)
    with ThreadPoolExecutor(6) as pool:
        for result in pool.map(lambda _: many.predict(x, batch_size=16), range(12)):
            assert result.tobytes() == expected.tobytes()
    np.testing.assert_array_equal(many.predict_classes(x, batch_size=16), expected.argmax(axis=1))
    dataset = data.from_arrays(x, labels, classes=10)
    found = many.evaluate(dataset, [optim.Top1Accuracy(), optim.Loss()], batch_size=16)
    assert found["Top1Accuracy"] == np.mean(expected.argmax(axis=1) == labels)
    assert found["Loss"] == pytest.approx(-np.mean(expected[np.arange(50), labels]), rel=1e-6)
    assert many.predict(dataset, batch_size=16).tobytes() == expected.tobytes()


def test_a_predictor_refuses_what_does_not_fit() -> None:
    model = models.lenet5()
    with pytest.raises(InputError, match="parameters, got an array of shape"):
        Predictor(model, (1, 28, 28), np.zeros(3, dtype=np.float32))
    predictor = Predictor(model, (1, 28, 28), compute.initial_parameters(model, (1, 28, 28), 1), engine="numpy")
    with pytest.raises(InputError, match="the network takes float32"):
        predictor.predict(np.zeros((2, 3), dtype=np.float32))
    with pytest.raises(InputError, match="no samples"):
        predictor.predict(np.zeros((0, 1, 28, 28), dtype=np.float32))
    program = compute.compile(model, None, (1, 28, 28), engine="numpy")
    with pytest.raises(InputError, match="compiled without a criterion"):
        program.forward_backward(np.zeros((1, 1, 28, 28), dtype=np.float32), np.zeros(1, dtype=np.int64), 1.0)


def test_a_checkpoint_is_a_model_as_well(tmp_path: Path) -> None:
    """Of two servers' slices; the optimizer's arrays in it are left aside."""
    model = models.lenet5()
    parameters = compute.initial_parameters(model, (1, 28, 28), 4)
    url = compute.checkpoint.step_url(str(tmp_path), 3)
    layout = compute.parameter_layout(model, (1, 28, 28))
    cut = parameters.size // 3
    parts = [
        compute.checkpoint.write_part(
            url, begin, end, {"parameters": parameters[begin:end], "momentum": np.ones(end - begin, dtype=np.float32)}
        )
        for begin, end in ((0, cut), (cut, parameters.size))
    ]
    manifest = Checkpoint(
        step=3, fingerprint=compute.fingerprint(model, (1, 28, 28)), parameters=parameters.size, parts=parts,
        model=describe(model), inputs=[pb.TensorSpec(shape=(1, 28, 28), dtype="float32")],
        layout=[ParameterPlace(name=info.name, shape=info.shape, offset=info.offset) for info in layout],
    )  # fmt: skip
    manifest.progress.metrics["Top1Accuracy"] = 0.5
    compute.checkpoint.write_manifest(url, manifest)
    saved = compute.load_model(url)
    assert saved.parameters.tobytes() == parameters.tobytes()
    assert saved.metrics == {"Top1Accuracy": 0.5}
    assert compute.fingerprint(saved.module, saved.inputs) == compute.fingerprint(model, (1, 28, 28))
    assert compute.load_parameters(url, model, (1, 28, 28)).tobytes() == parameters.tobytes()
    with pytest.raises(InputError, match="checkpoint of another model"):
        compute.load_parameters(url, models.lenet5(11), (1, 28, 28))
    manifest.ClearField("model")
    compute.checkpoint.write_manifest(url, manifest)
    with pytest.raises(InputError, match="only code can make; make it in code"):
        compute.load_model(url)
