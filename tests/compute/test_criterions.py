"""Criterions against PyTorch and closed formulas, by finite differences, at their limits, and what they refuse."""

from __future__ import annotations

from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from agreement import agrees
from criterion_cases import CASES, Arrays, Case, f32

import compute
from compute import InputError, nn
from compute.spec import Specs, TensorSpec

DRAWS = 6
ids = [f"{case.name} {case.label}".strip() for case in CASES]


def specs(arrays: Arrays) -> Specs:
    return tuple(TensorSpec(array.shape[1:], str(array.dtype)) for array in arrays)


def drawn(case: Case, number: int) -> tuple[Arrays, Arrays]:
    return case.draw(np.random.default_rng([number, *case.name.encode(), *case.label.encode()]), number)


def oracle(case: Case, outputs: Arrays, targets: Arrays, scale: float) -> tuple[float, list[np.ndarray[Any, Any]]]:
    """Loss and gradients of scale * loss, in float64."""
    o = [torch.tensor(array.astype(np.float64), requires_grad=True) for array in outputs]
    t = [torch.tensor(array if array.dtype == np.int64 else array.astype(np.float64)) for array in targets]
    loss = case.oracle(o, t)
    (loss * scale).backward()
    return float(loss.detach()), [array.grad.numpy() for array in o if array.grad is not None]


def blank(outputs: Arrays) -> Arrays:
    return tuple(np.full(array.shape, np.nan, dtype=np.float32) for array in outputs)


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_loss_and_gradient_agree(case: Case) -> None:
    for number in range(DRAWS):
        outputs, targets = drawn(case, number)
        before = [array.copy() for array in (*outputs, *targets)]
        case.criterion.check(specs(outputs), specs(targets))
        grads = blank(outputs)
        case.criterion.gradient(outputs, targets, 0.37, grads)  # before the loss: no order is asked for
        loss = case.criterion.loss(outputs, targets)
        wanted, slopes = oracle(case, outputs, targets, 0.37)
        agrees("criterion", case.name, loss, wanted, engine="all", oracle=case.source, part="loss")
        for grad, slope in zip(grads, slopes, strict=True):
            with np.errstate(over="ignore"):
                slope = slope.astype(np.float32) if np.abs(slope).max() > 3e38 else slope
            agrees("criterion", case.name, grad, slope, engine="all", oracle=case.source, part="gradient")
        for array, copy in zip((*outputs, *targets), before, strict=True):
            np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_all_ways_give_the_same(case: Case) -> None:
    outputs, targets = drawn(case, 3)
    criterion = cloudpickle.loads(cloudpickle.dumps(case.criterion))
    grads = blank(outputs)
    criterion.gradient(outputs, targets, 0.5, grads)
    loss = criterion.loss(outputs, targets)
    both = blank(outputs)
    assert criterion.loss_and_gradient(outputs, targets, 0.5, both) == pytest.approx(loss, rel=1e-12)
    for one, other in zip(grads, both, strict=True):
        np.testing.assert_array_equal(one, other)
    if criterion.in_place:
        for method in (criterion.gradient, criterion.loss_and_gradient):
            over = tuple(array.copy() for array in outputs)
            method(over, targets, 0.5, over)
            for one, other in zip(grads, over, strict=True):
                np.testing.assert_array_equal(one, other)
    # Samples do not see each other: one by one they give the same, bit by bit or nearly.
    n = len(outputs[0])
    alone = [
        criterion.loss(tuple(a[i : i + 1] for a in outputs), tuple(a[i : i + 1] for a in targets)) for i in range(n)
    ]
    np.testing.assert_allclose(criterion.losses(outputs, targets), alone, rtol=1e-6)
    assert sum(alone) == pytest.approx(loss, rel=1e-6)
    for i in range(n):
        grad = blank(tuple(a[i : i + 1] for a in outputs))
        criterion.gradient(tuple(a[i : i + 1] for a in outputs), tuple(a[i : i + 1] for a in targets), 0.5, grad)
        for one, other in zip(grads, grad, strict=True):
            np.testing.assert_allclose(one[i : i + 1], other, rtol=1e-5, atol=1e-7 * float(np.abs(one).max()))


