"""Group and instance normalization."""

from __future__ import annotations

import math
from typing import ClassVar

from compute.errors import InputError
from compute.nn.batch_norm import ChannelNorm
from compute.nn.conv import channel_sums
from compute.nn.init import Initializer, Ones, Zeros
from compute.nn.layer import Array, Arrayed, LayerContext, UnaryLayer
from compute.nn.module import Parameter, positive
from compute.nn.standardize import standardize, standardize_backward
from compute.spec import Shape


class GroupNorm(UnaryLayer):
    """y = (x - mean) / sqrt(var + eps) * weight + bias over groups of channels of a sample, as torch.nn.GroupNorm.

    (num_channels, ...) to the same; mean and biased variance are those of a sample's group of num_channels / num_groups
    channels. Parameters, both (num_channels,): `weight` (from 1) and `bias` (from 0) unless affine=False.

    Wu and He, Group Normalization (2018).
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        weight_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        positive(self.kind, num_groups=num_groups, num_channels=num_channels)
        if num_channels % num_groups:
            raise InputError(f"GroupNorm: num_groups must divide num_channels, got {num_groups} and {num_channels}")
        if not 0 <= eps < math.inf:
            raise InputError(f"GroupNorm: eps must be a number of at least 0, got {eps!r}")
        self.num_groups, self.num_channels = num_groups, num_channels
        self.eps, self.affine = float(eps), affine
        self.weight_init = weight_init or Ones()
        self.bias_init = bias_init or Zeros()

    def output_shape(self, input_shape: Shape) -> Shape:
        if not input_shape or input_shape[0] != self.num_channels:
            raise InputError(f"needs ({self.num_channels}, ...)")
        return input_shape

    def parameters(self, input_shape: Shape) -> list[Parameter]:
        if not self.affine:
            return []
        shape = (self.num_channels,)
        return [Parameter("weight", shape, self.weight_init), Parameter("bias", shape, self.bias_init)]

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        standardized = standardize(x.reshape(len(x) * self.num_groups, -1), self.eps)
        context.saved["rows"], context.saved["inverse"] = standardized.rows, standardized.inverse
        if not self.affine:
            return standardized.rows.reshape(x.shape)
        y: Array = standardized.rows.reshape(len(x), self.num_channels, -1) * parameters["weight"][:, None]
        y += parameters["bias"][:, None]
        return y.reshape(x.shape)

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        rows, grad = context.saved["rows"], grad_y
        if self.affine:
            gradients["weight"] += channel_sums(grad * rows.reshape(grad.shape))
            gradients["bias"] += channel_sums(grad)
            grad = grad.reshape(len(x), self.num_channels, -1) * parameters["weight"][:, None]
        return standardize_backward(rows, context.saved["inverse"], grad.reshape(rows.shape)).reshape(x.shape)


class InstanceNorm(ChannelNorm):
    """Base of InstanceNorm1d, InstanceNorm2d and InstanceNorm3d."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        weight_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, weight_init, bias_init, name
        )

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        rows = x.reshape(len(x), self.num_features, -1)
        if self.uses_batch_statistics(context.training):
            standardized = standardize(rows.reshape(len(x) * self.num_features, -1), self.eps)
            normalized, inverse = standardized.rows.reshape(rows.shape), standardized.inverse
            if context.training and context.statistics:
                unbiased = standardized.variance * (rows.shape[2] / max(rows.shape[2] - 1, 1))
                for name, value in (("running_mean", standardized.mean), ("running_var", unbiased)):
                    context.statistics[name][...] = context.share * value.reshape(len(x), -1).mean(axis=0)
        else:
            inverse = self.running_inverse(parameters)
            normalized = rows - parameters["running_mean"][:, None]
            normalized *= inverse
        context.saved["normalized"], context.saved["inverse"] = normalized, inverse
        return self.scaled(normalized, parameters).reshape(x.shape)

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        normalized, inverse = context.saved["normalized"], context.saved["inverse"]
        grad = self.scaled_backward(grad_y.reshape(normalized.shape), normalized, parameters, gradients)
        if not self.uses_batch_statistics(context.training):
            grad_x: Array = grad * inverse
            return grad_x.reshape(x.shape)
        shape = (len(inverse), -1)
        return standardize_backward(normalized.reshape(shape), inverse, grad.reshape(shape)).reshape(x.shape)


_DOC = """ samples, per sample and channel, as in torch.nn.

    y = (x - mean) / sqrt(var + eps) * weight + bias, with each sample's own mean and (biased) variance, in training as
    in evaluation; with track_running_stats, evaluation takes their running means instead (see nn.BatchNorm2d).

    Parameters, all (num_features,): `weight` and `bias` with affine=True; statistics `running_mean` and `running_var`
    with track_running_stats=True. For (times, features) see nn.ChannelsLast.

    Ulyanov, Vedaldi and Lempitsky, Instance Normalization (2016).
    """


class InstanceNorm1d(InstanceNorm):
    __doc__ = "Normalizes (num_features, length)" + _DOC
    rank: ClassVar[int] = 1


class InstanceNorm2d(InstanceNorm):
    __doc__ = "Normalizes (num_features, height, width)" + _DOC
    rank: ClassVar[int] = 2


class InstanceNorm3d(InstanceNorm):
    __doc__ = "Normalizes (num_features, depth, height, width)" + _DOC
    rank: ClassVar[int] = 3
