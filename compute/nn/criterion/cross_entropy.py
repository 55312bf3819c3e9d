"""Negative log likelihood and cross-entropy, the losses of classifiers and language models."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.criterion.base import Array, Losses, reduced
from compute.nn.criterion.checks import counted, float_outputs, number, weights
from compute.nn.criterion.labels import ClassCriterion, Labels, check_labels, class_weights
from compute.spec import Arrays, Specs

_BLOCK = 1 << 19
"""Scores handled at a time: few enough for several passes over them to stay in a cache, enough for what Python takes
for each operation not to count, and what threads wait for each other in between."""

Float32 = NDArray[np.float32]
Target = NDArray[Any]
"""Labels, int64 (n, ...), or distributions, float32 (n, ..., classes)."""


class _Likelihood(ClassCriterion):
    """What both share: class weights, positions to ignore, and how positions add up to a sample's loss."""

    in_place = True

    def __init__(self, weight: Any = None, ignore_index: int = -100, size_average: bool = True) -> None:
        self.weight = weights(self.kind, "weight", weight)
        if self.weight is not None and self.weight.ndim != 1:
            raise InputError(f"{self.kind}: weight must hold one number for each class, got shape {self.weight.shape}")
        if isinstance(ignore_index, bool) or not isinstance(ignore_index, int | np.integer):
            raise InputError(f"{self.kind}: ignore_index must be a whole number, got {ignore_index!r}")
        self.ignore_index = int(ignore_index)
        self.size_average = bool(size_average)

    def check(self, outputs: Specs, targets: Specs) -> None:
        super().check(outputs, targets)
        class_weights(self.kind, self.weight, outputs[0].shape[-1])

    def loss(self, outputs: Arrays, targets: Arrays) -> float:
        return float(self.losses(outputs, targets).sum())

    def position_losses(self, outputs: Arrays, targets: Arrays) -> tuple[Losses, NDArray[np.bool_]]:
        """Each position's loss, float64 (n, ...), 0 where ignored, and which positions count."""
        raise NotImplementedError

    def losses(self, outputs: Arrays, targets: Arrays) -> Losses:
        values, counts = self.position_losses(outputs, targets)
        return reduced(values * self._share(counts), average=False)

    def _counts(self, labels: Labels, classes: int) -> NDArray[np.bool_]:
        """Which positions are not ignored; InputError if another label is out of range."""
        check_labels(labels, classes, self.ignore_index)
        return np.not_equal(labels, self.ignore_index)

    def _share(self, counts: NDArray[np.bool_]) -> Losses:
        """The part that each position has in its sample's loss, float64 (n, ...)."""
        if counts.ndim == 1 or not self.size_average:
            return counts.astype(np.float64)
        axes = tuple(range(1, counts.ndim))
        return np.asarray(counts / np.maximum(1, counts.sum(axis=axes, keepdims=True)))

    def _label_weight(self, labels: Labels) -> Array | float:
        return 1.0 if self.weight is None else self.weight[labels]