UNSTEADY = ("edges", "overflow", "large", "many classes", "full, small variance")
"""Where steps leave the domain or drown in rounding, or the gradient is meant to differ (GaussianNLLLoss below eps)."""


@pytest.mark.parametrize("case", [c for c in CASES if c.label not in UNSTEADY], ids=lambda c: f"{c.name} {c.label}")
def test_gradient_by_finite_differences(case: Case) -> None:
    """Along random directions, by steps that float32 can tell apart."""
    outputs, targets = drawn(case, 2)
    grads = blank(outputs)
    case.criterion.gradient(outputs, targets, 1.0, grads)
    rng = np.random.default_rng(0)
    for _ in range(3):
        step = 5e-4
        directions = [rng.choice([-1.0, 1.0], array.shape) * (np.abs(array) + 0.02) for array in outputs]
        if case.name in ("BCELoss", "PolicyGradientLoss", "KullbackLeiblerDivergenceLoss"):
            directions = [d * np.minimum(1, (1 - x) / x) for d, x in zip(directions, outputs, strict=True)]
        up = tuple(f32(x + step * d) for x, d in zip(outputs, directions, strict=True))
        down = tuple(f32(x - step * d) for x, d in zip(outputs, directions, strict=True))
        found = (case.criterion.loss(up, targets) - case.criterion.loss(down, targets)) / 2
        wanted = sum(float((g * (u.astype(np.float64) - d) / 2).sum()) for g, u, d in zip(grads, up, down, strict=True))
        size = sum(float(np.abs(g * (u - d) / 2).sum()) for g, u, d in zip(grads, up, down, strict=True))
        noise = 3e-7 * max(1e-30, abs(case.criterion.loss(outputs, targets)))
        assert abs(found - wanted) <= 0.02 * size + noise, case.label


@pytest.mark.parametrize("case", [c for c in CASES if c.label != "overflow"], ids=lambda c: f"{c.name} {c.label}")
def test_nan_is_not_hidden(case: Case) -> None:
    for number in range(2):
        outputs, targets = drawn(case, number)
        for position in range(len(outputs)):
            # the first element that has a part in the loss: ignored and padded positions have none
            grads = blank(outputs)
            case.criterion.gradient(outputs, targets, 1.0, grads)
            counts = np.argwhere(grads[position] != 0)
            if not len(counts):
                continue
            broken = tuple(array.copy() for array in outputs)
            broken[position][tuple(counts[0])] = np.nan
            assert np.isnan(case.criterion.loss(broken, targets)), position
            assert np.isnan(case.criterion.loss_and_gradient(broken, targets, 1.0, grads))


def test_every_criterion_has_a_case() -> None:
    bases = {"Criterion", "SampleCriterion", "SimpleCriterion", "ElementwiseCriterion", "ClassCriterion"}
    public = {
        name
        for name in nn.criterion.__all__
        if isinstance(getattr(nn, name), type) and issubclass(getattr(nn, name), nn.Criterion)
    }
    assert public - bases == {case.name for case in CASES}


def test_cross_entropy_keeps_its_digits_where_it_is_certain() -> None:
    for gap in (20.0, 50.0, 80.0):
        scores = f32([[gap, 0.0, 0.0], [0.0, gap, 0.0]])
        label = np.array([0, 0])
        grads = blank((scores,))
        loss = nn.CrossEntropyLoss().losses((scores,), (label,))
        nn.CrossEntropyLoss().gradient((scores,), (label,), 1.0, grads)
        rest = 2 * np.exp(-gap)
        np.testing.assert_allclose(loss, [np.log1p(rest), gap], rtol=1e-6)
        np.testing.assert_allclose(grads[0][0], [-rest, rest / 2, rest / 2], rtol=1e-6)
        np.testing.assert_allclose(grads[0][1], [-1, 1, np.exp(-gap)], rtol=1e-6)
    scores = f32([[-np.inf, 0.0], [3e38, -3e38]])
    assert nn.CrossEntropyLoss().loss((scores,), (np.array([1, 0]),)) == 0.0
    assert nn.CrossEntropyLoss().loss((scores,), (np.array([0, 0]),)) == np.inf


