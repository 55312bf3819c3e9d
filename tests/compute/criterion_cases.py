"""Every criterion with an oracle: PyTorch's function where it has it, otherwise the formula written in PyTorch.

An oracle gives the sum over the samples of each sample's loss, in float64, from which autograd takes the gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from compute import nn
from compute.spec import Specs, TensorSpec

Arrays = tuple[np.ndarray[Any, Any], ...]
Tensors = list[torch.Tensor]


@dataclass
class Case:
    """A criterion, its oracle, and how to draw outputs and targets for it."""

    label: str
    criterion: nn.Criterion
    oracle: Callable[[Tensors, Tensors], torch.Tensor]
    draw: Callable[[np.random.Generator, int], tuple[Arrays, Arrays]]
    source: str = "PyTorch"

    @property
    def name(self) -> str:
        return self.criterion.kind


SHAPES: list[tuple[int, ...]] = [(), (1,), (7,), (3, 5), (2, 3, 4), (301,)]
"""Shapes of a sample that elementwise criterions are tried with, by the number of the draw."""


def mean(elements: torch.Tensor) -> torch.Tensor:
    """Sum over samples of the mean over a sample's elements."""
    return elements.reshape(len(elements), -1).mean(1).sum()


def total(elements: torch.Tensor) -> torch.Tensor:
    return elements.sum()


def f32(values: Any) -> np.ndarray[Any, Any]:
    return np.asarray(values, dtype=np.float32)


def size(rng: np.random.Generator) -> int:
    return int(rng.choice([1, 2, 5, 33]))


def normals(*shape_of: Any, count: int = 1, scale: float = 2.0) -> Callable[..., tuple[Arrays, Arrays]]:
    """`count` normal outputs and one normal target of a shape, SHAPES in turn."""

    def draw(rng: np.random.Generator, number: int) -> tuple[Arrays, Arrays]:
        shape = (size(rng), *(shape_of or SHAPES[number % len(SHAPES)]))
        return tuple(f32(rng.normal(0, scale, shape)) for _ in range(count)), (f32(rng.normal(0, scale, shape)),)

    return draw


def unit(low: float = 0.02) -> Callable[..., tuple[Arrays, Arrays]]:
    """Output and target in low..1-low."""

    def draw(rng: np.random.Generator, number: int) -> tuple[Arrays, Arrays]:
        shape = (size(rng), *SHAPES[number % len(SHAPES)])
        return (f32(rng.uniform(low, 1 - low, shape)),), (f32(rng.uniform(low, 1 - low, shape)),)

    return draw


def scores_and(target: Callable[[np.random.Generator, tuple[int, ...]], Any]) -> Callable[..., tuple[Arrays, Arrays]]:
    """Normal outputs, target made from their shape."""

    def draw(rng: np.random.Generator, number: int) -> tuple[Arrays, Arrays]:
        shape = (size(rng), *SHAPES[number % len(SHAPES)])
        return (f32(rng.normal(0, 2, shape)),), (target(rng, shape),)

    return draw


def signs(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    values = rng.choice([-1, 1], shape)
    return values.astype(np.int64) if rng.integers(2) else f32(values)


def classes(
    count: int, *, ignored: int | None = None, log: bool = False, soft: bool = False, scale: float = 3.0
) -> Callable[..., tuple[Arrays, Arrays]]:
    """Scores (n, ..., count) and labels (n, ...)."""

    def draw(rng: np.random.Generator, number: int) -> tuple[Arrays, Arrays]:
        shape = (size(rng), *[(), (1,), (6,), (2, 3)][number % 4])
        scores = f32(rng.normal(0, scale, (*shape, count)))
        if log:
            scores = f32(torch.log_softmax(torch.tensor(scores), -1).numpy())
        if soft:
            return (scores,), (f32(rng.dirichlet(np.ones(count), shape)),)
        label = rng.integers(0, count, shape)
        if ignored is not None:
            label[rng.uniform(size=shape) < 0.3] = ignored
        return (scores,), (label,)

    return draw


def by_position(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], ignored: int | None = -100, average: bool = True
) -> Callable[[Tensors, Tensors], torch.Tensor]:
    """PyTorch's loss per position of (positions, classes), averaged over each sample's positions that count."""

    def oracle(o: Tensors, t: Tensors) -> torch.Tensor:
        x, y = o[0], t[0]
        soft = y.is_floating_point()
        values = loss(x.reshape(-1, x.shape[-1]), y.reshape(-1, x.shape[-1]) if soft else y.reshape(-1))
        values = values.reshape(len(x), -1)
        counts = torch.ones_like(values) if soft else (y.reshape(len(x), -1) != ignored).to(values.dtype)
        share = counts / counts.sum(1, keepdim=True).clamp(min=1) if average else counts
        return (values * share).sum()

    return oracle


