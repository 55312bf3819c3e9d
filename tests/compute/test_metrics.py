"""Metrics against brute force and PyTorch, however samples are grouped, at their edges, and what they refuse."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from agreement import agrees
from hypothesis import given, settings
from hypothesis import strategies as st

from compute import InputError, metrics, nn, optim
from compute.spec import Specs, TensorSpec

Arrays = tuple[np.ndarray[Any, Any], ...]
Draw = Callable[[np.random.Generator, int], tuple[Arrays, Arrays]]


def f32(values: Any) -> np.ndarray[Any, Any]:
    return np.asarray(values, dtype=np.float32)


def scores(*shape: int) -> Draw:
    """Scores (n, *shape) with some equal ones, and labels."""

    def draw(rng: np.random.Generator, n: int) -> tuple[Arrays, Arrays]:
        return (f32(np.round(rng.normal(0, 2, (n, *shape)), 1)),), (rng.integers(0, shape[-1], (n, *shape[:-1])),)

    return draw


def values(*shape: int) -> Draw:
    return lambda rng, n: ((f32(rng.normal(size=(n, *shape))),), (f32(rng.normal(size=(n, *shape))),))


def binary(*shape: int) -> Draw:
    return lambda rng, n: ((f32(rng.uniform(size=(n, *shape))),), (rng.integers(0, 2, (n, *shape)),))


def logs(*shape: int) -> Draw:
    def draw(rng: np.random.Generator, n: int) -> tuple[Arrays, Arrays]:
        x = torch.log_softmax(torch.tensor(rng.normal(0, 2, (n, *shape))), -1).numpy()
        return (f32(x),), (rng.integers(0, shape[-1], (n, *shape[:-1])),)

    return draw


def top(k: int) -> Callable[[Any, Any], float]:
    def brute(x: Any, y: Any) -> float:
        rows, labels = x.reshape(-1, x.shape[-1]), y.reshape(-1)
        first = np.argsort(-rows, axis=1, kind="stable")[:, :k]
        return float(np.mean([label in row for label, row in zip(labels, first, strict=True)]))

    return brute


def rank(x: Any, y: Any) -> Any:
    return np.array([1 + np.sum(row > row[label]) for row, label in zip(x, y, strict=True)])


def auc(x: Any, y: Any) -> float:
    p, n = x[y == 1].astype(float), x[y == 0].astype(float)
    return float(np.mean((p[:, None] > n[None, :]) + 0.5 * (p[:, None] == n[None, :])))


def average_precision(x: Any, y: Any) -> float:
    order = np.argsort(-x, kind="stable")
    hits = np.asarray(y)[order] == 1
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def precision_recall(x: Any, y: Any) -> float:
    """BigDL's loop: trapezoids over samples, from precision 1 at recall 0."""
    area, hits, before, recall = 0.0, 0, 1.0, 0.0
    positives = int(np.sum(y == 1))
    for count, place in enumerate(np.argsort(-x, kind="stable"), 1):
        hits += int(y[place] == 1)
        area += (hits / positives - recall) * (hits / count + before) / 2
        before, recall = hits / count, hits / positives
    return area