def test_logits_gradient_is_that_of_cross_entropy() -> None:
    rng = np.random.default_rng(1)
    for shape in ((4,), (3, 5)):
        scores = f32(rng.normal(0, 3, (*shape, 7)))
        logs = f32(torch.log_softmax(torch.tensor(scores.astype(np.float64)), -1).numpy())
        label = rng.integers(0, 7, shape)
        label.reshape(-1)[0] = -100
        weight = rng.uniform(0, 2, 7)
        grad, wanted = blank((scores,)), blank((scores,))
        nn.NLLLoss(weight=weight).logits_gradient((logs,), (label,), 0.3, grad)
        nn.CrossEntropyLoss(weight=weight).gradient((scores,), (label,), 0.3, wanted)
        np.testing.assert_allclose(grad[0], wanted[0], rtol=2e-6, atol=1e-8)
        nn.NLLLoss(weight=weight).logits_gradient((logs,), (label,), 0.3, (logs,))
        np.testing.assert_array_equal(logs, grad[0])


def test_limits() -> None:
    def one(criterion: nn.Criterion, output: Any, target: Any) -> tuple[float, np.ndarray[Any, Any]]:
        outputs, targets = (f32([output]),), (f32([target]),)
        grads = blank(outputs)
        return criterion.loss_and_gradient(outputs, targets, 1.0, grads), grads[0][0]

    loss, grad = one(nn.BCEWithLogitsLoss(), [1000.0, -1000.0], [0.0, 0.0])
    assert loss == 500.0
    np.testing.assert_array_equal(grad, [0.5, 0.0])
    loss, grad = one(nn.SoftMarginLoss(), [1e30, -1e30], [1, 1])
    assert loss == pytest.approx(5e29)
    np.testing.assert_array_equal(grad, [0.0, -0.5])
    assert one(nn.KLDivLoss(size_average=False), [-np.inf, 0.0], [0.0, 1.0])[0] == 0.0
    assert one(nn.KLDivLoss(size_average=False), [-np.inf, 0.0], [0.5, 0.5])[0] == np.inf
    assert one(nn.PolicyGradientLoss(), [0.0, 1.0], [0.0, 2.0])[0] == 0.0
    loss, grad = one(nn.CosineDistanceLoss(), [0.0, 0.0], [1.0, 0.0])
    assert loss == 1.0
    assert np.isfinite(grad).all()
    assert one(nn.MSELoss(), [1e30], [-1e30])[0] == pytest.approx(4e60)
    for criterion in (nn.CosineDistanceLoss(), nn.CosineProximityLoss()):  # a number has a direction but no angle
        assert abs(one(criterion, [3.0], [-2.0])[1]).max() < 1e-6
    same = f32([[1.0, 2.0]])
    outputs = (same, same - np.float32(1e-6), same)
    grads = blank(outputs)
    assert nn.TripletMarginLoss(eps=1e-6).loss_and_gradient(outputs, (), 1.0, grads) > 0
    assert all(np.isfinite(grad).all() for grad in grads)


def test_a_sample_without_counted_positions_counts_as_nothing() -> None:
    scores = f32(np.random.default_rng(0).normal(size=(2, 3, 4)))
    scores[0, 1] = np.nan  # where nothing counts NaN does not either
    label = np.array([[-100, -100, -100], [1, -100, 3]])
    for criterion in (nn.NLLLoss(), nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)):
        grads = blank((scores,))
        losses = criterion.losses((scores,), (label,))
        criterion.gradient((scores,), (label,), 1.0, grads)
        assert losses[0] == 0
        assert np.isfinite(losses[1])
        assert losses[1] != 0
        assert not grads[0][0].any()
        assert not grads[0][1, 1].any()
        assert grads[0][1, 0].any()


