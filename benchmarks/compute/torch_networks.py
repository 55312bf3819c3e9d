"""The compared networks as a PyTorch user writes them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.compute.networks import VOCABULARY


def vgg_cifar10() -> nn.Module:
    """VGG with batch normalization for CIFAR-10, without dropout."""
    layers: list[nn.Module] = []
    channels = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width, eps=1e-3), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    head = [nn.Flatten(), nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(inplace=True), nn.Linear(512, 10)]
    return nn.Sequential(*layers, *head, nn.LogSoftmax(1))


def lenet5() -> nn.Module:
    """BigDL's LeNet-5."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(6, 12, 5), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(192, 100), nn.Tanh(), nn.Linear(100, 10), nn.LogSoftmax(1),
    )  # fmt: skip


class Bottleneck(nn.Module):
    """ResNet-50's block."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        out: Tensor = self.relu(self.bn3(self.conv3(y)) + self.shortcut(x))
        return out


class Basic(nn.Module):
    """ResNet-20's block with the parameter-free shortcut (option A)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.stride, self.pad = stride, width - channels
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.stride != 1 or self.pad:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad // 2, self.pad // 2))
        out: Tensor = self.relu(y + x)
        return out


def resnet50() -> nn.Module:
    """ResNet-50 for ImageNet."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1),
    ]  # fmt: skip
    channels = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            layers.append(Bottleneck(channels, 64 << stage, 2 if stage and not block else 1))
            channels = 256 << stage
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000), nn.LogSoftmax(1)]
    return nn.Sequential(*layers, *head)


def resnet20() -> nn.Module:
    """ResNet-20 for CIFAR-10."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    channels = 16
    for stage in range(3):
        for block in range(3):
            layers.append(Basic(channels, 16 << stage, 2 if stage and not block else 1))
            channels = 16 << stage
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10), nn.LogSoftmax(1)]
    return nn.Sequential(*layers, *head)


class Inception(nn.Module):
    """GoogLeNet's block: four branches, joined."""

    def __init__(self, channels: int, one: int, three: tuple[int, int], five: tuple[int, int], pool: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([
            nn.Sequential(nn.Conv2d(channels, one, 1), nn.ReLU(inplace=True)),
            nn.Sequential(
                nn.Conv2d(channels, three[0], 1), nn.ReLU(inplace=True),
                nn.Conv2d(three[0], three[1], 3, padding=1), nn.ReLU(inplace=True),
            ),
            nn.Sequential(
                nn.Conv2d(channels, five[0], 1), nn.ReLU(inplace=True),
                nn.Conv2d(five[0], five[1], 5, padding=2), nn.ReLU(inplace=True),
            ),
            nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(channels, pool, 1), nn.ReLU(inplace=True)),
        ])  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        return torch.cat([branch(x) for branch in self.branches], 1)


def inception_v1() -> nn.Module:
    """GoogLeNet without auxiliary classifiers and dropout."""

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    return nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3), nn.ReLU(inplace=True), pool(), nn.LocalResponseNorm(5, 1e-4, 0.75),
        nn.Conv2d(64, 64, 1), nn.ReLU(inplace=True), nn.Conv2d(64, 192, 3, padding=1), nn.ReLU(inplace=True),
        nn.LocalResponseNorm(5, 1e-4, 0.75), pool(),
        Inception(192, 64, (96, 128), (16, 32), 32), Inception(256, 128, (128, 192), (32, 96), 64), pool(),
        Inception(480, 192, (96, 208), (16, 48), 64), Inception(512, 160, (112, 224), (24, 64), 64),
        Inception(512, 128, (128, 256), (24, 64), 64), Inception(512, 112, (144, 288), (32, 64), 64),
        Inception(528, 256, (160, 320), (32, 128), 128), pool(),
        Inception(832, 256, (160, 320), (32, 128), 128), Inception(832, 384, (192, 384), (48, 128), 128),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 1000), nn.LogSoftmax(1),
    )  # fmt: skip


class LstmLanguageModel(nn.Module):
    """Embedding, LSTM layers, scores."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 400)
        self.lstm = nn.LSTM(400, 400, 2, batch_first=True)
        self.output = nn.Linear(400, VOCABULARY)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (n, times, vocabulary)."""
        scores: Tensor = self.output(self.lstm(self.embedding(x))[0])
        return scores


def lstm_lm() -> nn.Module:
    """The LSTM language model."""
    return LstmLanguageModel()


class TransformerLanguageModel(nn.Module):
    """Causal Transformer encoder with learnt positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(VOCABULARY, 256), nn.Parameter(torch.zeros(64, 256))
        layer = nn.TransformerEncoderLayer(256, 4, 1024, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4, nn.LayerNorm(256), enable_nested_tensor=False)
        self.output = nn.Linear(256, VOCABULARY)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(64))

    def forward(self, x: Tensor) -> Tensor:
        """Scores (n, times, vocabulary)."""
        hidden = self.encoder(self.embedding(x) * 16.0 + self.positions, mask=self.mask, is_causal=True)
        scores: Tensor = self.output(hidden)
        return scores


def transformer_lm() -> nn.Module:
    """The Transformer language model."""
    return TransformerLanguageModel()
