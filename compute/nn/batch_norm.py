"""Batch normalization."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.init import Initializer, Ones, Zeros
from compute.nn.layer import Array, Arrayed, LayerContext
from compute.nn.module import Parameter, positive
from compute.nn.spatial import Spatial
from compute.spec import Shape


class ChannelNorm(Spatial):
    """Base of batch and instance normalization: learnt factors, and running statistics per channel."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        weight_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        positive(self.kind, num_features=num_features)
        self.num_features = num_features
        self.eps, self.momentum = checked(self.kind, eps, momentum)
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.weight_init = weight_init or Ones()
        self.bias_init = bias_init or Zeros()

    def output_shape(self, input_shape: Shape) -> Shape:
        self.check(input_shape, self.num_features)
        return input_shape

    def parameters(self, input_shape: Shape) -> list[Parameter]:
        shape, found = (self.num_features,), []
        if self.affine:
            found.append(Parameter("weight", shape, self.weight_init))
            found.append(Parameter("bias", shape, self.bias_init))
        if self.track_running_stats:
            found.append(Parameter("running_mean", shape, Zeros(), "statistic", self.momentum))
            found.append(Parameter("running_var", shape, Ones(), "statistic", self.momentum))
        return found

    def uses_batch_statistics(self, training: bool) -> bool:
        """Whether a pass normalizes by the micro-batch's own mean and variance; else by the running ones."""
        return (training and not self.frozen) or not self.track_running_stats

    def running_inverse(self, parameters: Arrayed) -> Array:
        """1 / sqrt(running_var + eps), float32 (num_features, 1)."""
        variance = parameters["running_var"].astype(np.float64)
        inverse: Array = (1.0 / np.sqrt(variance + self.eps)).astype(np.float32)
        return inverse[:, None]

    def scaled(self, normalized: Array, parameters: Arrayed) -> Array:
        """normalized (n, num_features, elements) * weight + bias."""
        if not self.affine:
            return normalized
        y: Array = normalized * parameters["weight"][:, None]
        y += parameters["bias"][:, None]
        return y

    def scaled_backward(self, grad: Array, normalized: Array, parameters: Arrayed, gradients: Arrayed) -> Array:
        """The gradient for what `scaled` takes, given that for what it gives; adds those of weight and bias."""
        if not self.affine:
            return grad
        gradients["weight"] += channel_sums64(grad * normalized).astype(np.float32)
        gradients["bias"] += channel_sums64(grad).astype(np.float32)
        scaled: Array = grad * parameters["weight"][:, None]
        return scaled


class BatchNorm(ChannelNorm):
    """Base of BatchNorm1d, BatchNorm2d and BatchNorm3d."""

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        rows = x.reshape(len(x), self.num_features, -1)
        if self.uses_batch_statistics(context.training):
            normalized, inverse = self._normalized(rows, context)
        else:
            inverse = self.running_inverse(parameters)
            normalized = rows - parameters["running_mean"][:, None]
            normalized *= inverse
        context.saved["normalized"], context.saved["inverse"] = normalized, inverse
        return self.scaled(normalized, parameters).reshape(x.shape)

    def _normalized(self, rows: Array, context: LayerContext) -> tuple[Array, Array]:
        """Rows normalized by their own statistics, which are noted, and 1 / sqrt(variance + eps)."""
        count = len(rows) * rows.shape[2]
        rounded = (channel_sums64(rows) / count).astype(np.float32)
        normalized: Array = rows - rounded[:, None]
        # What is left of the mean, which float32 cannot hold, is taken into account for the variance.
        rest = channel_sums64(normalized) / count
        variance = np.maximum(channel_sums64(normalized * normalized) / count - rest * rest, 0.0)
        inverse = (1.0 / np.sqrt(variance + self.eps)).astype(np.float32)[:, None]
        normalized -= rest.astype(np.float32)[:, None]
        normalized *= inverse
        if context.training and context.statistics:
            context.statistics["running_mean"][...] = context.share * (rounded + rest)
            context.statistics["running_var"][...] = context.share * variance * (count / max(count - 1, 1))
        return normalized, inverse

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        normalized, inverse = context.saved["normalized"], context.saved["inverse"]
        grad = self.scaled_backward(grad_y.reshape(normalized.shape), normalized, parameters, gradients)
        if not self.uses_batch_statistics(context.training):
            grad_x: Array = grad * inverse
            return grad_x.reshape(x.shape)
        count = len(x) * normalized.shape[2]
        grad_x = normalized * (-channel_sums64(grad * normalized) / count).astype(np.float32)[:, None]
        grad_x += grad
        grad_x -= (channel_sums64(grad) / count).astype(np.float32)[:, None]
        grad_x *= inverse
        return grad_x.reshape(x.shape)


def checked(kind: str, eps: float, momentum: float) -> tuple[float, float]:
    """(eps, momentum) as floats; InputError unless eps is at least 0 and momentum in 0..1."""
    if not 0 <= eps < float("inf"):
        raise InputError(f"{kind}: eps must be a number of at least 0, got {eps!r}")
    if isinstance(momentum, bool) or not isinstance(momentum, int | float) or not 0 <= momentum <= 1:
        raise InputError(f"{kind}: momentum must be a number from 0 to 1, got {momentum!r}")
    return float(eps), float(momentum)


def channel_sums64(rows: Array) -> NDArray[np.float64]:
    """Sums of (n, C, elements) per channel, float64 (C,): pairwise within a sample, in float64 over samples."""
    sums: NDArray[np.float64] = rows.sum(axis=2).sum(axis=0, dtype=np.float64)
    return sums


_DOC = """ samples, per channel, as in torch.nn.

    y = (x - mean) / sqrt(var + eps) * weight + bias. In training, mean and (biased) variance are the micro-batch's own,
    over samples and positions; in evaluation and where the layer is frozen, they are the running ones:
    running = (1 - momentum) * running + momentum * mean over the step's samples, of the mean and the unbiased variance.
    A micro-batch with one value per channel counts as variance 0.

    The first dimension of a sample is the channels'; for (times, features) see nn.ChannelsLast.

    Parameters, all (num_features,): `weight` (from 1) and `bias` (from 0) unless affine=False; statistics
    `running_mean` and `running_var` unless track_running_stats=False (then evaluation, too, uses the batch's own).

    Ioffe and Szegedy, Batch Normalization (2015).
    """


class BatchNorm1d(BatchNorm):
    __doc__ = "Normalizes (num_features,) or (num_features, length)" + _DOC
    rank: ClassVar[int] = 1

    def check(self, input_shape: Shape, channels: int | None = None) -> tuple[int, ...]:
        if len(input_shape) not in (1, 2) or input_shape[0] != channels:
            raise InputError(f"needs ({channels}) or ({channels}, length)")
        return input_shape[1:]


class BatchNorm2d(BatchNorm):
    __doc__ = "Normalizes (num_features, height, width)" + _DOC
    rank: ClassVar[int] = 2


class BatchNorm3d(BatchNorm):
    __doc__ = "Normalizes (num_features, depth, height, width)" + _DOC
    rank: ClassVar[int] = 3