def test_one_s_own_criterion() -> None:
    class Quartic(nn.SimpleCriterion):
        def sample_losses(self, output: Any, target: Any) -> Any:
            return ((output - target) ** 4).mean(axis=1)

        def sample_gradients(self, output: Any, target: Any) -> Any:
            return 4 * (output - target) ** 3 / output.shape[1]

    rng = np.random.default_rng(0)
    x, y = f32(rng.normal(size=(50, 1000))), f32(rng.normal(size=(50, 1000)))
    grads = blank((x,))
    criterion = cloudpickle.loads(cloudpickle.dumps(Quartic()))
    criterion.check(specs((x,)), specs((y,)))
    loss = criterion.loss_and_gradient((x,), (y,), 2.0, grads)
    assert loss == pytest.approx(float(((x.astype(float) - y) ** 4).mean(axis=1).sum()), rel=1e-7)
    np.testing.assert_allclose(grads[0], 8 * (x.astype(float) - y) ** 3 / 1000, rtol=1e-5, atol=1e-9)
    short = nn.MultiCriterion(Quartic(), nn.MSELoss())  # (n, 1) and (n,) do not broadcast to (n, n)
    short.check((TensorSpec((1,)),), (TensorSpec(()),))
    wanted = ((x[:, 0].astype(float) - y[:, 0]) ** 4 + (x[:, 0].astype(float) - y[:, 0]) ** 2).sum()
    assert short.loss((x[:, :1],), (y[:, 0],)) == pytest.approx(wanted, rel=1e-6)
    with pytest.raises(InputError, match=r"Quartic needs targets of the output's shape \(1000,\)"):
        criterion.check(specs((x,)), (TensorSpec((999,)),))


