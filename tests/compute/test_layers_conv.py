"""Convolutions against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from compute import InputError, nn
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
