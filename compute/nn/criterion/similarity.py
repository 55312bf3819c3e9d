"""Losses of how alike vectors are."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.criterion.base import Array, SampleCriterion, SimpleCriterion, reduced, share
from compute.nn.criterion.checks import counted, number, same_shape, some_dimensions, vectors
from compute.nn.criterion.labels import ClassCriterion, check_labels
from compute.nn.criterion.margin import check_signs
from compute.spec import Arrays, Specs, TensorSpec

_TINY = 1e-12
"""Added to (or least of) squared norms, so that a vector of zeros has a cosine."""


class _Pair(SampleCriterion):
    """Two outputs (n, size), targets 1 (alike) or -1 (not), one per sample."""

    outputs_wanted = 2

    def check(self, outputs: Specs, targets: Specs) -> None:
        counted(self.kind, outputs, targets, self.outputs_wanted, 1)
        vectors(self.kind, outputs)
        same_shape(self.kind, TensorSpec(()), targets[0])

    def check_batch(self, outputs: Arrays, targets: Arrays) -> None:
        check_signs(self.kind, targets[0])


class CosineEmbeddingLoss(_Pair):
    """1 - cos(x1, x2) where y is 1, max(0, cos(x1, x2) - margin) where y is -1.

    Outputs x1 and x2 (n, size); targets 1 or -1, (n,). As in PyTorch 1e-12 is added to squared norms.

    Source: torch.nn.CosineEmbeddingLoss; BigDL CosineEmbeddingCriterion.
    """

    def __init__(self, margin: float = 0.0) -> None:
        self.margin = number(self.kind, "margin", margin)

    def values(self, outputs: Arrays, targets: Arrays) -> Array:
        cosine = _cosine(outputs[0], outputs[1])[0][:, 0]
        return np.where(targets[0].reshape(-1) > 0, 1.0 - cosine, np.maximum(0.0, cosine - self.margin))

    def derivatives(self, outputs: Arrays, targets: Arrays) -> Arrays:
        cosine, slopes = _cosine(outputs[0], outputs[1])
        sign = np.where(targets[0].reshape(-1, 1) > 0, -1.0, cosine > self.margin)
        return tuple(sign * slope for slope in slopes)


class L1HingeEmbeddingLoss(_Pair):
    """With d the sum of |x1 - x2|: d where y is 1, max(0, margin - d) where y is -1.

    Outputs x1 and x2 (n, size); targets 1 or -1, (n,).

    Source: BigDL L1HingeEmbeddingCriterion.
    """

    def __init__(self, margin: float = 1.0) -> None:
        self.margin = number(self.kind, "margin", margin)

    def values(self, outputs: Arrays, targets: Arrays) -> Array:
        distance = reduced(np.abs(outputs[0] - outputs[1]), average=False)
        return np.where(targets[0].reshape(-1) > 0, distance, np.maximum(0.0, self.margin - distance))

    def derivatives(self, outputs: Arrays, targets: Arrays) -> Arrays:
        difference = outputs[0] - outputs[1]
        distance = np.abs(difference).sum(axis=1, keepdims=True)
        sign = np.where(targets[0].reshape(-1, 1) > 0, 1.0, -1.0 * (distance < self.margin))
        slope = sign * np.sign(difference)
        return slope, -slope


class CosineDistanceLoss(SimpleCriterion):
    """1 - cos(x, y): outputs x (n, size), targets y of that shape. 1e-12 is added to squared norms.

    Source: BigDL CosineDistanceCriterion.
    """

    def check_pair(self, output: TensorSpec, target: TensorSpec) -> None:
        vectors(self.kind, (output,))
        super().check_pair(output, target)

    def sample_losses(self, output: Array, target: Array) -> Array:
        return 1.0 - _cosine(output, target)[0][:, 0]

    def sample_gradients(self, output: Array, target: Array) -> Array:
        return -_cosine(output, target)[1][0]


class CosineProximityLoss(SimpleCriterion):
    """-x' y' per element, mean over a sample, where x' and y' are output and target scaled to norm 1 along the last
    dimension (squared norms at least 1e-12, below which an output is scaled by a constant).

    Source: Keras cosine_proximity; BigDL CosineProximityCriterion.
    """

    def check_pair(self, output: TensorSpec, target: TensorSpec) -> None:
        some_dimensions(self.kind, output)
        super().check_pair(output, target)

    def sample_losses(self, output: Array, target: Array) -> Array:
        x, y = _unit(output)[0], _unit(target)[0]
        return -reduced(x * y, average=True)

    def sample_gradients(self, output: Array, target: Array) -> Array:
        (x, norm, free), (y, _, _) = _unit(output), _unit(target)
        along = np.where(free, (x * y).sum(axis=-1, keepdims=True), 0.0)
        return np.asarray((x * along - y) / (norm * output[0].size))


class DotProductLoss(SimpleCriterion):
    """The sum of x y over a sample: outputs x, targets y of the same shape. To make it large, negate the targets.

    Args:
        size_average: True for the mean over a sample's elements instead of the sum.

    Source: BigDL DotProductCriterion.
    """

    def __init__(self, size_average: bool = False) -> None:
        self.size_average = bool(size_average)

    def sample_losses(self, output: Array, target: Array) -> Array:
        return reduced(output * target, self.size_average)

    def sample_gradients(self, output: Array, target: Array) -> Array:
        return target * share(output, self.size_average)


class DiceLoss(SimpleCriterion):
    """1 - (2 sum(x y) + epsilon) / (sum x + sum y + epsilon), sums over a sample: one minus Dice's coefficient of two
    masks, outputs x and targets y in 0..1, of the same shape.

    Args:
        epsilon: keeps two empty masks equal.

    Source: Milletari et al., V-Net, 2016; BigDL DiceCoefficientCriterion.
    """

    def __init__(self, epsilon: float = 1.0) -> None:
        self.epsilon = number(self.kind, "epsilon", epsilon, least=0.0)

    def sample_losses(self, output: Array, target: Array) -> Array:
        upper, lower, _ = self._parts(output, target)
        return (1.0 - upper / lower)[:, 0]

    def sample_gradients(self, output: Array, target: Array) -> Array:
        upper, lower, y = self._parts(output, target)
        return ((upper / lower - 2.0 * y) / lower).reshape(output.shape)

    def _parts(self, output: Array, target: Array) -> tuple[Array, Array, Array]:
        x, y = output.reshape(len(output), -1), target.reshape(len(output), -1)
        upper = 2.0 * (x * y).sum(axis=1, keepdims=True) + self.epsilon
        return upper, x.sum(axis=1, keepdims=True) + y.sum(axis=1, keepdims=True) + self.epsilon, y


class TripletMarginLoss(SampleCriterion):
    """max(0, margin + |a - p| - |a - n|): outputs anchor a, positive p and negative n, (n, size) each.

    Distances are norms |d + eps|_p as in PyTorch. Targets do not matter.

    Args:
        p: of the norm, at least 1.
        eps: added to each difference.
        swap: uses |p - n| where that is less than |a - n|.

    Source: Balntas et al., 2016; torch.nn.TripletMarginLoss.
    """

    def __init__(self, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False) -> None:
        self.margin = number(self.kind, "margin", margin)
        self.p = number(self.kind, "p", p, least=1.0)
        self.eps = number(self.kind, "eps", eps, least=0.0)
        self.swap = bool(swap)

    def check(self, outputs: Specs, targets: Specs) -> None:
        counted(self.kind, outputs, targets, 3, None)
        vectors(self.kind, outputs)

    def values(self, outputs: Arrays, targets: Arrays) -> Array:
        anchor, positive, negative = outputs
        far = self._norm(anchor - negative)[0]
        if self.swap:
            far = np.minimum(far, self._norm(positive - negative)[0])
        return np.maximum(0.0, self.margin + self._norm(anchor - positive)[0] - far)[:, 0]

    def derivatives(self, outputs: Arrays, targets: Arrays) -> Arrays:
        anchor, positive, negative = outputs
        near, near_slope = self._norm(anchor - positive)
        far, far_slope = self._norm(anchor - negative)
        swapped = np.zeros(far.shape, dtype=np.bool_)
        other_slope = np.zeros_like(far_slope)
        if self.swap:
            other, other_slope = self._norm(positive - negative)
            swapped = other < far
            far = np.minimum(far, other)
        active = self.margin + near - far > 0
        near_slope, other_slope = active * near_slope, active * swapped * other_slope
        far_slope = active * ~swapped * far_slope
        return near_slope - far_slope, -near_slope - other_slope, far_slope + other_slope

    def _norm(self, difference: Array) -> tuple[Array, Array]:
        """The norm, (n, 1), and its derivatives by the difference; 0 at 0."""
        d = difference + self.eps
        size = np.abs(d)
        largest = np.maximum(size.max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        norm = largest * ((size / largest) ** self.p).sum(axis=1, keepdims=True) ** (1.0 / self.p)
        ratio = np.divide(size, norm, out=np.zeros_like(size), where=norm != 0)
        return norm, np.sign(d) * ratio ** (self.p - 1.0)


class ClassSimplexLoss(SimpleCriterion, ClassCriterion):
    """Squared error to the label's corner of a regular simplex: the corners have norm 1 and are as far from each other
    as they can be. Mean over the classes, of which the last coordinate is 0 for every corner.

    Outputs (n, classes); targets int64 (n,), labels from 0.

    Source: Mroueh et al., Multiclass learning with simplex coding, 2012; BigDL ClassSimplexCriterion.
    """

    what = "an embedding"

    def __init__(self, classes: int) -> None:
        if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
            raise InputError(f"{self.kind}: classes must be a whole number of at least 2, got {classes!r}")
        self.classes = classes
        self.corners = np.zeros((classes, classes))
        self.corners[:, :-1] = simplex(classes)

    def check(self, outputs: Specs, targets: Specs) -> None:
        ClassCriterion.check(self, outputs, targets)
        if outputs[0].shape != (self.classes,):
            raise InputError(f"{self.kind}({self.classes}) needs outputs ({self.classes},), got {outputs[0].shape}")

    def check_batch(self, outputs: Arrays, targets: Arrays) -> None:
        check_labels(targets[0], self.classes)

    def sample_losses(self, output: Array, target: Array) -> Array:
        return np.asarray(((output - self.corners[target]) ** 2).mean(axis=1))

    def sample_gradients(self, output: Array, target: Array) -> Array:
        return np.asarray((output - self.corners[target]) * (2.0 / self.classes))


def simplex(corners: int) -> Array:
    """Corners of a regular simplex around 0 with norm 1, float64 (corners, corners - 1), the first on the first axis.

    Row by row: each coordinate is what makes the dot product of any two corners -1 / (corners - 1).
    """
    size = corners - 1
    points = np.zeros((corners, size))
    for k in range(size):
        points[k, k] = math.sqrt(max(0.0, 1.0 - float(points[k, :k] @ points[k, :k])))
        points[k + 1 :, k] = (-1.0 / size - float(points[k, :k] @ points[k + 1, :k])) / points[k, k]
    return points


def _cosine(x: Array, y: Array) -> tuple[Array, tuple[Array, Array]]:
    """cos(x, y) of rows, (n, 1), and its derivatives by x and y."""
    xx, yy = (x * x).sum(axis=1, keepdims=True) + _TINY, (y * y).sum(axis=1, keepdims=True) + _TINY
    norm = np.sqrt(xx * yy)
    cosine = (x * y).sum(axis=1, keepdims=True) / norm
    return np.asarray(cosine), (y / norm - x * (cosine / xx), x / norm - y * (cosine / yy))


def _unit(x: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """x scaled to norm 1 along the last dimension, its norm, and whether that is above the least allowed."""
    square: Array = (x * x).sum(axis=-1, keepdims=True)
    norm: Array = np.sqrt(np.maximum(square, _TINY))
    above: NDArray[np.bool_] = square > _TINY
    return np.asarray(x / norm), norm, above