@pytest.mark.parametrize(
    ("criterion", "outputs", "targets", "message"),
    [
        (nn.NLLLoss(), [(3, 4)], [((), "int64")], r"needs log-probabilities \(classes,\) for int64 labels"),
        (nn.NLLLoss(), [(3, 4)], [((5,), "int64")], r"needs log-probabilities \(5, classes\)"),
        (nn.CrossEntropyLoss(), [(4,)], [((3,), "float32")], r"shape \(4,\) or int64 labels \(\)"),
        (nn.CrossEntropyLoss(), [(4,)], [((), "float32")], "needs scores"),
        (nn.CrossEntropyLoss(weight=[1, 2]), [(4,)], [((), "int64")], "one number for each of 4 classes, got 2"),
        (nn.CrossEntropyLoss(), [(4,), (4,)], [((), "int64")], "needs 1 output of the network, got 2"),
        (nn.MSELoss(), [(4,)], [((5,), "float32")], "targets of the output's shape"),
        (nn.MSELoss(), [(4,)], [], "needs 1 target per sample, the data set has 0"),
        (nn.BCELoss(weight=[1, 2, 3]), [(4,)], [((4,), "float32")], "weight of shape"),
        (nn.BCEWithLogitsLoss(pos_weight=[[1], [2]]), [(2,)], [((2,), "float32")], "pos_weight of shape"),
        (nn.GaussianNLLLoss(), [(4,)], [((4,), "float32")], "needs 2 outputs"),
        (nn.GaussianNLLLoss(), [(4,), (3,)], [((4,), "float32")], "two outputs of the same shape"),
        (nn.KLDNormalLoss(), [(4,), (3,)], [], "two outputs of the same shape"),
        (nn.KullbackLeiblerDivergenceLoss(), [()], [((), "float32")], r"outputs \(\.\.\., size\)"),
        (nn.CosineEmbeddingLoss(), [(4,), (4,)], [((4,), "float32")], "targets of the output's shape"),
        (nn.CosineEmbeddingLoss(), [(4, 2), (4, 2)], [((), "float32")], r"outputs \(size,\)"),
        (nn.MultiLabelMarginLoss(), [(4,)], [((4,), "float32")], "int64 labels"),
        (nn.ClassSimplexLoss(3), [(4,)], [((), "int64")], r"needs outputs \(3,\)"),
        (nn.WeightedSmoothL1Loss(), [(4,)], [((4,), "float32")] * 2, "needs 3 targets"),
        (nn.ParallelCriterion(nn.MSELoss(), nn.L1Loss()), [(4,)], [((4,), "float32")], "needs 2 outputs"),
        (nn.TimeDistributedCriterion(nn.MSELoss()), [(4,)], [((3,), "float32")], "of the same T"),
        (nn.TimeDistributedMaskCriterion(nn.MSELoss()), [(4,)], [], "needs a target"),
    ],
)
def test_check_says_what_is_needed(
    criterion: nn.Criterion, outputs: list[Any], targets: list[Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        criterion.check(
            tuple(TensorSpec(shape) for shape in outputs), tuple(TensorSpec(shape, kind) for shape, kind in targets)
        )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("criterion", "output", "target", "message"),
    [
        (nn.NLLLoss(), np.zeros((3, 4)), np.array([0, 1, 4]), r"label 4 is not in 0\.\.3 \(sample 2 of the batch\)"),
        (nn.CrossEntropyLoss(), np.zeros((2, 2, 4)), np.array([[0, 1], [0, -7]]), "label -7 .*sample 1 .*position 1"),
        (nn.CrossEntropyLoss(ignore_index=2), np.zeros((2, 4)), np.array([2, -100]), "label -100 .*sample 1"),
        (nn.MultiMarginLoss(), np.zeros((2, 4)), np.array([0, 4]), "label 4 .*sample 1"),
        (nn.ClassSimplexLoss(4), np.zeros((2, 4)), np.array([0, 4]), "label 4 .*sample 1"),
        (nn.MultiLabelMarginLoss(), np.zeros((2, 3)), np.array([[0, -1, 9], [1, 3, -1]]), "label 3 .*sample 1"),
        (nn.BCELoss(), np.array([[0.5], [1.5]]), np.zeros((2, 1)), "1.5 of sample 1 .*position 0 is no probability"),
        (nn.HingeEmbeddingLoss(), np.zeros((2, 1)), np.array([[1], [0]]), "0 of sample 1 .*must be 1 or -1"),
    ],
)
def test_wrong_values_name_the_sample(criterion: nn.Criterion, output: Any, target: Any, message: str) -> None:
    target = target if target.dtype == np.int64 else f32(target)
    outputs = (f32(output),)
    for call in (
        lambda: criterion.loss(outputs, (target,)),
        lambda: criterion.gradient(outputs, (target,), 1.0, blank(outputs)),
        lambda: criterion.loss_and_gradient(outputs, (target,), 1.0, blank(outputs)),
    ):
        with pytest.raises(InputError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.NLLLoss(weight=[-1.0, 2.0]),
        lambda: nn.NLLLoss(weight=[[1.0, 2.0]]),
        lambda: nn.NLLLoss(weight="heavy"),
        lambda: nn.NLLLoss(ignore_index=1.5),  # type: ignore[arg-type]
        lambda: nn.CrossEntropyLoss(label_smoothing=1.5),
        lambda: nn.CrossEntropyLoss(label_smoothing=float("nan")),
        lambda: nn.HuberLoss(0.0),
        lambda: nn.SmoothL1Loss(-1.0),
        lambda: nn.MultiMarginLoss(p=3),
        lambda: nn.TripletMarginLoss(p=0.5),
        lambda: nn.ClassSimplexLoss(1),
        lambda: nn.MultiCriterion(),
        lambda: nn.MultiCriterion(nn.MSELoss(), weights=[1.0, 2.0]),
        lambda: nn.MultiCriterion("mse"),  # type: ignore[arg-type]
        lambda: nn.ParallelCriterion((nn.MSELoss(), 0, 1)),
        lambda: nn.TimeDistributedCriterion(nn.MSELoss),  # type: ignore[arg-type]
        lambda: nn.TransformedCriterion(nn.MSELoss(), transform_targets=lambda targets: targets),
    ],
)
def test_wrong_settings_are_refused(make: Any) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("engine", ["numpy", "mkl", "onednn"])
def test_engines_fuse_log_softmax_with_weights_and_ignored_labels(engine: str) -> None:
    """NLLLoss behind a log-softmax and CrossEntropyLoss on the scores are the same loss and the same gradient."""
    rng = np.random.default_rng(0)
    x, label = f32(rng.normal(size=(9, 6))), rng.integers(0, 4, 9)
    label[2] = -100
    weight = [0.5, 2.0, 1.0, 3.0]
    fused = compute.compile(
        nn.Sequential(nn.Linear(6, 4), nn.LogSoftmax()), nn.NLLLoss(weight=weight), (6,), engine=engine
    )
    plain = compute.compile(nn.Sequential(nn.Linear(6, 4)), nn.CrossEntropyLoss(weight=weight), (6,), engine=engine)
    losses = []
    for program in (fused, plain):
        program.parameters[:] = np.random.default_rng(1).normal(size=program.parameters.size)
        program.parameters_changed()
        losses.append(program.forward_backward(x, label, 0.25))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert np.abs(fused.gradients).max() > 0
    np.testing.assert_allclose(fused.gradients, plain.gradients, rtol=1e-4, atol=1e-6)
