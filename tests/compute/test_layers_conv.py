"""Convolutions against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import compute
from compute import InputError, nn
from compute.description import describe, restore
from tests.compute.layer_check import check_layer

F = torch.nn.functional
CONVS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TORCH_CONVS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def random_sizes(rng: np.random.Generator, rank: int, low: int, high: int) -> tuple[int, ...]:
    return tuple(int(v) for v in rng.integers(low, high + 1, rank))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("seed", range(12))
def test_convolutions(rank: int, seed: int) -> None:
    rng = np.random.default_rng(100 * rank + seed)
    groups = int(rng.integers(1, 4))
    channels, out = groups * int(rng.integers(1, 4)), groups * int(rng.integers(1, 4))
    kernel, stride = random_sizes(rng, rank, 1, 4), random_sizes(rng, rank, 1, 3)
    padding, dilation = random_sizes(rng, rank, 0, 2), random_sizes(rng, rank, 1, 2)
    smallest = [max(1, d * (k - 1) + 1 - 2 * p) for k, d, p in zip(kernel, dilation, padding, strict=True)]
    size = tuple(s + int(rng.integers(0, 6)) for s in smallest)

    def reference(x: Any, weight: Any, bias: Any = None) -> Any:
        return TORCH_CONVS[rank](x, weight, bias, stride, padding, dilation, groups)

    layer = CONVS[rank](channels, out, kernel, stride, padding, dilation, groups, bias=bool(seed % 2))
    check_layer(layer, [(channels, *size)], reference, batch=int(rng.integers(1, 5)), seed=seed)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (2, 1), (3, 1), (4, 3), (5, 2)])
def test_padding_same_keeps_the_size(rank: int, kernel: int, dilation: int) -> None:
    layer = CONVS[rank](2, 3, kernel, padding="same", dilation=dilation)
    shape = (2, *(4, 5, 3)[:rank])
    assert layer.output_shape(shape) == (3, *shape[1:])

    def reference(x: Any, weight: Any, bias: Any) -> Any:
        # PyTorch pads an odd number of zeros with a warning that this may copy.
        total = dilation * (kernel - 1)
        x = F.pad(x, (total // 2, total - total // 2) * rank)
        return TORCH_CONVS[rank](x, weight, bias, dilation=dilation)

    check_layer(layer, [shape], reference)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv3d(48, 48, (4, 1, 2), 2, (3, 0, 0), (1, 1, 2), bias=False), (48, 2, 1, 3)),
        (nn.Conv3d(39, 10, 3, (1, 3, 2), (2, 1, 1), bias=False), (39, 1, 4, 4)),
        (nn.Conv2d(32, 16, 3, padding=1, bias=False), (32, 1, 1)),
        (nn.Conv1d(72, 32, 4, 3, 1, groups=2, bias=False), (72, 2)),
    ],
)
def test_windows_wider_than_the_image(layer: Any, shape: tuple[int, ...]) -> None:
    """Some of oneDNN's kernels give anything as gradient of weights that only meet padding there."""

    def reference(x: Any, weight: Any) -> Any:
        return TORCH_CONVS[layer.rank](
            x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups
        )

    assert layer.window.overhangs(shape[1:], layer.output_shape(shape)[1:])
    check_layer(layer, [shape], reference)


def test_depthwise_large_image_and_many_blocks() -> None:
    def reference(x: Any, weight: Any, bias: Any) -> Any:
        return F.conv2d(x, weight, bias, padding=1, groups=12)

    check_layer(nn.Conv2d(12, 24, 3, padding=1, groups=12), [(12, 61, 67)], reference, batch=5)