CASES: list[tuple[metrics.Metric, Draw, Callable[[Any, Any], float]]] = [
    (metrics.Top1Accuracy(), scores(4), top(1)),
    (metrics.Top1Accuracy(), scores(3, 4), top(1)),
    (metrics.Top5Accuracy(), scores(9), top(5)),
    (metrics.Top5Accuracy(), scores(3), top(5)),
    (metrics.TopKAccuracy(2), scores(2, 3, 5), top(2)),
    (metrics.BinaryAccuracy(), binary(3), lambda x, y: float(np.mean((x >= 0.5) == y))),
    (metrics.BinaryAccuracy(0.25), binary(), lambda x, y: float(np.mean((x >= 0.25) == y))),
    (metrics.TreeNNAccuracy(), scores(7, 5), lambda x, y: top(1)(x[:, 0], y[:, 0])),
    (metrics.ConfusionMatrix(6), scores(6), top(1)),
    (metrics.MAE(), values(3, 2), lambda x, y: float(np.mean(np.abs(x.astype(float) - y)))),
    (metrics.MSE(), values(), lambda x, y: float(np.mean((x.astype(float) - y) ** 2))),
    (metrics.Loss(), logs(5), lambda x, y: float(torch.nn.functional.nll_loss(torch.tensor(x), torch.tensor(y)))),
    (
        metrics.Loss(nn.MSELoss()),
        values(4),
        lambda x, y: float(torch.nn.functional.mse_loss(torch.tensor(x), torch.tensor(y))),
    ),
    (
        metrics.Perplexity(),
        logs(3, 5),
        lambda x, y: math.exp(
            float(torch.nn.functional.nll_loss(torch.tensor(x).reshape(-1, 5), torch.tensor(y).reshape(-1)))
        ),
    ),
    (metrics.HitRatio(3, 19), scores(20), lambda x, y: float(np.mean(rank(x, y) <= 3))),
    (
        metrics.NDCG(5, 19),
        scores(20),
        lambda x, y: float(np.mean(np.where(rank(x, y) <= 5, 1 / np.log2(rank(x, y) + 1), 0))),
    ),
]


def specs(arrays: Arrays) -> Specs:
    return tuple(TensorSpec(array.shape[1:], str(array.dtype)) for array in arrays)


def parts(rng: np.random.Generator, n: int) -> list[slice]:
    cuts = sorted({0, n, *rng.integers(0, n + 1, 4).tolist()})
    return [slice(a, b) for a, b in itertools.pairwise(cuts)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].name)
def test_metrics_agree_however_samples_are_grouped(case: Any) -> None:
    metric, draw, brute = case
    rng = np.random.default_rng(3)
    for n in (1, 2, 57):
        outputs, targets = draw(rng, n)
        metric.check(specs(outputs), specs(targets))
        sums = metric.sums(outputs, targets)
        assert sums.dtype == np.float64
        assert sums.ndim == 1
        assert sums.nbytes <= 65536
        oracle = "PyTorch" if isinstance(metric, metrics.Loss | metrics.Perplexity) else "brute force"
        wanted = brute(outputs[0], targets[0])
        agrees("metric", type(metric).__name__, metric.result(sums), wanted, engine="all", oracle=oracle)
        split = sum(metric.sums(tuple(a[at] for a in outputs), tuple(a[at] for a in targets)) for at in parts(rng, n))
        np.testing.assert_allclose(split, sums, rtol=1e-12)
        if not isinstance(metric, metrics.MAE | metrics.MSE | metrics.Loss | metrics.Perplexity | metrics.NDCG):
            np.testing.assert_array_equal(split, sums)
        assert np.isnan(metric.result(np.zeros_like(sums)))
        copy = cloudpickle.loads(cloudpickle.dumps(metric))
        np.testing.assert_array_equal(copy.sums(outputs, targets), sums)


