"""Inception v1 (GoogLeNet) and v2 (BN-Inception), layer by layer as BigDL's and Caffe's."""

from __future__ import annotations

from typing import NamedTuple

from compute import nn


class V1(NamedTuple):
    """Widths of an inception module: of the 1x1 convolution, of reduction and convolution of the others."""

    one: int
    three_reduce: int
    three: int
    five_reduce: int
    five: int
    pool: int

    @property
    def width(self) -> int:
        """Output channels."""
        return self.one + self.three + self.five + self.pool


V1_MODULES = {
    "3a": V1(64, 96, 128, 16, 32, 32),
    "3b": V1(128, 128, 192, 32, 96, 64),
    "4a": V1(192, 96, 208, 16, 48, 64),
    "4b": V1(160, 112, 224, 24, 64, 64),
    "4c": V1(128, 128, 256, 24, 64, 64),
    "4d": V1(112, 144, 288, 32, 64, 64),
    "4e": V1(256, 160, 320, 32, 128, 128),
    "5a": V1(256, 160, 320, 32, 128, 128),
    "5b": V1(384, 192, 384, 48, 128, 128),
}
"""Szegedy et al., Going Deeper with Convolutions (2014), table 1."""


class V2(NamedTuple):
    """Widths of a batch-normalized module. Without `one` and `pool` it halves height and width."""

    one: int
    three_reduce: int
    three: int
    double_reduce: int
    double: int
    average: bool
    pool: int

    @property
    def halves(self) -> bool:
        """Whether its strides are 2."""
        return self.pool == 0

    def width(self, channels: int) -> int:
        """Output channels."""
        return self.one + self.three + self.double + (self.pool or channels)


V2_MODULES = {
    "3a": V2(64, 64, 64, 64, 96, True, 32),
    "3b": V2(64, 64, 96, 64, 96, True, 64),
    "3c": V2(0, 128, 160, 64, 96, False, 0),
    "4a": V2(224, 64, 96, 96, 128, True, 128),
    "4b": V2(192, 96, 128, 96, 128, True, 128),
    "4c": V2(160, 128, 160, 128, 160, True, 96),
    "4d": V2(96, 128, 192, 160, 192, True, 96),
    "4e": V2(0, 128, 192, 192, 256, False, 0),
    "5a": V2(352, 192, 320, 160, 224, True, 128),
    "5b": V2(352, 192, 320, 192, 224, False, 128),
}
"""Ioffe and Szegedy, Batch Normalization (2015), appendix."""


