"""Residual networks: He et al., Deep Residual Learning for Image Recognition (2015)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from compute import nn
from compute.errors import InputError

Shortcut = Literal["A", "B"]
"""Where a block changes its input's shape, its shortcut takes every other element and adds channels of zeros (A), or is
a 1x1 convolution with batch normalization (B)."""

Block = Callable[[int, int, int, Shortcut, str], nn.Module]


def resnet20(classes: int = 10, shortcut: Shortcut = "A") -> nn.Sequential:
    """ResNet-20 for 32x32 colour images: (3, 32, 32) to log-probabilities (classes,)."""
    return resnet_cifar(20, classes, shortcut)


def resnet56(classes: int = 10, shortcut: Shortcut = "A") -> nn.Sequential:
    """ResNet-56 for 32x32 colour images: (3, 32, 32) to log-probabilities (classes,)."""
    return resnet_cifar(56, classes, shortcut)


def resnet_cifar(depth: int, classes: int = 10, shortcut: Shortcut = "A") -> nn.Sequential:
    """The paper's networks for CIFAR-10 (section 4.2): (3, 32, 32) to log-probabilities (classes,).

    Args:
        depth: 6 n + 2, for n blocks in each of three stages: 20, 32, 44, 56, 110.
        shortcut: the paper takes A.
    """
    if isinstance(depth, bool) or depth < 8 or (depth - 2) % 6:
        raise InputError(f"resnet_cifar: depth must be 6 n + 2 such as 20, 32, 44, 56 or 110, got {depth!r}")
    _check(shortcut)
    count = (depth - 2) // 6
    model = nn.Sequential(*_conv_bn(3, 16, 3, 1, "stem"), nn.ReLU())
    _add_stages(model, basic_block, 16, (16, 32, 64), (count,) * 3, 1, shortcut)
    return _add_classifier(model, 64, classes)


def resnet18(classes: int = 1000, shortcut: Shortcut = "B") -> nn.Sequential:
    """ResNet-18: (3, 224, 224) to log-probabilities (classes,)."""
    return _imagenet(basic_block, 1, (2, 2, 2, 2), classes, shortcut)


def resnet34(classes: int = 1000, shortcut: Shortcut = "B") -> nn.Sequential:
    """ResNet-34: (3, 224, 224) to log-probabilities (classes,)."""
    return _imagenet(basic_block, 1, (3, 4, 6, 3), classes, shortcut)


def resnet50(classes: int = 1000, shortcut: Shortcut = "B") -> nn.Sequential:
    """ResNet-50: (3, 224, 224) to log-probabilities (classes,). The stride is in the 3x3 convolution ("v1.5")."""
    return _imagenet(bottleneck, 4, (3, 4, 6, 3), classes, shortcut)


def basic_block(channels: int, width: int, stride: int, shortcut: Shortcut, name: str) -> nn.Module:
    """Two 3x3 convolutions around a shortcut: (channels, h, w) to (width, h / stride, w / stride)."""
    branch = nn.Sequential(
        *_conv_bn(channels, width, 3, stride, "1"),
        nn.ReLU(),
        *_conv_bn(width, width, 3, 1, "2"),
        name="branch",
    )
    return _residual(branch, channels, width, stride, shortcut, name)


def bottleneck(channels: int, width: int, stride: int, shortcut: Shortcut, name: str) -> nn.Module:
    """1x1, 3x3 and 1x1 convolutions around a shortcut: (channels, h, w) to (4 width, h / stride, w / stride)."""
    branch = nn.Sequential(
        *_conv_bn(channels, width, 1, 1, "1"),
        nn.ReLU(),
        *_conv_bn(width, width, 3, stride, "2"),
        nn.ReLU(),
        *_conv_bn(width, 4 * width, 1, 1, "3", nn.init.Zeros()),  # each block starts as the identity
        name="branch",
    )
    return _residual(branch, channels, 4 * width, stride, shortcut, name)


def _residual(
    branch: nn.Module, channels: int, width: int, stride: int, shortcut: Shortcut, name: str
) -> nn.Module:
    way = nn.Sequential(name="shortcut")  # of no layers: the identity
    if shortcut == "B" and (channels != width or stride != 1):
        for layer in _conv_bn(channels, width, 1, stride, ""):
            way.add(layer)
    elif shortcut == "A":
        if stride != 1:
            way.add(nn.AvgPool2d(1, stride))
        if channels != width:
            way.add(nn.Padding(0, width - channels))
    return nn.Sequential(nn.ConcatTable(branch, way, name="ways"), nn.CAddTable(), nn.ReLU(), name=name)


def _imagenet(block: Block, expansion: int, counts: tuple[int, ...], classes: int, shortcut: Shortcut) -> nn.Sequential:
    _check(shortcut)
    model = nn.Sequential(*_conv_bn(3, 64, 7, 2, "stem"), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    _add_stages(model, block, 64, (64, 128, 256, 512), counts, expansion, shortcut)
    return _add_classifier(model, 512 * expansion, classes)


def _add_stages(
    model: nn.Sequential,
    block: Block,
    channels: int,
    widths: tuple[int, ...],
    counts: tuple[int, ...],
    expansion: int,
    shortcut: Shortcut,
) -> None:
    """Blocks of each width; the first of every stage but the first halves height and width."""
    for stage, (width, count) in enumerate(zip(widths, counts, strict=True), start=1):
        for index in range(count):
            stride = 2 if stage > 1 and index == 0 else 1
            model.add(block(channels, width, stride, shortcut, f"stage{stage}_{index + 1}"))
            channels = width * expansion


def _add_classifier(model: nn.Sequential, features: int, classes: int) -> nn.Sequential:
    init = nn.init.RandomNormal(0.0, 0.01)
    model.add(nn.GlobalAvgPool2d())
    model.add(nn.Linear(features, classes, weight_init=init, bias_init=nn.init.Zeros(), name="fc"))
    return model.add(nn.LogSoftmax())


def _conv_bn(
    channels: int, width: int, kernel: int, stride: int, name: str, gamma: nn.init.Initializer | None = None
) -> tuple[nn.Module, nn.Module]:
    """A convolution without bias that keeps the size but for its stride, and its batch normalization."""
    init = nn.init.KaimingNormal(mode="fan_out")
    conv = nn.Conv2d(
        channels, width, kernel, stride, kernel // 2, bias=False, weight_init=init, name=f"conv{name}"
    )
    return conv, nn.BatchNorm2d(width, weight_init=gamma, name=f"bn{name}")


def _check(shortcut: str) -> None:
    if shortcut not in ("A", "B"):
        raise InputError(f'shortcut must be "A" or "B", got {shortcut!r}')