def vectors(outputs: int, target: str) -> Callable[..., tuple[Arrays, Arrays]]:
    """`outputs` outputs (n, size), target "sign" per sample, "vector" or "none"."""

    def draw(rng: np.random.Generator, number: int) -> tuple[Arrays, Arrays]:
        shape = (size(rng), int(rng.choice([2, 3, 16])))
        made = tuple(f32(rng.normal(0, 1, shape)) for _ in range(outputs))
        if target == "none":
            return made, ()
        return made, (signs(rng, shape[:1]) if target == "sign" else f32(rng.normal(0, 1, shape)),)

    return draw


def several(rng: np.random.Generator, number: int) -> tuple[Arrays, Arrays]:
    """For MultiLabelMarginLoss: none, some or all labels, ended by -1, with rubbish behind it."""
    n, count = size(rng), int(rng.choice([1, 4, 9]))
    target = np.full((n, count), -1)
    for row in target:
        chosen = rng.permutation(count)[: rng.integers(0, count + 1)]
        row[: len(chosen)] = chosen
        if len(chosen) + 1 < count:
            row[len(chosen) + 1 :] = 0
    return (f32(rng.normal(0, 1, (n, count))),), (target,)


def pairs(rng: np.random.Generator, number: int) -> tuple[Arrays, Arrays]:
    shape = (size(rng), *SHAPES[number % len(SHAPES)])
    return (f32(rng.normal(0, 1, shape)), f32(rng.normal(0, 1, shape))), (signs(rng, shape),)


def spread(positive: bool) -> Callable[..., tuple[Arrays, Arrays]]:
    """Mean and variance (or its logarithm), and a target."""

    def draw(rng: np.random.Generator, number: int) -> tuple[Arrays, Arrays]:
        shape = (size(rng), *SHAPES[number % len(SHAPES)])
        other = rng.uniform(0.1, 3, shape) if positive else rng.normal(0, 1, shape)
        return (f32(rng.normal(0, 1, shape)), f32(other)), (f32(rng.normal(0, 1, shape)),)

    return draw


def counts(rng: np.random.Generator, number: int) -> tuple[Arrays, Arrays]:
    shape = (size(rng), *SHAPES[number % len(SHAPES)])
    return (f32(rng.uniform(0.3, 4, shape)),), (f32(rng.integers(0, 6, shape)),)


def boxes(rng: np.random.Generator, number: int) -> tuple[Arrays, Arrays]:
    shape = (size(rng), int(rng.choice([1, 4])), 4)
    target = f32(rng.normal(0, 1, shape)), f32(rng.integers(0, 2, shape)), f32(rng.uniform(0, 2, shape))
    return (f32(rng.normal(0, 1, shape)),), target if number % 2 else target[:1]


def masks(rng: np.random.Generator, number: int) -> tuple[Arrays, Arrays]:
    shape = (size(rng), *SHAPES[number % len(SHAPES)])
    return (f32(rng.uniform(0, 1, shape)),), (f32(rng.integers(0, 2, shape)),)


def distributions(rng: np.random.Generator, number: int) -> tuple[Arrays, Arrays]:
    shape = [(3,), (2, 4), (1, 2, 2)][number % 3]
    return (f32(rng.dirichlet(np.ones(6), shape)),), (f32(rng.dirichlet(np.ones(6), shape)),)


def sequences(rng: np.random.Generator, number: int) -> tuple[Arrays, Arrays]:
    """Scores (n, T, 4) and labels (n, T), some sequences of label 0 only."""
    labels = rng.integers(0, 4, (5, 6)) * (rng.uniform(size=(5, 1)) < 0.7)
    return (f32(rng.normal(0, 1, (5, 6, 4))),), (labels,)


class Doubled(nn.OutputTransform):
    """Joins x and x^2 along the last dimension."""

    def output_specs(self, outputs: Specs) -> Specs:
        return (TensorSpec((*outputs[0].shape[:-1], 2 * outputs[0].shape[-1])),)

    def forward(self, outputs: Arrays) -> Arrays:
        return (np.concatenate([outputs[0], outputs[0] ** 2], axis=-1),)

    def backward(self, outputs: Arrays, transformed: Arrays, grads: Arrays) -> Arrays:
        first, second = np.split(grads[0], 2, axis=-1)
        return (first + 2 * outputs[0] * second,)