def inception_v1(classes: int = 1000, aux: bool = False, dropout: bool = True) -> nn.Sequential:
    """GoogLeNet: (3, 224, 224) to log-probabilities (classes,).

    Args:
        aux: with the two auxiliary classifiers; the output is then (3 classes,): log-probabilities of the main, the
            second and the first classifier, as BigDL's Inception_v1. The first `classes` of them are the prediction.
        dropout: 0.4 before the classifier, 0.7 in the auxiliary ones.
    """
    stem = [
        *_conv_relu(3, 64, 7, "conv1_7x7", stride=2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.LocalResponseNorm(5),
        *_conv_relu(64, 64, 1, "conv2_3x3_reduce"),
        *_conv_relu(64, 192, 3, "conv2_3x3"),
        nn.LocalResponseNorm(5),
        nn.MaxPool2d(3, 2, ceil_mode=True),
    ]
    last = [nn.GlobalAvgPool2d(), *_dropout(dropout, 0.4), _linear(1024, classes, "classifier"), nn.LogSoftmax()]
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    parts = [
        [*stem, *_v1_modules(192, "3a", "3b"), nn.MaxPool2d(3, 2, ceil_mode=True), *_v1_modules(480, "4a")],
        _v1_modules(512, "4b", "4c", "4d"),
        [*_v1_modules(528, "4e"), pool, *_v1_modules(832, "5a", "5b"), *last],
    ]
    if not aux:
        return nn.Sequential(*(layer for part in parts for layer in part))
    heads = [_v1_auxiliary(512, classes, dropout, "aux1"), _v1_auxiliary(528, classes, dropout, "aux2")]
    return _with_heads(parts, heads)


def inception_v2(classes: int = 1000, aux: bool = False) -> nn.Sequential:
    """BN-Inception: (3, 224, 224) to log-probabilities (classes,); `aux` as for inception_v1. No dropout."""
    stem = [
        *_conv_bn_relu(3, 64, 7, "conv1_7x7", stride=2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        *_conv_bn_relu(64, 64, 1, "conv2_3x3_reduce"),
        *_conv_bn_relu(64, 192, 3, "conv2_3x3"),
        nn.MaxPool2d(3, 2, ceil_mode=True),
    ]
    last = [nn.GlobalAvgPool2d(), _linear(1024, classes, "classifier"), nn.LogSoftmax()]
    parts = [
        [*stem, *_v2_modules(192, "3a", "3b", "3c")],
        _v2_modules(576, "4a", "4b", "4c", "4d", "4e"),
        [*_v2_modules(1024, "5a", "5b"), *last],
    ]
    if not aux:
        return nn.Sequential(*(layer for part in parts for layer in part))
    heads = [
        _v2_auxiliary(576, nn.AvgPool2d(5, 3, ceil_mode=True), 4, classes, "aux1"),
        _v2_auxiliary(1024, nn.AvgPool2d(5, 3, ceil_mode=True), 2, classes, "aux2"),
    ]
    return _with_heads(parts, heads)


def _with_heads(parts: list[list[nn.Module]], heads: list[nn.Sequential]) -> nn.Sequential:
    """Three parts of a network with an auxiliary classifier behind the first and the second."""
    rest = nn.Concat(nn.Sequential(*parts[2], name="main"), heads[1], name="split2")
    rest = nn.Concat(nn.Sequential(*parts[1], rest, name="main"), heads[0], name="split1")
    return nn.Sequential(*parts[0], rest)


def _v1_modules(channels: int, *names: str) -> list[nn.Module]:
    modules: list[nn.Module] = []
    for name in names:
        widths = V1_MODULES[name]
        modules.append(_v1_module(channels, widths, f"inception_{name}"))
        channels = widths.width
    return modules


def _v1_module(channels: int, widths: V1, name: str) -> nn.Module:
    return nn.Concat(
        nn.Sequential(*_conv_relu(channels, widths.one, 1, "conv"), name="1x1"),
        nn.Sequential(
            *_conv_relu(channels, widths.three_reduce, 1, "reduce"),
            *_conv_relu(widths.three_reduce, widths.three, 3, "conv"),
            name="3x3",
        ),
        nn.Sequential(
            *_conv_relu(channels, widths.five_reduce, 1, "reduce"),
            *_conv_relu(widths.five_reduce, widths.five, 5, "conv"),
            name="5x5",
        ),
        nn.Sequential(nn.MaxPool2d(3, 1, 1), *_conv_relu(channels, widths.pool, 1, "proj"), name="pool"),
        name=name,
    )


def _v1_auxiliary(channels: int, classes: int, dropout: bool, name: str) -> nn.Sequential:
    return nn.Sequential(
        nn.AvgPool2d(5, 3, ceil_mode=True),
        *_conv_relu(channels, 128, 1, "conv"),
        nn.Flatten(),
        nn.Linear(128 * 4 * 4, 1024, name="fc"),
        nn.ReLU(),
        *_dropout(dropout, 0.7),
        nn.Linear(1024, classes, name="classifier"),
        nn.LogSoftmax(),
        name=name,
    )


def _v2_modules(channels: int, *names: str) -> list[nn.Module]:
    modules: list[nn.Module] = []
    for name in names:
        widths = V2_MODULES[name]
        modules.append(_v2_module(channels, widths, f"inception_{name}"))
        channels = widths.width(channels)
    return modules


def _v2_module(channels: int, widths: V2, name: str) -> nn.Module:
    stride = 2 if widths.halves else 1
    ways = nn.Concat(name=name)
    if widths.one:
        ways.add(nn.Sequential(*_conv_bn_relu(channels, widths.one, 1, ""), name="1x1"))
    three, double = widths.three_reduce, widths.double_reduce
    ways.add(
        nn.Sequential(
            *_conv_bn_relu(channels, three, 1, "_reduce"),
            *_conv_bn_relu(three, widths.three, 3, "", stride=stride),
            name="3x3",
        )
    )
    ways.add(
        nn.Sequential(
            *_conv_bn_relu(channels, double, 1, "_reduce"),
            *_conv_bn_relu(double, widths.double, 3, "_a"),
            *_conv_bn_relu(widths.double, widths.double, 3, "_b", stride=stride),
            name="double3x3",
        )
    )
    if widths.halves:
        return ways.add(nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), name="pool"))
    pool = nn.AvgPool2d(3, 1, 1) if widths.average else nn.MaxPool2d(3, 1, 1)
    return ways.add(nn.Sequential(pool, *_conv_bn_relu(channels, widths.pool, 1, "_proj"), name="pool"))


def _v2_auxiliary(channels: int, pool: nn.Module, size: int, classes: int, name: str) -> nn.Sequential:
    return nn.Sequential(
        pool,
        *_conv_bn_relu(channels, 128, 1, ""),
        nn.Flatten(),
        nn.Linear(128 * size * size, 1024, name="fc"),
        nn.ReLU(),
        nn.Linear(1024, classes, name="classifier"),
        nn.LogSoftmax(),
        name=name,
    )


def _conv_relu(
    channels: int, width: int, kernel: int, name: str, stride: int = 1
) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(
        channels,
        width,
        kernel,
        stride,
        kernel // 2,
        weight_init=nn.init.XavierUniform(),
        bias_init=nn.init.Constant(0.1),
        name=name,
    )
    return conv, nn.ReLU()


def _conv_bn_relu(
    channels: int, width: int, kernel: int, name: str, stride: int = 1
) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(
        channels, width, kernel, stride, kernel // 2, weight_init=nn.init.KaimingNormal(), name=f"conv{name}"
    )
    return conv, nn.BatchNorm2d(width, eps=1e-3, name=f"bn{name}"), nn.ReLU()


def _linear(features: int, classes: int, name: str) -> nn.Linear:
    return nn.Linear(
        features, classes, weight_init=nn.init.XavierUniform(), bias_init=nn.init.Zeros(), name=name
    )


def _dropout(wanted: bool, p: float) -> tuple[nn.Module, ...]:
    return (nn.Dropout(p),) if wanted else ()
