"""Schedules, triggers, metrics, and what TrainingSpec.check and compile refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import compute
from compute import InputError, TrainingSpec, TrainingState, Validation, data, models, nn, optim, schedule, trigger


def state(step: int, epoch: int, finished: bool) -> TrainingState:
    """A state whose loss does not matter."""
    return TrainingState(step, epoch, finished, 1.0)


@given(step=st.integers(1, 10**7), epoch=st.integers(1, 500))
def test_schedules_closed_form(step: int, epoch: int) -> None:
    assert schedule.Default().rate(0.3, step, epoch) == 0.3
    assert schedule.Default(0.01).rate(0.3, step, epoch) == pytest.approx(0.3 / (1 + (step - 1) * 0.01))
    assert schedule.EpochStep(25, 0.5).rate(0.3, step, epoch) == pytest.approx(0.3 * 0.5 ** (epoch // 25))


def test_a_schedule_of_one_s_own() -> None:
    class Halve(schedule.Schedule):
        def rate(self, learning_rate: float, step: int, epoch: int) -> float:
            return learning_rate / 2**step

    assert optim.SGD(1.0, schedule=Halve()).learning_rate_at(3, 1) == 0.125


@given(step=st.integers(1, 1000), epoch=st.integers(1, 50), finished=st.booleans(), n=st.integers(1, 50))
def test_triggers_closed_form(step: int, epoch: int, finished: bool, n: int) -> None:
    now = state(step, epoch, finished)
    done = epoch if finished else epoch - 1
    assert trigger.max_epoch(n)(now) == (done >= n)
    assert trigger.max_iteration(n)(now) == (step >= n)
    assert trigger.every_epoch()(now) == finished
    assert trigger.several_iteration(n)(now) == (step % n == 0)
    both = trigger.and_(trigger.every_epoch(), trigger.max_iteration(n))
    assert both(now) == (finished and step >= n)
    assert trigger.or_(trigger.every_epoch(), trigger.max_iteration(n))(now) == (finished or step >= n)


def test_wrong_triggers_and_schedules_are_refused() -> None:
    for make in (
        lambda: trigger.max_epoch(0),
        lambda: trigger.max_iteration(True),
        lambda: trigger.several_iteration(2.5),  # type: ignore[arg-type]
        lambda: trigger.and_(),
        lambda: trigger.or_(trigger.every_epoch(), 3),  # type: ignore[arg-type]
        lambda: schedule.EpochStep(0, 0.5),
        lambda: schedule.EpochStep(3, 0.0),
        lambda: schedule.Default(-1.0),
    ):
        with pytest.raises(InputError):
            make()


def test_metrics_add_up() -> None:
    rng = np.random.default_rng(0)
    output = np.log(rng.dirichlet(np.ones(4), 30)).astype(np.float32)
    target = rng.integers(0, 4, 30)
    for metric, expected in (
        (optim.Top1Accuracy(), np.mean(output.argmax(1) == target)),
        (optim.Loss(), -np.mean(output[np.arange(30), target])),
    ):
        parts = metric.sums((output[:11],), (target[:11],)) + metric.sums((output[11:],), (target[11:],))
        assert parts.dtype == np.float64
        assert metric.result(parts) == pytest.approx(float(expected), rel=1e-6)
        assert np.isnan(metric.result(np.zeros_like(parts)))
    assert (optim.Top1Accuracy().name, optim.Loss().name) == ("Top1Accuracy", "Loss")


def spec() -> TrainingSpec:
    """A valid training."""
    x = np.zeros((20, 1, 28, 28), dtype=np.uint8)
    dataset = data.from_arrays(x, np.arange(20) % 10, classes=10) >> data.to_float()
    return TrainingSpec(
        model=models.lenet5(),
        criterion=nn.NLLLoss(),
        dataset=dataset,
        optimizer=optim.SGD(0.1),
        batch_size=8,
        end_when=trigger.max_epoch(1),
        validation=Validation(trigger.every_epoch(), dataset, [optim.Top1Accuracy(), optim.Loss()], 10),
        checkpoint_when=trigger.every_epoch(),
    )


def test_a_valid_spec_passes_and_pickles() -> None:
    spec().check()
    copy = cloudpickle.loads(cloudpickle.dumps(spec()))
    copy.check()
    assert compute.fingerprint(copy.model, (1, 28, 28)) == compute.fingerprint(models.lenet5(), (1, 28, 28))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": 2.0}, "batch_size"),
        ({"micro_batches": 6}, r"micro_batches must be a power of two \(1, 2, 4, 8 \.\.\.\), got 6"),
        ({"micro_batches": 0}, "micro_batches"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed must be less than"),
        ({"engine": "cuda"}, "unknown engine 'cuda'; choose one of mkl, numpy, onednn"),
        ({"model": models.lenet5(9)}, "9 outputs, but labels of the dataset go to 9; give the last layer 10 outputs"),
        ({"model": nn.Sequential()}, "no layers"),
        ({"model": lambda x: x}, r"model must be an nn\.Module"),
        ({"model": nn.Sequential(nn.Linear(5, 2))}, r"layer linear_0 \(Linear\) cannot take float32 \(1, 28, 28\)"),
        ({"model": nn.Sequential(nn.Tanh())}, r"NLLLoss needs log-probabilities \(classes,\)"),
        ({"criterion": "nll"}, "criterion must be"),
        ({"optimizer": 0.1}, "optimizer must be"),
        ({"optimizer": {"fc9": optim.SGD(0.1), "": optim.SGD(0.2)}}, "no weight of its own.*'fc9'"),
        ({"optimizer": {"fc1": optim.SGD(0.1)}}, "no prefix fits the weight conv1_5x5.weight"),
        ({"optimizer": optim.SGD(0.1, schedule=schedule.Plateau("MAE"))}, "monitors 'MAE', but there is only"),
        ({"optimizer": optim.SGD(0.1, schedule=schedule.SequentialSchedule(3))}, "SequentialSchedule is empty"),
        (
            {"optimizer": optim.Adam(schedule=schedule.EpochSchedule([schedule.Regime(1, 2, {"momentum": 0.9})]))},
            "Adam has no setting 'momentum'",
        ),
        ({"clip": 1.0}, r"clip must be optim.ClipValue\(low, high\) or optim.ClipNorm"),
        ({"clip": optim.ClipNorm(1.0), "optimizer": optim.LBFGS()}, "LBFGS cannot work with a clipped gradient"),
        ({"end_when": trigger.max_epoch(2) | trigger.max_score(0.9)}, "needs a validation with one metric"),
        ({"end_when": trigger.max_score(0.9, "MAE")}, "no metric 'MAE'"),
        ({"checkpoint_when": trigger.max_score(0.9, "MAE")}, "no metric 'MAE'"),
        ({"validation": None, "end_when": trigger.max_score(0.9)}, "needs a validation"),
        ({"compression": "fp8"}, "compression must be .*, got 'fp8'"),
        ({"parameter_compression": "fp16"}, "parameter_compression must be .*, got 'fp16'"),
        ({"end_when": 3}, "end_when must be a trigger"),
        ({"checkpoint_when": "x"}, "checkpoint_when must be a trigger"),
        ({"dataset": "folder"}, r"dataset must be a data set such as data\.mnist"),
        ({"dataset": data.mnist("/nonexistent")}, "/nonexistent does not exist"),
        ({"validation": 1}, "validation must be"),
    ],
)
def test_a_wrong_spec_is_refused_in_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        replace(spec(), **changes).check()  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": []}, "at least one metric"),
        ({"metrics": [optim.Loss(), optim.Loss()]}, "same name"),
        ({"metrics": ["Loss"]}, "validation metric must be"),
        ({"batch_size": 0}, "validation batch_size"),
        ({"metrics": [optim.ConfusionMatrix(9)]}, "needs 9 outputs per label"),
        ({"metrics": [optim.Loss(nn.MSELoss())]}, "MSELoss needs targets of the output's shape"),
        ({"trigger": None}, "validation trigger"),
        ({"dataset": data.from_arrays(np.zeros((2, 1, 9, 9)), np.zeros(2, dtype=int))}, "validation dataset"),
    ],
)
def test_a_wrong_validation_is_refused(changes: dict[str, object], message: str) -> None:
    validation = spec().validation
    assert validation is not None
    with pytest.raises(InputError, match=message):
        replace(spec(), validation=replace(validation, **changes)).check()  # type: ignore[arg-type]


def test_a_damaged_data_file_is_found_by_check(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01")
    with pytest.raises(InputError, match="cut short"):
        replace(spec(), dataset=data.mnist(tmp_path)).check()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Conv2d(3, 4, 3)], r"layer conv2d_0 \(Conv2d\) cannot take float32 \(1, 8, 8\): needs \(3,"),
        ([nn.Conv2d(1, 4, 9)], r"kernel \(9, 9\) is larger than the padded image"),
        ([nn.MaxPool2d(9)], "window"),
        ([nn.Flatten(), nn.Linear(60, 2, name="fc")], r"fc \(Linear\) cannot take float32 \(64\): needs"),
        ([nn.Reshape(3, -1)], r"cannot give 64 elements the shape \(3, -1\)"),
        ([nn.Tanh(name="a"), nn.ReLU(name="a")], "two layers are called a"),
        ([*[nn.Linear(8, 8, name="l")] * 2, nn.CustomLayer(), nn.Tanh(name="l")], "two layers are called l"),
    ],
)
def test_shape_errors_name_layer_and_shapes(layers: list[nn.Module], message: str) -> None:
    layers = list(layers)
    if len(layers) == 3:
        layers[2] = layers[1]
    with pytest.raises(InputError, match=message) as error:
        compute.compile(nn.Sequential(*layers), nn.NLLLoss(), (1, 8, 8), engine="numpy")
    assert "\n" not in str(error.value)


def test_wrong_layers_are_refused_when_made() -> None:
    for make in (
        lambda: nn.Conv2d(0, 1, 3),
        lambda: nn.Conv2d(1, 1, (3, 0)),
        lambda: nn.Conv2d(1, 1, 3, padding=-1),
        lambda: nn.Linear(3, 2.0),  # type: ignore[arg-type]
        lambda: nn.MaxPool2d(2, padding=2),
        lambda: nn.Reshape(-1, -1),
        lambda: nn.Tanh(name="a b"),
        lambda: nn.Sequential(nn.Tanh),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError):
            make()


@pytest.mark.parametrize("threads", [0, -1, True, 1.5])
def test_threads_must_be_a_number(threads: int) -> None:
    with pytest.raises(InputError, match="threads"):
        compute.compile(models.lenet5(), nn.NLLLoss(), (1, 28, 28), engine="numpy", threads=threads)
