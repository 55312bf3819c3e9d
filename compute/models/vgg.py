"""VGG: Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition (2014)."""

from __future__ import annotations

from compute import nn

CIFAR_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""(channels, convolutions) of each block of vgg_cifar10; a pooling ends each."""

IMAGENET_BLOCKS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of each block, whose channels are 64, 128, 256, 512 and 512."""


def vgg_cifar10(classes: int = 10, dropout: bool = True) -> nn.Sequential:
    """VGG with batch normalization for 32x32 colour images: (3, 32, 32) to log-probabilities (classes,).

    BigDL's VggForCifar10, after S. Zagoruyko's (torch.ch/blog/2015/07/30/cifar.html): 13 convolutions, each with batch
    normalization (eps 1e-3) and ReLU, and two linear layers. Convolutions start normal with the variance that keeps
    that of the gradients (He et al., 2015), their biases at 0, as in Zagoruyko's.

    Args:
        dropout: 0.3 or 0.4 between the convolutions of a block, 0.5 before the linear layers.
    """
    model = nn.Sequential()
    channels = 3
    for block, (width, convolutions) in enumerate(CIFAR_BLOCKS, start=1):
        for index in range(1, convolutions + 1):
            place = f"{block}_{index}"
            model.add(_conv3x3(channels, width, f"conv{place}"))
            model.add(nn.BatchNorm2d(width, eps=1e-3, name=f"bn{place}"))
            model.add(nn.ReLU())
            channels = width
            if dropout and index < convolutions:
                model.add(nn.Dropout(0.3 if block == 1 else 0.4))
        model.add(nn.MaxPool2d(2))
    model.add(nn.Flatten())
    if dropout:
        model.add(nn.Dropout(0.5))
    model.add(nn.Linear(512, 512, name="fc1"))
    model.add(nn.BatchNorm1d(512, name="bn_fc1"))
    model.add(nn.ReLU())
    if dropout:
        model.add(nn.Dropout(0.5))
    return model.add(nn.Linear(512, classes, name="fc2")).add(nn.LogSoftmax())


def vgg16(classes: int = 1000, dropout: bool = True) -> nn.Sequential:
    """VGG-16 (configuration D): (3, 224, 224) to log-probabilities (classes,)."""
    return _vgg(16, classes, dropout)


def vgg19(classes: int = 1000, dropout: bool = True) -> nn.Sequential:
    """VGG-19 (configuration E): (3, 224, 224) to log-probabilities (classes,)."""
    return _vgg(19, classes, dropout)


def _vgg(depth: int, classes: int, dropout: bool) -> nn.Sequential:
    model = nn.Sequential()
    channels = 3
    for block, convolutions in enumerate(IMAGENET_BLOCKS[depth], start=1):
        width = min(64 * 2 ** (block - 1), 512)
        for index in range(1, convolutions + 1):
            model.add(_conv3x3(channels, width, f"conv{block}_{index}")).add(nn.ReLU())
            channels = width
        model.add(nn.MaxPool2d(2))
    model.add(nn.Flatten())
    features = 512 * 7 * 7
    for index in (6, 7):
        init = nn.init.RandomNormal(0.0, 0.01)
        model.add(nn.Linear(features, 4096, weight_init=init, bias_init=nn.init.Zeros(), name=f"fc{index}"))
        model.add(nn.ReLU())
        if dropout:
            model.add(nn.Dropout(0.5))
        features = 4096
    init = nn.init.RandomNormal(0.0, 0.01)
    model.add(nn.Linear(features, classes, weight_init=init, bias_init=nn.init.Zeros(), name="fc8"))
    return model.add(nn.LogSoftmax())


def _conv3x3(in_channels: int, out_channels: int, name: str) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels,
        out_channels,
        3,
        padding=1,
        weight_init=nn.init.KaimingNormal(mode="fan_out"),
        bias_init=nn.init.Zeros(),
        name=name,
    )