class NLLLoss(_Likelihood):
    """Negative log likelihood: loss = -weight[label] * output[label], of log-probabilities as nn.LogSoftmax gives.

    Outputs (n, ..., classes) log-probabilities; targets int64 (n, ...), labels from 0. With positions (n, T, classes)
    a sample's loss is the mean over its positions that are not ignored.

    PyTorch divides by the weights' sum over the whole batch. That is not possible where a batch is computed in parts,
    so here weights are not divided out, and each sample is divided by the number of its own positions that count. So
    neither the other samples nor padding changes a sample's loss. A sample without any counts as 0.

    Args:
        weight: a factor for each class, (classes,).
        ignore_index: positions with this label have loss 0.
        size_average: False for the sum over positions.

    Source: torch.nn.NLLLoss; BigDL ClassNLLCriterion.
    """

    what = "log-probabilities"

    def position_losses(self, outputs: Arrays, targets: Arrays) -> tuple[Losses, NDArray[np.bool_]]:
        scores, labels = outputs[0], targets[0]
        counts = self._counts(labels, scores.shape[-1])
        picked = np.where(counts, labels, 0)
        values = -np.take_along_axis(scores, picked[..., None], axis=-1)[..., 0].astype(np.float64)
        return np.where(counts, values * self._label_weight(picked), 0.0), counts

    def gradient(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> None:
        at, factor = self._targets(outputs[0], targets[0], scale)
        grads[0].fill(0.0)
        rows = grads[0].reshape(-1, grads[0].shape[-1])
        rows[np.arange(len(rows)), at] = -factor

    def logits_gradient(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> None:
        """As `gradient`, but by what went into the log-softmax that gave the outputs: softmax minus one-hot.

        For engines that fuse both; saves the pass through the log-softmax. May be in place.
        """
        at, factor = self._targets(outputs[0], targets[0], scale)
        logs, grad = (a.reshape(-1, a.shape[-1]) for a in (outputs[0], grads[0]))
        rows = np.arange(len(logs))
        with np.errstate(all="ignore"):
            own = np.expm1(logs[rows, at].astype(np.float64)) * factor
            np.exp(logs, out=grad)
            np.multiply(grad, factor[:, None].astype(np.float32), out=grad)
        grad[rows, at] = own
        if not factor.all():
            grad[factor == 0] = 0.0  # also where the exponential is NaN

    def _targets(self, scores: Array, labels: Labels, scale: float) -> tuple[Labels, Losses]:
        """Labels (0 where ignored) and factors of their losses, for each position in a row."""
        counts = self._counts(labels, scores.shape[-1])
        picked = np.where(counts, labels, 0)
        return picked.reshape(-1), (self._share(counts) * self._label_weight(picked) * scale).reshape(-1)


class CrossEntropyLoss(_Likelihood):
    """Cross-entropy of softmax(output) against a label or a distribution over the classes.

    loss = -sum_c q_c * weight_c * log softmax(output)_c, with q = (1 - label_smoothing) * target + label_smoothing /
    classes, where a label is the target that is 1 at its class. Computed from the scores directly, so no score is too
    large; log-probabilities are scores, too.

    Outputs (n, ..., classes) scores (logits); the classes come last, not second as in PyTorch. Targets int64 (n, ...),
    labels from 0, or float32 (n, ..., classes), one-hot or any distribution. What positions, weights and ignored
    labels add up to is said at NLLLoss. `gradient` and `loss_and_gradient` may be in place; the latter needs one
    exponential for both.

    Args:
        weight: a factor for each class, (classes,).
        ignore_index: positions with this label have loss 0.
        label_smoothing: 0 <= label_smoothing <= 1.
        size_average: False for the sum over positions.

    Source: torch.nn.CrossEntropyLoss; smoothing by Szegedy et al., 2016; BigDL CrossEntropyCriterion,
    CategoricalCrossEntropy, SoftmaxWithCriterion.
    """

    what = "scores"

    def __init__(
        self, weight: Any = None, ignore_index: int = -100, label_smoothing: float = 0.0, size_average: bool = True
    ) -> None:
        super().__init__(weight, ignore_index, size_average)
        self.label_smoothing = number(self.kind, "label_smoothing", label_smoothing, least=0.0)
        if self.label_smoothing > 1:
            raise InputError(f"{self.kind}: label_smoothing must be at most 1, got {label_smoothing!r}")

    def check(self, outputs: Specs, targets: Specs) -> None:
        if len(outputs) == len(targets) == 1 and targets[0].dtype == "float32" and targets[0].shape:
            counted(self.kind, outputs, targets, 1, 1)
            float_outputs(self.kind, outputs)
            if outputs[0].shape != targets[0].shape:
                raise InputError(
                    f"{self.kind} needs float32 targets of the output's shape {outputs[0].shape} or int64 labels "
                    f"{outputs[0].shape[:-1]}, the data set has {targets[0]}"
                )
            class_weights(self.kind, self.weight, outputs[0].shape[-1])
        else:
            super().check(outputs, targets)

    def position_losses(self, outputs: Arrays, targets: Arrays) -> tuple[Losses, NDArray[np.bool_]]:
        counts = self._counting(outputs[0], targets[0])
        return self._run(outputs[0], targets[0], counts, None, None).reshape(counts.shape), counts

    def gradient(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> None:
        self.loss_and_gradient(outputs, targets, scale, grads)

    def loss_and_gradient(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> float:
        counts = self._counting(outputs[0], targets[0])
        share = self._share(counts)
        losses = self._run(outputs[0], targets[0], counts, (share * scale).reshape(-1), grads[0])
        return float(reduced(losses.reshape(counts.shape) * share, average=False).sum())

    def _counting(self, scores: Array, target: Target) -> NDArray[np.bool_]:
        if target.dtype == np.int64:
            return self._counts(target, scores.shape[-1])
        return np.ones(scores.shape[:-1], dtype=np.bool_)

    def _run(
        self, scores: Float32, target: Target, counts: NDArray[np.bool_], scale: Losses | None, grad: Float32 | None
    ) -> Losses:
        """Each position's loss, float64 (positions,); with `grad` its gradient, times the position's `scale`."""
        classes = scores.shape[-1]
        rows, count = scores.reshape(-1, classes), counts.reshape(-1)
        labelled = target.dtype == np.int64
        wanted: Target = np.where(counts, target, 0).reshape(-1) if labelled else target.reshape(-1, classes)
        method = self._labels if labelled and not self.label_smoothing else self._distribution
        losses = np.empty(len(rows), dtype=np.float64)
        step = max(1, _BLOCK // classes)
        size = min(step, len(rows))
        whole = np.empty((size, classes), dtype=np.float32) if grad is None else grad.reshape(-1, classes)
        with np.errstate(all="ignore"):
            for start in range(0, len(rows), step):
                at = slice(start, min(start + step, len(rows)))
                out = whole[: at.stop - start] if grad is None else whole[at]
                losses[at] = method(rows[at], wanted[at], None if scale is None else scale[at], out)
                ignored = ~count[at]
                if ignored.any():
                    losses[at][ignored] = 0.0
                    out[ignored] = 0.0  # also where the scores are NaN
        return losses

    def _labels(self, x: Float32, label: Labels, factor: Losses | None, out: Float32) -> Losses:
        """Losses of rows of scores against labels; given factors, leaves the gradient in `out`, which may be x."""
        rows = np.arange(len(x))
        top = x.argmax(axis=1)
        highest = x[rows, top]
        gap = highest.astype(np.float64) - x[rows, label]
        others = _exponentials(np.subtract(x, highest[:, None], out=out), rows, top)
        weight = self._label_weight(label)
        if factor is not None:
            total = 1.0 + others
            factor = factor * weight / total
            # Where the label is the most likely class, 1 - p is the others' share: no digits cancel out.
            own = np.where(top == label, others, total - out[rows, label]) * -factor
            out[rows, top] = 1.0
            np.multiply(out, factor[:, None].astype(np.float32), out=out)
            out[rows, label] = own
        return np.asarray((np.log1p(others) + gap) * weight)

    def _distribution(self, x: Float32, target: Target, factor: Losses | None, out: Float32) -> Losses:
        """The same against distributions (rows, classes), or labels with smoothing."""
        rows, classes = np.arange(len(x)), x.shape[1]
        weight = np.ones(classes) if self.weight is None else self.weight
        shared, kept = weight * (self.label_smoothing / classes), weight * (1.0 - self.label_smoothing)
        if target.ndim == 1:
            parts = np.tile(shared.astype(np.float32), (len(x), 1))
            parts[rows, target] += kept[target]
        else:
            parts = (target * kept + shared).astype(np.float32)
        whole = parts.sum(axis=1, dtype=np.float64)
        top = x.argmax(axis=1)
        np.subtract(x, x[rows, top][:, None], out=out)
        loss = -np.multiply(parts, out).sum(axis=1).astype(np.float64)
        others = _exponentials(out, rows, top)
        if factor is not None:
            out[rows, top] = 1.0
            np.multiply(out, (factor * whole / (1.0 + others))[:, None].astype(np.float32), out=out)
            np.multiply(parts, factor[:, None].astype(np.float32), out=parts)
            np.subtract(out, parts, out=out)
        return np.asarray(loss + whole * np.log1p(others))


def _exponentials(shifted: Float32, rows: Labels, top: Labels) -> Losses:
    """Exponentiates rows whose largest element, at `top`, is 0; returns the sums without that one, which becomes 0.

    The largest exponential is exactly 1. Kept apart, the rest keeps all its digits where one class is almost certain.
    """
    np.exp(shifted, out=shifted)
    shifted[rows, top] = 0.0
    return np.asarray(shifted.sum(axis=1), dtype=np.float64)