def doubled(targets: Arrays) -> np.ndarray[Any, Any]:
    return np.concatenate([targets[0], targets[0] ** 2], axis=-1)


def rewards(rng: np.random.Generator, number: int) -> tuple[Arrays, Arrays]:
    n, actions = size(rng), int(rng.choice([2, 7]))
    reward = np.zeros((n, actions))
    reward[np.arange(n), rng.integers(0, actions, n)] = rng.normal(0, 3, n)
    return (f32(rng.dirichlet(np.ones(actions), n)),), (f32(reward),)


def weighted_smooth_l1(o: Tensors, t: Tensors, sigma: float, num: float) -> torch.Tensor:
    inner, outer = (t[1], t[2]) if len(t) == 3 else (torch.ones_like(t[0]), torch.ones_like(t[0]))
    d = inner * (o[0] - t[0])
    near = 0.5 * (sigma * d) ** 2
    return (outer * torch.where(d.abs() < sigma**-2, near, d.abs() - 0.5 * sigma**-2)).sum() / num


def kullback_leibler(o: Tensors, t: Tensors) -> torch.Tensor:
    x, y = o[0].clamp(1e-7, 1), t[0].clamp(1e-7, 1)
    return (y * (y / x).log()).sum(-1).reshape(len(x), -1).mean(1).sum()


def proximity(o: Tensors, t: Tensors) -> torch.Tensor:
    x, y = (v / (v**2).sum(-1, keepdim=True).clamp(min=1e-12).sqrt() for v in (o[0], t[0]))
    return mean(-(x * y))


def dice(o: Tensors, t: Tensors) -> torch.Tensor:
    x, y = o[0].reshape(len(o[0]), -1), t[0].reshape(len(o[0]), -1)
    return (1 - (2 * (x * y).sum(1) + 1) / (x.sum(1) + y.sum(1) + 1)).sum()


def to_simplex(o: Tensors, t: Tensors, corners: int) -> torch.Tensor:
    """Corners of a regular simplex, made another way: the centred unit vectors, turned so that the first lies on the
    first axis, the second in the plane of the first two axes with a positive second coordinate, and so on."""
    centred = torch.eye(corners, dtype=torch.float64) - 1 / corners
    _, r = torch.linalg.qr((centred / centred.norm(dim=1, keepdim=True)).T)
    points = (r * r.diagonal().sign()[:, None]).T[:, : corners - 1]
    wanted = torch.cat([points, torch.zeros(corners, 1, dtype=torch.float64)], 1)[t[0]]
    return mean((o[0] - wanted) ** 2)


def cosine(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x * y).sum(1) / (((x**2).sum(1) + 1e-12) * ((y**2).sum(1) + 1e-12)).sqrt()


def l1_hinge(o: Tensors, t: Tensors, margin: float) -> torch.Tensor:
    d = (o[0] - o[1]).abs().sum(1)
    return torch.where(t[0] > 0, d, (margin - d).clamp(min=0)).sum()


cross_entropy = by_position(lambda x, y: F.cross_entropy(x, y, reduction="none"))
WEIGHT = np.array([0.5, 2.0, 0.0, 1.0, 3.0])
W = torch.tensor(WEIGHT)

