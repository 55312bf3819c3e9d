"""Padding, cropping, upsampling and spatial dropout against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import compute
from compute import InputError, nn
from tests.compute.layer_check import WeightedSum, check_layer

F = torch.nn.functional
SHAPES = {1: (2, 5), 2: (2, 4, 6), 3: (2, 3, 4, 5)}
CASES = {
    1: (1, (2, 0), (0, 3), (-1, 2)),
    2: (1, (2, 0, 1, 3), (0, 0, 0, 1), (-1, 2, 3, -2)),
    3: (1, (2, 0, 1, 2, 0, 1), (-1, -1, 2, 1, -1, 2)),
}
PADS: dict[str, list[Any]] = {
    "constant": [nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d],
    "zero": [nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d],
    "reflect": [nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d],
    "replicate": [nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d],
    "circular": [nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d],
}


@pytest.mark.parametrize(
    ("mode", "rank", "padding"),
    [
        (mode, rank, padding)
        for mode in PADS
        for rank, many in CASES.items()
        for padding in many
        if mode != "circular" or isinstance(padding, int) or min(padding) >= 0  # PyTorch's does not cut off
    ],
)
def test_padding(mode: str, rank: int, padding: Any) -> None:
    several = (padding,) * (2 * rank) if isinstance(padding, int) else padding

    def reference(x: Any) -> Any:
        if mode in ("constant", "zero"):
            return F.pad(x, several, value=1.5 if mode == "constant" else 0.0)
        return F.pad(x, several, mode=mode)

    value = (1.5,) if mode == "constant" else ()
    check_layer(PADS[mode][rank - 1](padding, *value), [SHAPES[rank]], reference)


def test_padding_of_one_element() -> None:
    check_layer(nn.ReplicationPad1d((3, 2)), [(2, 1)], lambda x: F.pad(x, (3, 2), mode="replicate"))
    check_layer(nn.ZeroPad2d((0, 0, -1, 0)), [(1, 2, 1)], lambda x: x[:, :, 1:])
    check_layer(nn.ZeroPad1d((4, -3)), [(1, 2)], lambda x: 0 * F.pad(x, (1, 0)))
    check_layer(nn.ReplicationPad1d((4, -3)), [(1, 2)], lambda x: x[..., [0, 0, 0]])
    check_layer(nn.ReplicationPad1d((-5, 4)), [(1, 2)], lambda x: x[..., [1]])


@pytest.mark.parametrize(("dim", "pad"), [(0, 2), (0, -1), (1, 3), (-1, -2), (2, 0)])
def test_padding_of_bigdl(dim: int, pad: int) -> None:
    def reference(x: Any) -> Any:
        sizes = [0] * 6
        sizes[2 * (2 - dim % 3) + (pad > 0)] = abs(pad)
        return F.pad(x, sizes, value=0.5)

    check_layer(nn.Padding(dim, pad, 0.5), [(2, 3, 4)], reference)


def test_cropping() -> None:
    check_layer(nn.Cropping1d((1, 2)), [(2, 6)], lambda x: x[:, :, 1:-2])
    check_layer(nn.Cropping2d((0, 1), 2), [(2, 6, 5)], lambda x: x[:, :, :-1, 2:-2])
    check_layer(nn.Cropping3d(1, (1, 0), (0, 3)), [(2, 3, 4, 5)], lambda x: x[:, :, 1:-1, 1:, :-3])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_upsampling(size: int) -> None:
    for layer, shape in ((nn.UpSampling1d, (2, 3)), (nn.UpSampling2d, (2, 3, 1)), (nn.UpSampling3d, (2, 3, 2, 4))):
        check_layer(layer(size), [shape], lambda x: F.interpolate(x, scale_factor=float(size), mode="nearest"))
    check_layer(
        nn.UpSampling2d((size, 2)), [(2, 3, 4)], lambda x: x.repeat_interleave(size, 2).repeat_interleave(2, 3)
    )


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("out", [(1, 1), (5, 4), (3, 11), (8, 2), (2, 7)])
@pytest.mark.parametrize("size", [(5, 4), (1, 1), (3, 7)])
def test_resize_bilinear(size: tuple[int, int], out: tuple[int, int], align: bool) -> None:
    def reference(x: Any) -> Any:
        return F.interpolate(x, out, mode="bilinear", align_corners=align)

    check_layer(nn.ResizeBilinear(*out, align_corners=align), [(2, *size)], reference)


def test_resize_bilinear_as_bigdl() -> None:
    """Output pixel i lies at i * size / out: by hand for 2 pixels made 4, which lie at 0, 0.5, 1 and 1.5."""
    row = torch.tensor([[1, 0], [0.5, 0.5], [0, 1], [0, 1]], dtype=torch.float64)

    def reference(x: Any) -> Any:
        return x @ row.T

    check_layer(nn.ResizeBilinear(3, 4, half_pixel_centers=False), [(2, 3, 2)], reference)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_pixel_shuffle(factor: int) -> None:
    check_layer(nn.PixelShuffle(factor), [(2 * factor**2, 3, 4)], lambda x: F.pixel_shuffle(x, factor))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.SpatialDropout1d, (50, 4)), (nn.SpatialDropout2d, (50, 2, 3)), (nn.SpatialDropout3d, (50, 1, 2, 2))],
)
@pytest.mark.parametrize("p", [0.0, 0.25, 0.4])
def test_spatial_dropout(layer: Any, shape: tuple[int, ...], p: float) -> None:
    """Whole channels are 0 or all scaled alike, the gradient likewise, and evaluation changes nothing."""
    criterion = WeightedSum()
    model = nn.Sequential(nn.CAdd(*shape, name="shift"), layer(p))
    program = compute.compile(model, criterion, shape, engine="numpy")
    x = np.ones((40, *shape), dtype=np.float32)
    program.forward_backward(x, (x,), 1.0, (3, 1, 0))
    y = criterion.outputs[0].reshape(40, 50, -1)
    assert (y == y[:, :, :1]).all()
    kept = y[:, :, 0] != 0
    np.testing.assert_allclose(y[:, :, 0][kept], 1 / (1 - p), rtol=1e-4)
    assert kept.mean() == pytest.approx(1 - p, abs=4 * np.sqrt(p * (1 - p) / kept.size) + 1e-9)
    np.testing.assert_allclose(program.gradients.reshape(50, -1)[:, 0], y[:, :, 0].sum(axis=0), rtol=1e-5)
    program.forward_backward(x, (x,), 1.0, (3, 1, 1))
    assert p == 0 or not np.array_equal(criterion.outputs[0].reshape(40, 50, -1), y)
    np.testing.assert_array_equal(program.forward(x), x)


def test_wrong_arguments() -> None:
    for make, text in (
        (lambda: nn.ZeroPad2d((1, 2)), "padding must be one or 4"),
        (lambda: nn.ReflectionPad1d(3).output_shape((1, 3)), "too short for a reflect padding of more than 2"),
        (lambda: nn.CircularPad1d(4).output_shape((1, 3)), "more than 3"),
        (lambda: nn.Cropping1d(2).output_shape((1, 4)), "nothing is left of a dimension of size 4"),
        (lambda: nn.Cropping2d((1, -1)), "a crop"),
        (lambda: nn.Padding(3, 1).output_shape((1, 4)), "no dimension 3"),
        (lambda: nn.PixelShuffle(2).output_shape((3, 4, 4)), "a multiple of 4 channels"),
        (lambda: nn.UpSampling2d((1, 0)), "size"),
        (lambda: nn.SpatialDropout2d(1.0), "below 1"),
    ):
        with pytest.raises(InputError, match=text):
            make()