def test_blocks_of_the_batch_cover_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 1, 2 and all of 5 samples."""
    for elements in (1, 2 * 3 * 9 * 16 + 5, 2**20):
        monkeypatch.setattr("compute.nn.convolution.BLOCK_ELEMENTS", elements)
        check_layer(nn.Conv2d(3, 4, 3), [(3, 6, 6)], F.conv2d, batch=5)


def test_wrong_arguments() -> None:
    for make, text in (
        (lambda: nn.Conv2d(4, 6, 3, groups=4), "groups must divide in_channels and out_channels, got 4 for 4 and 6"),
        (lambda: nn.Conv1d(4, 6, 3, stride=2, padding="same"), "needs stride 1"),
        (lambda: nn.Conv1d(4, 6, 3, padding="full"), '"same" or "valid"'),  # type: ignore[arg-type]
        (lambda: nn.Conv3d(4, 6, (3, 3)), "kernel_size must be one or 3 whole numbers"),
        (lambda: nn.Conv2d(4, 6, 3, dilation=0), "dilation"),
        (lambda: nn.Conv2d(4, 6, 3).output_shape((3, 8, 8)), r"needs \(4, height, width\)"),
        (lambda: nn.Conv1d(4, 6, 3).output_shape((4, 8, 8)), r"needs \(4, length\)"),
        (lambda: nn.Conv2d(4, 6, 3, dilation=2).output_shape((4, 4, 9)), "larger than the padded image"),
    ):
        with pytest.raises(InputError, match=text):
            make()


TRANSPOSED: dict[int, Any] = {
    1: (nn.ConvTranspose1d, F.conv_transpose1d),
    2: (nn.ConvTranspose2d, F.conv_transpose2d),
    3: (nn.ConvTranspose3d, F.conv_transpose3d),
}


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("seed", range(12))
def test_transposed_convolutions(rank: int, seed: int) -> None:
    rng = np.random.default_rng(100 * rank + seed)
    groups = int(rng.integers(1, 4))
    channels, out = groups * int(rng.integers(1, 4)), groups * int(rng.integers(1, 4))
    kernel, stride = random_sizes(rng, rank, 1, 4), random_sizes(rng, rank, 1, 3)
    dilation = random_sizes(rng, rank, 1, 2)
    extra = tuple(int(rng.integers(0, max(s, d))) for s, d in zip(stride, dilation, strict=True))
    # torch.nn.functional refuses what cuts the whole output off
    padding = tuple(int(rng.integers(0, d * (k - 1) // 2 + 1)) for k, d in zip(kernel, dilation, strict=True))
    size = random_sizes(rng, rank, 1, 5)
    ours, torchs = TRANSPOSED[rank]

    def reference(x: Any, weight: Any, bias: Any = None) -> Any:
        return torchs(x, weight, bias, stride, padding, extra, groups, dilation)

    layer = ours(channels, out, kernel, stride, padding, extra, groups, bool(seed % 2), dilation)
    check_layer(layer, [(channels, *size)], reference, batch=int(rng.integers(1, 5)), seed=seed)


@pytest.mark.parametrize("seed", range(4))
def test_separable_convolution(seed: int) -> None:
    cases: Any = ((1, 0, 1, 1), (2, 1, 1, 3), (1, (0, 2), (2, 1), 2), ((1, 2), 1, 1, 2))
    stride, padding, dilation, multiplier = cases[seed]
    layer = nn.SeparableConv2d(3, 5, (3, 2), stride, padding, dilation, multiplier, bias=bool(seed % 2))

    def reference(x: Any, depthwise_weight: Any, pointwise_weight: Any, pointwise_bias: Any = None) -> Any:
        middle = F.conv2d(x, depthwise_weight, None, stride, padding, dilation, groups=3)
        return F.conv2d(middle, pointwise_weight, pointwise_bias)

    check_layer(layer, [(3, 7, 8)], reference)


@pytest.mark.parametrize(
    "table",
    [
        ((0, 0), (1, 0), (2, 1), (0, 3), (2, 3)),  # output 2 has no connection
        nn.SpatialConvolutionMap.full(3, 4),
        nn.SpatialConvolutionMap.one_to_one(3),
    ],
)
@pytest.mark.parametrize(("stride", "padding"), [(1, 0), ((2, 1), (1, 2))])
def test_convolution_by_a_table(table: Any, stride: Any, padding: Any) -> None:
    layer = nn.SpatialConvolutionMap(table, (3, 2), stride, padding)

    def reference(x: Any, weight: Any, bias: Any) -> Any:
        rows = torch.tensor(table)
        dense = torch.zeros(layer.out_channels, 3, 3, 2, dtype=weight.dtype)
        dense = dense.index_put((rows[:, 1], rows[:, 0]), weight)
        return F.conv2d(x, dense, bias, stride, padding)

    check_layer(layer, [(3, 5, 6)], reference)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), ((3, 2), (2, 1), (1, 0)), ((2, 5), 3, 2)])
def test_locally_connected_2d(kernel: Any, stride: Any, padding: Any, bias: bool) -> None:
    layer = nn.LocallyConnected2d(2, 3, kernel, stride, padding, bias)

    def reference(x: Any, weight: Any, bias: Any = None) -> Any:
        out = weight.shape[:2]
        columns = F.unfold(x, kernel, 1, padding, stride).reshape(len(x), -1, *out)
        y = torch.einsum("hwok,nkhw->nohw", weight.flatten(3), columns)
        return y if bias is None else y + bias

    check_layer(layer, [(2, 6, 5)], reference)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), (3, 2, 1), (4, 1, 3)])
def test_locally_connected_1d(kernel: int, stride: int, padding: int) -> None:
    layer = nn.LocallyConnected1d(2, 3, kernel, stride, padding)

    def reference(x: Any, weight: Any, bias: Any) -> Any:
        columns = F.unfold(x[:, :, None], (1, kernel), 1, (0, padding), (1, stride))
        return torch.einsum("lok,nkl->nol", weight.flatten(2), columns) + bias

    check_layer(layer, [(2, 7)], reference)


def test_channels_last() -> None:
    def reference(x: Any, conv1d_weight: Any, conv1d_bias: Any) -> Any:
        return F.conv1d(x.transpose(1, 2), conv1d_weight, conv1d_bias).transpose(1, 2)

    check_layer(nn.ChannelsLast(nn.Conv1d(3, 4, 2)), [(6, 3)], reference)

    def images(x: Any, sequential_conv2d_0_weight: Any, sequential_conv2d_0_bias: Any) -> Any:
        y = F.conv2d(x.permute(0, 3, 1, 2), sequential_conv2d_0_weight, sequential_conv2d_0_bias)
        return F.max_pool2d(y, 2).permute(0, 2, 3, 1)

    check_layer(nn.ChannelsLast(nn.Sequential(nn.Conv2d(3, 4, 2), nn.MaxPool2d(2))), [(6, 5, 3)], images)
    check_layer(nn.ChannelsLast(nn.GlobalMaxPool1d()), [(6, 3)], lambda x: x.max(dim=1).values)


def test_wrong_arguments_of_kin() -> None:
    for make, text in (
        (lambda: nn.ConvTranspose2d(2, 2, 3, output_padding=1), "output_padding must be smaller than stride or dil"),
        (lambda: nn.ConvTranspose2d(2, 3, 3, groups=2), "groups must divide"),
        (lambda: nn.ConvTranspose1d(2, 2, 1, padding=2).output_shape((2, 3)), "nothing is left"),
        (lambda: nn.SpatialConvolutionMap([], 3), "must have rows"),
        (lambda: nn.SpatialConvolutionMap([(0, 0), (0, 0)], 3), "each once"),
        (lambda: nn.SpatialConvolutionMap([(2, 0)], 3, in_channels=2), "beyond 2 inputs"),
        (lambda: nn.LocallyConnected2d(2, 3, 9).output_shape((2, 5, 5)), "larger than the padded image"),
        (lambda: compute.graph.build_graph(nn.ChannelsLast(nn.ReLU()), (3,)), r"takes samples \(\*size, channels\)"),
    ):
        with pytest.raises(InputError, match=text):
            make()


def test_spatial_layers_over_the_steps_of_a_sequence() -> None:
    """Statistics, too, are those of all steps of all samples."""

    def reference(x: Any, **p: Any) -> Any:
        y = F.conv2d(x.flatten(0, 1), p["sequential_conv_weight"])
        y = F.batch_norm(y, None, None, p["sequential_bn_weight"], p["sequential_bn_bias"], training=True)
        return y.reshape(*x.shape[:2], *y.shape[1:])

    steps = nn.TimeDistributed(nn.Sequential(nn.Conv2d(2, 3, 2, bias=False, name="conv"), nn.BatchNorm2d(3, name="bn")))
    check_layer(steps, [(4, 2, 5, 5)], reference, evaluation=False)


def test_composites_as_data() -> None:
    model = nn.Sequential(
        nn.SpatialConvolutionMap(((0, 0), (1, 1)), 3),
        nn.SpatialContrastiveNormalization(2, ((1.0, 2.0, 1.0),) * 3),
        nn.NormalizeScale(2.0, 20.0, (2, 1, 1)),
        nn.SeparableConv2d(2, 3, 3, padding="same"),
        nn.ChannelsLast(nn.Conv2d(10, 4, 1)),
        nn.LPPool2d(2, 1),
        nn.AdaptiveMaxPool2d((None, 2)),
        nn.GlobalAvgPool2d(),
    )
    again = restore(describe(model))
    assert compute.fingerprint(again, (2, 12, 12)) == compute.fingerprint(model, (2, 12, 12))