@given(st.integers(0, 2**32), st.integers(2, 200))
@settings(max_examples=60, deadline=None)
def test_areas_lie_within_their_bounds(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    y[:2] = 0, 1
    x = f32(1 / (1 + np.exp(-rng.normal(y * rng.uniform(0, 3), 2))))
    for metric, brute in ((metrics.ROCAUC(), auc), (metrics.PrecisionRecallAUC(), precision_recall)):
        low, high = metric.bounds(metric.sums((x,), (y,)))
        assert low - 1e-9 <= brute(x, y) <= high + 1e-9
        if n >= 50:  # of a few samples, two in one bin are much
            assert high - low < 0.05
        coarse = type(metric)(bins=4)
        low, high = coarse.bounds(coarse.sums((x,), (y,)))
        assert low - 1e-9 <= brute(x, y) <= high + 1e-9
        assert low - 1e-9 <= coarse.result(coarse.sums((x,), (y,))) <= high + 1e-9


def test_areas_are_exact_where_bins_are_not_shared() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        n = int(rng.integers(2, 60))
        y = rng.integers(0, 2, n)
        y[:2] = 0, 1
        logit = rng.permutation(np.linspace(-12, 12, n)) + 0.001
        for kind, x in (
            ("logit", logit),
            ("probability", 1 / (1 + np.exp(-logit))),
            ("log_probability", -np.log1p(np.exp(-logit))),
        ):
            for make, brute in ((metrics.ROCAUC, auc), (metrics.PrecisionRecallAUC, precision_recall)):
                metric = make(scores=kind)
                sums = metric.sums((f32(x),), (y,))
                agrees("metric", metric.name, metric.result(sums), brute(x, y), oracle="brute force", engine="all")


def test_areas_with_the_default_bins_and_overlapping_classes() -> None:
    """Where bins are shared the areas are estimates; this is how good they are, and what the table shows."""
    rng = np.random.default_rng(0)
    for apart in (1, 3):
        y = rng.integers(0, 2, 3000)
        x = f32(1 / (1 + np.exp(-rng.normal((2 * y - 1) * apart / 2, 1))))
        for metric, brute in ((metrics.ROCAUC(), auc), (metrics.PrecisionRecallAUC(), precision_recall)):
            found = metric.result(metric.sums((x,), (y,)))
            agrees("metric", metric.name, found, brute(x, y), tolerance=1e-3, oracle="brute force", engine="all")


def test_mean_average_precision() -> None:
    rng = np.random.default_rng(0)
    for classes, error in ((2, 1e-3), (7, 1e-2), (100, 0.1), (300, 0.1)):
        outputs, targets = logs(classes)(rng, 2000)
        outputs[0][np.arange(2000), targets[0]] += 4  # a network that learned something
        outputs = (f32(torch.log_softmax(torch.tensor(outputs[0].astype(np.float64)), -1).numpy()),)
        metric = metrics.MeanAveragePrecision(classes, bins=None if classes < 300 else 64)
        metric.check(specs(outputs), specs(targets))
        sums = metric.sums(outputs, targets)
        assert sums.nbytes <= 8 * (1 + 2 * max(64 * classes, 4096))
        found = [
            average_precision(outputs[0][:, c], (targets[0] == c).astype(int))
            for c in range(classes)
            if (targets[0] == c).any()
        ]
        low, high = metric.bounds(sums)
        assert low - 1e-9 <= np.mean(found) <= high + 1e-9
        agrees(
            "metric",
            metric.name,
            metric.result(sums),
            np.mean(found),
            tolerance=error,
            oracle="brute force",
            engine="all",
        )
        half = metric.sums((outputs[0][:99],), (targets[0][:99],)) + metric.sums((outputs[0][99:],), (targets[0][99:],))
        np.testing.assert_array_equal(half, sums)
    fine = metrics.MeanAveragePrecision(3, bins=200_000)
    outputs, targets = logs(3)(rng, 50)
    found = [average_precision(outputs[0][:, c], (targets[0] == c).astype(int)) for c in range(3)]
    agrees(
        "metric",
        fine.name,
        fine.result(fine.sums(outputs, targets)),
        np.mean(found),
        oracle="brute force",
        engine="all",
    )


def test_area_of_one_class_of_several() -> None:
    outputs, targets = logs(3)(np.random.default_rng(0), 300)
    one = metrics.ROCAUC("log_probability", positive_class=2)
    one.check(specs(outputs), specs(targets))
    alone = metrics.ROCAUC("log_probability")
    other = alone.sums((outputs[0][:, 2],), ((targets[0] == 2).astype(np.int64),))
    np.testing.assert_array_equal(one.sums(outputs, targets), other)
    assert one.result(other) == pytest.approx(auc(outputs[0][:, 2], targets[0] == 2), abs=2e-3)


def test_extreme_scores_have_a_bin() -> None:
    metric = metrics.ROCAUC()
    sums = metric.sums((f32([0.0, 1.0, 1e-38, np.float32(1) - np.float32(2**-24)]),), (np.array([0, 1, 0, 1]),))
    assert sums[:-1].sum() == 4
    assert metric.result(sums) == 1.0
    logits = metrics.ROCAUC("logit")
    assert logits.result(logits.sums((f32([-np.inf, 1e38, -5, 5]),), (np.array([0, 1, 0, 1]),))) == 1.0
    assert np.isnan(metric.result(metric.sums((f32([0.2, 0.3]),), (np.array([1, 1]),))))  # no negatives


def test_confusion_matrix_gives_more_than_a_number() -> None:
    rng = np.random.default_rng(0)
    outputs, targets = scores(5)(rng, 200)
    targets[0][:10] = -100
    targets[0][targets[0] == 4] = 3
    metric = metrics.ConfusionMatrix(5)
    sums = metric.sums(outputs, targets)
    wanted = np.zeros((5, 5), dtype=np.int64)
    for row, label in zip(outputs[0][10:], targets[0][10:], strict=True):
        wanted[label, row.argmax()] += 1
    np.testing.assert_array_equal(metric.matrix(sums), wanted)
    np.testing.assert_allclose(metric.recall(sums)[:4], np.diag(wanted)[:4] / wanted.sum(1)[:4])
    assert np.isnan(metric.recall(sums)[4])
    np.testing.assert_allclose(metric.precision(sums), np.diag(wanted) / wanted.sum(0))


def test_ignored_positions_do_not_count() -> None:
    outputs, targets = logs(6, 5)(np.random.default_rng(0), 9)
    targets[0][:, 3:] = -100
    kept = (outputs[0][:, :3],), (targets[0][:, :3],)
    for metric in (metrics.Top1Accuracy(), metrics.Top5Accuracy(), metrics.ConfusionMatrix(5), metrics.Perplexity()):
        np.testing.assert_allclose(metric.sums(outputs, targets), metric.sums(*kept), rtol=1e-12)


def test_items_in_a_row_make_groups() -> None:
    rng = np.random.default_rng(0)
    outputs, targets = scores(20)(rng, 11)
    flat = outputs[0].reshape(-1, 1)
    marks = np.zeros((11, 20), dtype=np.float32)
    marks[np.arange(11), targets[0]] = 1
    for metric in (metrics.HitRatio(3, 19), metrics.NDCG(3, 19)):
        wanted = metric.sums(outputs, targets)
        np.testing.assert_array_equal(metric.sums(outputs, (marks,)), wanted)
        np.testing.assert_array_equal(metric.sums((flat,), (marks.reshape(-1),)), wanted)
        metric.check((TensorSpec((1,)),), (TensorSpec(()),))
        with pytest.raises(InputError, match="no multiple of negatives"):
            metric.sums((flat[:19],), (marks.reshape(-1)[:19],))
        with pytest.raises(InputError, match="group 1 of the batch must have one target 1"):
            metric.sums(outputs, (np.where(np.arange(11)[:, None] == 1, 0, marks),))


def test_nan_is_not_hidden() -> None:
    x = f32(np.full((4, 6), 0.5))
    x[1] = np.nan
    x[2, 3] = np.nan
    label = np.array([0, 0, 0, 0])
    assert metrics.Top1Accuracy().result(metrics.Top1Accuracy().sums((x,), (label,))) == 0.5
    assert metrics.Top5Accuracy().result(metrics.Top5Accuracy().sums((x,), (label,))) == 0.75
    matrix = metrics.ConfusionMatrix(6)
    assert matrix.result(matrix.sums((x,), (label,))) == 0.5
    hits = metrics.HitRatio(1, 5)
    assert hits.result(hits.sums((x,), (label,))) == 0.5
    truth = (x.reshape(-1) > 0).astype(np.int64)
    assert metrics.BinaryAccuracy().result(metrics.BinaryAccuracy().sums((x.reshape(-1),), (truth,))) == 17 / 24
    for metric in (metrics.MAE(), metrics.MSE(), metrics.Loss(nn.MSELoss())):
        assert np.isnan(metric.result(metric.sums((x,), (np.zeros_like(x),))))
    for area in (metrics.ROCAUC(), metrics.PrecisionRecallAUC()):
        assert np.isnan(area.result(area.sums((x,), (np.arange(24).reshape(4, 6) % 2,))))
    mean = metrics.MeanAveragePrecision(6)
    assert np.isnan(mean.result(mean.sums((x,), (label,))))


def test_infinite_perplexity_is_no_error() -> None:
    metric = metrics.Perplexity()
    assert metric.result(np.array([1e6, 1.0])) == np.inf


@pytest.mark.parametrize(
    ("metric", "outputs", "targets", "message"),
    [
        (metrics.Top1Accuracy(), [(4,)], [((), "float32")], r"outputs \(\.\.\., classes\) and int64"),
        (metrics.Top5Accuracy(), [(4,), (4,)], [((), "int64")], "one output and one target"),
        (metrics.ConfusionMatrix(3), [(4,)], [((), "int64")], "needs 3 outputs"),
        (metrics.MeanAveragePrecision(3), [(4,)], [((), "int64")], "needs 3 outputs"),
        (metrics.TreeNNAccuracy(), [(4,)], [((), "int64")], "nodes"),
        (metrics.MAE(), [(4,)], [((3,), "float32")], "targets of the output's shape"),
        (metrics.ROCAUC(positive_class=4), [(4,)], [((), "int64")], "no class 4"),
        (metrics.HitRatio(10, 100), [(100,)], [((), "int64")], r"HitRatio@10 needs outputs \(101,\)"),
        (metrics.Loss(), [(4, 2)], [((), "int64")], "NLLLoss needs"),
        (metrics.Perplexity(), [(4, 2)], [((), "int64")], "CrossEntropyLoss needs"),
    ],
)
def test_check_says_what_is_needed(metric: metrics.Metric, outputs: Any, targets: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        metric.check(
            tuple(TensorSpec(shape) for shape in outputs), tuple(TensorSpec(shape, kind) for shape, kind in targets)
        )
    assert "\n" not in str(error.value)


def test_wrong_settings_and_labels_are_refused() -> None:
    for make in (
        lambda: metrics.TopKAccuracy(0),
        lambda: metrics.ConfusionMatrix(91),
        lambda: metrics.HitRatio(0),
        lambda: metrics.NDCG(10, 0),
        lambda: metrics.ROCAUC("score"),  # type: ignore[arg-type]
        lambda: metrics.ROCAUC(bins=1),
        lambda: metrics.MeanAveragePrecision(0),
        lambda: metrics.MeanAveragePrecision(257),
        lambda: metrics.Perplexity(nn.MSELoss()),  # type: ignore[arg-type]
        lambda: metrics.Loss("nll"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError):
            make()
    outputs, wrong = (np.zeros((3, 4), dtype=np.float32),), (np.array([0, 1, 4]),)
    for metric in (metrics.Top1Accuracy(), metrics.Top5Accuracy(), metrics.ConfusionMatrix(4), metrics.HitRatio(1, 3)):
        with pytest.raises(InputError, match=r"label 4 is not in 0\.\.3 \(sample 2"):
            metric.sums(outputs, wrong)


def test_names() -> None:
    assert optim.Top1Accuracy().name == "Top1Accuracy"
    assert optim.Top5Accuracy().name == "Top5Accuracy"
    assert optim.HitRatio(10).name == "HitRatio@10"
    assert set(metrics.__all__) < set(optim.__all__)
