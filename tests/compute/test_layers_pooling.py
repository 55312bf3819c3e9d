"""Poolings against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from compute import InputError, nn
from compute.graph import build_graph
from tests.compute.layer_check import check_layer

F = torch.nn.functional
MAX_POOLS: dict[int, Any] = {
    1: (nn.MaxPool1d, F.max_pool1d),
    2: (nn.MaxPool2d, F.max_pool2d),
    3: (nn.MaxPool3d, F.max_pool3d),
}
AVG_POOLS: dict[int, Any] = {
    1: (nn.AvgPool1d, F.avg_pool1d),
    2: (nn.AvgPool2d, F.avg_pool2d),
    3: (nn.AvgPool3d, F.avg_pool3d),
}


def random_window(rng: np.random.Generator, rank: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    kernel = tuple(int(v) for v in rng.integers(1, 5, rank))
    stride = tuple(int(v) for v in rng.integers(1, 4, rank))
    return kernel, stride, tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("seed", range(12))
def test_max_pooling(rank: int, seed: int) -> None:
    rng = np.random.default_rng(100 * rank + seed)
    kernel, stride, padding = random_window(rng, rank)
    dilation = tuple(int(v) for v in rng.integers(1, 3, rank))
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = tuple(s + int(rng.integers(0, 6)) for s in span)
    ceil_mode = bool(seed % 2)
    ours, torchs = MAX_POOLS[rank]

    def reference(x: Any) -> Any:
        return torchs(x, kernel, stride, padding, dilation, ceil_mode)

    layer = ours(kernel, stride, padding, dilation, ceil_mode=ceil_mode)
    check_layer(layer, [(int(rng.integers(1, 4)), *size)], reference, batch=int(rng.integers(1, 4)), seed=seed)


def test_ties_go_to_the_first_and_large_kernels_count_right() -> None:
    x = np.zeros((2, 1, 40, 40), dtype=np.float32)
    check_layer(nn.MaxPool2d(3, 2, 1), [(1, 40, 40)], lambda x: F.max_pool2d(x, 3, 2, 1), data=[x])
    x[0, 0, 37, 35] = 1  # place 37 * 39 + 35 of the first window: more than a byte
    check_layer(nn.MaxPool2d(39, 1), [(1, 40, 40)], lambda x: F.max_pool2d(x, 39, 1), data=[x])


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("seed", range(12))
def test_average_pooling(rank: int, seed: int) -> None:
    rng = np.random.default_rng(100 * rank + seed)
    kernel, stride, padding = random_window(rng, rank)
    size = tuple(k + int(rng.integers(0, 6)) for k in kernel)
    ceil_mode, count_pad = bool(seed % 2), bool(seed // 2 % 2)
    divisor = {} if rank == 1 or seed < 8 else {"divisor_override": 3}
    ours, torchs = AVG_POOLS[rank]

    def reference(x: Any) -> Any:
        return torchs(x, kernel, stride, padding, ceil_mode, count_pad, **divisor)

    layer = ours(kernel, stride, padding, ceil_mode, count_pad, **divisor)
    check_layer(layer, [(int(rng.integers(1, 4)), *size)], reference, batch=int(rng.integers(1, 4)), seed=seed)


def test_defaults() -> None:
    check_layer(nn.MaxPool2d(2), [(2, 5, 5)], lambda x: F.max_pool2d(x, 2))
    check_layer(nn.AvgPool2d((2, 1)), [(2, 5, 5)], lambda x: F.avg_pool2d(x, (2, 1)))
    check_layer(nn.AvgPool2d(1, 2), [(2, 1, 1)], lambda x: F.avg_pool2d(x, 1, 2))


ADAPTIVE: dict[tuple[str, int], Any] = {
    ("avg", 1): (nn.AdaptiveAvgPool1d, F.adaptive_avg_pool1d, nn.GlobalAvgPool1d),
    ("avg", 2): (nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d, nn.GlobalAvgPool2d),
    ("avg", 3): (nn.AdaptiveAvgPool3d, F.adaptive_avg_pool3d, nn.GlobalAvgPool3d),
    ("max", 1): (nn.AdaptiveMaxPool1d, F.adaptive_max_pool1d, nn.GlobalMaxPool1d),
    ("max", 2): (nn.AdaptiveMaxPool2d, F.adaptive_max_pool2d, nn.GlobalMaxPool2d),
    ("max", 3): (nn.AdaptiveMaxPool3d, F.adaptive_max_pool3d, nn.GlobalMaxPool3d),
}


@pytest.mark.parametrize(("kind", "rank"), ADAPTIVE)
@pytest.mark.parametrize("seed", range(6))
def test_adaptive_pooling(kind: str, rank: int, seed: int) -> None:
    rng = np.random.default_rng(100 * rank + seed)
    size = tuple(int(v) for v in rng.integers(1, 9, rank))
    out = tuple(int(v) for v in rng.integers(1, 7, rank))
    ours, torchs, _ = ADAPTIVE[kind, rank]
    data = None
    if seed % 2:  # many ties
        data = [rng.integers(0, 2, (3, 2, *size)).astype(np.float32)]
    check_layer(ours(out), [(2, *size)], lambda x: torchs(x, out), data=data, seed=seed)


@pytest.mark.parametrize(("kind", "rank"), ADAPTIVE)
def test_global_pooling(kind: str, rank: int) -> None:
    _, torchs, ours = ADAPTIVE[kind, rank]
    shape = (3, 4, 5, 2)[: rank + 1]
    check_layer(ours(), [shape], lambda x: torchs(x, 1).flatten(1))
    assert build_graph(nn.Sequential(ours()), shape).output_specs[0].shape == (3,)


def test_adaptive_pooling_keeps_sizes_that_are_none() -> None:
    check_layer(nn.AdaptiveAvgPool2d((None, 2)), [(2, 5, 7)], lambda x: F.adaptive_avg_pool2d(x, (None, 2)))
    check_layer(nn.AdaptiveMaxPool2d((3, None)), [(2, 5, 7)], lambda x: F.adaptive_max_pool2d(x, (3, None)))


def test_wrong_arguments() -> None:
    for make, text in (
        (lambda: nn.MaxPool2d(2, padding=2), "more than half the kernel"),
        (lambda: nn.AvgPool3d((2, 2)), "kernel_size must be one or 3"),
        (lambda: nn.AvgPool2d(2, divisor_override=0), "divisor_override"),
        (lambda: nn.AdaptiveAvgPool2d(0), "output_size must be one or 2"),
        (lambda: nn.AdaptiveAvgPool2d((1, 2, 3)), "output_size must be one or 2"),
        (lambda: nn.MaxPool2d(9).output_shape((1, 8, 8)), "window"),
        (lambda: build_graph(nn.Sequential(nn.GlobalAvgPool2d()), (3,)), r"needs \(channels, height, width\)"),
    ):
        with pytest.raises(InputError, match=text):
            make()


@pytest.mark.parametrize("p", [1, 2, 2.5, 3])
@pytest.mark.parametrize(("kernel", "stride", "ceil_mode"), [(2, None, False), ((3, 2), (2, 1), False), (3, 2, False)])
def test_power_mean_pooling(p: float, kernel: Any, stride: Any, ceil_mode: bool) -> None:
    x = np.random.default_rng(0).uniform(0.1, 2, (3, 2, 6, 7)).astype(np.float32)

    def reference(x: Any) -> Any:
        return F.lp_pool2d(x, p, kernel, stride, ceil_mode)

    check_layer(nn.LPPool2d(p, kernel, stride, ceil_mode), [(2, 6, 7)], reference, data=[x])


def test_power_mean_pooling_of_other_ranks() -> None:
    x = np.random.default_rng(0).uniform(0.1, 2, (3, 2, 4, 5, 6)).astype(np.float32)
    check_layer(nn.LPPool3d(2, 2), [(2, 4, 5, 6)], lambda x: F.lp_pool3d(x, 2, 2), data=[x])
    row = x[:, :, 0, :, 0]
    check_layer(nn.LPPool1d(3, 2, ceil_mode=True), [(2, 5)], lambda x: F.lp_pool1d(x, 3, 2, None, True), data=[row])
    with pytest.raises(InputError, match="norm_type"):
        nn.LPPool1d(0.5, 2)