CASES = [
    # regression
    Case("", nn.MSELoss(), lambda o, t: mean(F.mse_loss(o[0], t[0], reduction="none")), normals()),
    Case("sum", nn.MSELoss(size_average=False), lambda o, t: F.mse_loss(o[0], t[0], reduction="sum"), normals()),
    Case("large", nn.MSELoss(), lambda o, t: mean((o[0] - t[0]) ** 2), normals(scale=1e18), "formula"),
    Case("overflow", nn.MSELoss(), lambda o, t: mean((o[0] - t[0]) ** 2), normals(scale=1e30), "formula"),
    Case("", nn.L1Loss(), lambda o, t: mean(F.l1_loss(o[0], t[0], reduction="none")), normals()),
    Case("", nn.SmoothL1Loss(), lambda o, t: mean(F.smooth_l1_loss(o[0], t[0], reduction="none")), normals()),
    Case("beta 0", nn.SmoothL1Loss(0.0), lambda o, t: mean(F.l1_loss(o[0], t[0], reduction="none")), normals()),
    Case(
        "beta 0.3",
        nn.SmoothL1Loss(0.3),
        lambda o, t: mean(F.smooth_l1_loss(o[0], t[0], reduction="none", beta=0.3)),
        normals(),
    ),
    Case("", nn.HuberLoss(1.7), lambda o, t: mean(F.huber_loss(o[0], t[0], reduction="none", delta=1.7)), normals()),
    Case("", nn.WeightedSmoothL1Loss(3.0, 2.0), lambda o, t: weighted_smooth_l1(o, t, 3.0, 2.0), boxes, "formula"),
    Case(
        "",
        nn.MeanAbsolutePercentageLoss(),
        lambda o, t: mean(100 * (o[0] - t[0]).abs() / t[0].abs().clamp(min=1e-7)),
        normals(),
        "formula",
    ),
    Case(
        "",
        nn.MeanSquaredLogarithmicLoss(),
        lambda o, t: mean(((t[0].clamp(min=1e-7) + 1).log() - (o[0].clamp(min=1e-7) + 1).log()) ** 2),
        normals(),
        "formula",
    ),
    Case("", nn.L1Cost(), lambda o, t: o[0].abs().sum(), normals(), "formula"),
    Case("mean", nn.L1Cost(True), lambda o, t: mean(o[0].abs()), normals(), "formula"),
    # probabilities
    Case("", nn.BCELoss(), lambda o, t: mean(F.binary_cross_entropy(o[0], t[0], reduction="none")), unit()),
    Case(
        "edges",
        nn.BCELoss(),
        lambda o, t: mean(F.binary_cross_entropy(o[0], t[0], reduction="none")),
        lambda rng, i: ((f32(rng.choice([0.0, 1.0, 1e-20, 0.5], (3, 8))),), (f32(rng.choice([0, 1], (3, 8))),)),
    ),
    Case(
        "weight",
        nn.BCELoss(weight=WEIGHT),
        lambda o, t: mean(F.binary_cross_entropy(o[0], t[0], weight=W, reduction="none")),
        lambda rng, i: ((f32(rng.uniform(0.1, 0.9, (3, 5))),), (f32(rng.uniform(0, 1, (3, 5))),)),
    ),
    Case(
        "",
        nn.BCEWithLogitsLoss(),
        lambda o, t: mean(F.binary_cross_entropy_with_logits(o[0], t[0], reduction="none")),
        scores_and(lambda rng, shape: f32(rng.uniform(0, 1, shape))),
    ),
    Case(
        "large, weights",
        nn.BCEWithLogitsLoss(weight=WEIGHT, pos_weight=[2.5]),
        lambda o, t: mean(
            F.binary_cross_entropy_with_logits(
                o[0], t[0], weight=W, pos_weight=torch.tensor([2.5], dtype=torch.float64), reduction="none"
            )
        ),
        lambda rng, i: ((f32(rng.normal(0, 200, (4, 5))),), (f32(rng.integers(0, 2, (4, 5))),)),
    ),
    Case(
        "", nn.KLDivLoss(), lambda o, t: mean(F.kl_div(o[0], t[0], reduction="none")), classes(4, log=True, soft=True)
    ),
    Case(
        "zeros, batchmean",
        nn.KLDivLoss(size_average=False),
        lambda o, t: F.kl_div(o[0], t[0], reduction="sum"),
        lambda rng, i: ((f32(np.log(rng.dirichlet(np.ones(4), 3))),), (f32(np.eye(4)[rng.integers(0, 4, 3)]),)),
    ),
    Case(
        "log target",
        nn.KLDivLoss(log_target=True),
        lambda o, t: mean(F.kl_div(o[0], t[0], reduction="none", log_target=True)),
        normals(),
    ),
    Case("", nn.KullbackLeiblerDivergenceLoss(), kullback_leibler, distributions, "formula"),
    Case(
        "",
        nn.PoissonNLLLoss(),
        lambda o, t: mean(F.poisson_nll_loss(o[0], t[0], reduction="none")),
        counts,
    ),
    Case(
        "full, no logarithm",
        nn.PoissonNLLLoss(log_input=False, full=True),
        lambda o, t: mean(F.poisson_nll_loss(o[0], t[0], log_input=False, full=True, reduction="none")),
        counts,
    ),
    Case("", nn.PoissonLoss(), lambda o, t: mean(o[0] - t[0] * (o[0] + 1e-7).log()), counts, "formula"),
    Case(
        "",
        nn.GaussianNLLLoss(),
        lambda o, t: mean(F.gaussian_nll_loss(o[0], t[0], o[1], reduction="none")),
        spread(True),
    ),
    Case(
        "full, small variance",
        nn.GaussianNLLLoss(full=True, eps=0.5),
        lambda o, t: mean(F.gaussian_nll_loss(o[0], t[0], o[1], full=True, eps=0.5, reduction="none")),
        spread(True),
    ),
    Case(
        "",
        nn.GaussianLogVarNLLLoss(),
        lambda o, t: -torch.distributions.Normal(o[0], (0.5 * o[1]).exp()).log_prob(t[0]).sum(),
        spread(False),
        "torch.distributions",
    ),
    Case(
        "",
        nn.KLDNormalLoss(),
        lambda o, t: torch.distributions.kl_divergence(
            torch.distributions.Normal(o[0], (0.5 * o[1]).exp()), torch.distributions.Normal(0.0, 1.0)
        ).sum(),
        spread(False),
        "torch.distributions",
    ),
    Case(
        "",
        nn.PolicyGradientLoss(),
        lambda o, t: -(t[0] * torch.where(t[0] != 0, o[0], 1.0).log()).sum(),
        rewards,
        "formula",
    ),
    # classes
    Case("", nn.NLLLoss(), by_position(lambda x, y: F.nll_loss(x, y, reduction="none")), classes(5, log=True)),
    Case(
        "weight, ignored",
        nn.NLLLoss(weight=WEIGHT, ignore_index=3),
        by_position(lambda x, y: F.nll_loss(x, y, weight=W, ignore_index=3, reduction="none"), 3),
        classes(5, log=True, ignored=3),
    ),
    Case("", nn.CrossEntropyLoss(), cross_entropy, classes(10)),
    Case("1 class", nn.CrossEntropyLoss(), cross_entropy, classes(1)),
    Case("large", nn.CrossEntropyLoss(), cross_entropy, classes(6, scale=1e4)),
    Case("many classes", nn.CrossEntropyLoss(), cross_entropy, classes(10007)),
    Case(
        "weight, ignored, sum",
        nn.CrossEntropyLoss(weight=WEIGHT, size_average=False),
        by_position(lambda x, y: F.cross_entropy(x, y, weight=W, reduction="none"), average=False),
        classes(5, ignored=-100),
    ),
    Case(
        "smoothing, weight, ignored",
        nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=1, label_smoothing=0.2),
        by_position(
            lambda x, y: F.cross_entropy(x, y, weight=W, ignore_index=1, label_smoothing=0.2, reduction="none"), 1
        ),
        classes(5, ignored=1),
    ),
    Case(
        "distributions",
        nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.1),
        by_position(lambda x, y: F.cross_entropy(x, y, weight=W, label_smoothing=0.1, reduction="none")),
        classes(5, soft=True),
    ),
    Case(
        "",
        nn.ClassSimplexLoss(6),
        lambda o, t: to_simplex(o, t, 6),
        lambda rng, i: ((f32(rng.normal(0, 1, (4, 6))),), (rng.integers(0, 6, 4),)),
        "formula",
    ),
    # margins
    Case(
        "",
        nn.HingeEmbeddingLoss(0.8),
        lambda o, t: mean(F.hinge_embedding_loss(o[0], t[0], margin=0.8, reduction="none")),
        scores_and(signs),
    ),
    Case("", nn.MarginLoss(1.5), lambda o, t: mean((1.5 - o[0] * t[0]).clamp(min=0)), scores_and(signs), "formula"),
    Case(
        "squared",
        nn.MarginLoss(squared=True),
        lambda o, t: mean((1 - o[0] * t[0]).clamp(min=0) ** 2),
        scores_and(signs),
        "formula",
    ),
    Case(
        "", nn.SoftMarginLoss(), lambda o, t: mean(F.soft_margin_loss(o[0], t[0], reduction="none")), scores_and(signs)
    ),
    Case(
        "",
        nn.MultiMarginLoss(),
        by_position(lambda x, y: F.multi_margin_loss(x, y, reduction="none")),
        classes(5),
    ),
    Case(
        "p 2, weight",
        nn.MultiMarginLoss(p=2, margin=0.7, weight=WEIGHT),
        by_position(lambda x, y: F.multi_margin_loss(x, y, p=2, margin=0.7, weight=W, reduction="none")),
        classes(5),
    ),
    Case(
        "",
        nn.MultiLabelMarginLoss(),
        lambda o, t: F.multilabel_margin_loss(o[0], t[0], reduction="none").sum(),
        several,
    ),
    Case(
        "weight",
        nn.MultiLabelSoftMarginLoss(weight=WEIGHT),
        lambda o, t: F.multilabel_soft_margin_loss(o[0], t[0], weight=W, reduction="none").sum(),
        lambda rng, i: ((f32(rng.normal(0, 3, (7, 5))),), (f32(rng.integers(0, 2, (7, 5))),)),
    ),
    Case(
        "",
        nn.MarginRankingLoss(0.4),
        lambda o, t: mean(F.margin_ranking_loss(o[0], o[1], t[0], margin=0.4, reduction="none")),
        pairs,
    ),
    Case("", nn.DotProductLoss(), lambda o, t: total(o[0] * t[0]), normals(), "formula"),
    Case("", nn.DiceLoss(), dice, masks, "formula"),
    # similarity
    Case(
        "",
        nn.CosineEmbeddingLoss(0.2),
        lambda o, t: F.cosine_embedding_loss(o[0], o[1], t[0], margin=0.2, reduction="none").sum(),
        vectors(2, "sign"),
    ),
    Case("", nn.CosineDistanceLoss(), lambda o, t: (1 - cosine(o[0], t[0])).sum(), vectors(1, "vector"), "formula"),
    Case("", nn.CosineProximityLoss(), proximity, normals(3, 5), "formula"),
    Case("", nn.L1HingeEmbeddingLoss(4.0), lambda o, t: l1_hinge(o, t, 4.0), vectors(2, "sign"), "formula"),
    Case(
        "", nn.TripletMarginLoss(), lambda o, t: F.triplet_margin_loss(*o, reduction="none").sum(), vectors(3, "none")
    ),
    Case(
        "swap, p 3",
        nn.TripletMarginLoss(margin=0.5, p=3.0, swap=True),
        lambda o, t: F.triplet_margin_loss(*o, margin=0.5, p=3.0, swap=True, reduction="none").sum(),
        vectors(3, "none"),
    ),
    # combined
    Case(
        "",
        nn.MultiCriterion(nn.MSELoss(), nn.L1Loss(), weights=[0.3, 2.0]),
        lambda o, t: mean(0.3 * (o[0] - t[0]) ** 2 + 2 * (o[0] - t[0]).abs()),
        normals(),
        "formula",
    ),
    Case(
        "",
        nn.ParallelCriterion(nn.CrossEntropyLoss(), (nn.KLDNormalLoss(), 2, 0), nn.MSELoss(), weights=[1.0, 0.1, 3.0]),
        lambda o, t: (
            F.cross_entropy(o[0], t[0], reduction="sum")
            + 0.1 * 0.5 * (o[1] ** 2 + o[2].exp() - 1 - o[2]).sum()
            + 3 * mean((o[3] - t[1]) ** 2)
        ),
        lambda rng, i: (
            tuple(f32(rng.normal(0, 1, (5, s))) for s in (4, 3, 3, 2)),
            (rng.integers(0, 4, 5), f32(rng.normal(0, 1, (5, 2)))),
        ),
        "formula",
    ),
    Case(
        "same target",
        nn.ParallelCriterion(nn.MSELoss(), nn.L1Loss(), repeat_target=True),
        lambda o, t: mean((o[0] - t[0]) ** 2) + mean((o[1] - t[0]).abs()),
        normals(count=2),
        "formula",
    ),
    Case(
        "",
        nn.TimeDistributedCriterion(nn.MSELoss()),
        lambda o, t: ((o[0] - t[0]) ** 2).mean(-1).sum(),
        normals(6, 3),
        "formula",
    ),
    Case(
        "mean",
        nn.TimeDistributedCriterion(nn.CrossEntropyLoss(), size_average=True),
        lambda o, t: F.cross_entropy(o[0].reshape(-1, 4), t[0].reshape(-1), reduction="sum") / 6,
        lambda rng, i: ((f32(rng.normal(0, 1, (5, 6, 4))),), (rng.integers(0, 4, (5, 6)),)),
    ),
    Case(
        "",
        nn.TimeDistributedMaskCriterion(nn.CrossEntropyLoss(), padding_value=0),
        by_position(lambda x, y: F.cross_entropy(x, y, ignore_index=0, reduction="none"), 0),
        sequences,
    ),
    Case(
        "",
        nn.TransformedCriterion(nn.L1Loss(), Doubled(), doubled, (6,)),
        lambda o, t: mean((torch.cat([o[0], o[0] ** 2], 1) - torch.cat([t[0], t[0] ** 2], 1)).abs()),
        normals(3),
        "formula",
    ),
]
