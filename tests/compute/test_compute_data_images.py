"""Transforms of images against Pillow, PyTorch, colorsys and loops."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from compute import InputError, data
from compute.data.color import EIGENVALUES, EIGENVECTORS, turn_hue
from compute.data.items import IMAGES, Items, item_array
from compute.data.resampling import resample
from compute.philox import Stream

KEY = (1, 5, 2)


def images(n: int, channels: int = 3, height: int = 8, width: int = 7, seed: int = 0) -> NDArray[np.uint8]:
    """Random bytes (n, channels, height, width)."""
    return np.random.default_rng(seed).integers(0, 256, (n, channels, height, width), dtype=np.uint8)


def run(transform: data.InputTransform, x: NDArray[np.generic]) -> NDArray[np.generic]:
    """What the transform makes of a micro-batch, without the conversion at a pipeline's end."""
    found, _ = transform(x.copy(), np.zeros(len(x), np.int64), KEY, "0")
    assert isinstance(found, np.ndarray)
    return found


def sizes(n: int) -> NDArray[np.object_]:
    """Images of different sizes, none smaller than 8 x 7."""
    return item_array(images(1, 3, 8 + i % 5, 7 + i % 3, seed=i)[0] for i in range(n))


# --- crops and flips -------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9), high=st.integers(1, 12), wide=st.integers(1, 12),
       padding=st.integers(0, 5), seed=st.integers(0, 1000))  # fmt: skip
def test_a_random_crop_is_a_window_of_the_padded_image(
    height: int, width: int, high: int, wide: int, padding: int, seed: int
) -> None:
    x = images(6, 2, height, width, seed)
    transform = data.random_crop((high, wide), padding=padding, value=9)
    if high > height + 2 * padding or wide > width + 2 * padding:
        with pytest.raises(InputError, match="does not fit into an image"):
            transform.image_spec(2, height, width)
        return
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=9)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (high, wide), axis=(2, 3))
    for source in (x, item_array(x)):
        found = run(transform, source)
        assert found.dtype == np.uint8
        for image, choices in zip(found, windows, strict=True):
            assert (choices == image[:, None, None]).all(axis=(0, 3, 4)).any()


def test_random_crops_reach_every_place_and_only_those() -> None:
    """A crop of 2 x 2 from 3 x 3 with padding 1: sixteen places, equally likely."""
    x = np.tile(np.arange(1, 10, dtype=np.uint8).reshape(1, 1, 3, 3), (3200, 1, 1, 1))
    found, counts = np.unique(run(data.random_crop(2, padding=1), x).reshape(-1, 4), axis=0, return_counts=True)
    assert len(found) == 16
    assert counts.min() > 130  # 200 expected, standard deviation 14
    assert counts.max() < 270


@pytest.mark.parametrize(("height", "width", "size"), [(8, 7, (4, 4)), (9, 9, (3, 2)), (5, 5, (5, 5)), (1, 1, (1, 1))])
def test_center_crop(height: int, width: int, size: tuple[int, int]) -> None:
    x = images(3, 3, height, width)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    expected = x[:, :, top : top + size[0], left : left + size[1]]
    np.testing.assert_array_equal(run(data.center_crop(size), x), expected)
    np.testing.assert_array_equal(run(data.center_crop(size), item_array(x)), expected)


def test_flips_happen_with_their_probability() -> None:
    x = images(2000, 1, 2, 3)
    for p, low, high in ((0.5, 900, 1100), (0.0, 0, 0), (1.0, 2000, 2000), (0.1, 150, 250)):
        found = run(data.random_horizontal_flip(p), x)
        flipped = (found == x[..., ::-1]).all(axis=(1, 2, 3)) & ~(found == x).all(axis=(1, 2, 3))
        symmetric = (x == x[..., ::-1]).all(axis=(1, 2, 3)).sum()
        assert low - symmetric <= flipped.sum() <= high
        assert ((found == x).all(axis=(1, 2, 3)) | flipped).all()
    ragged = sizes(20)
    for image, original in zip(run(data.random_horizontal_flip(1), ragged), ragged, strict=True):
        np.testing.assert_array_equal(image, original[..., ::-1])


def test_pad_image_is_numpy_s() -> None:
    x = images(2)
    expected = np.pad(x, ((0, 0), (0, 0), (1, 2), (3, 4)), constant_values=5)
    np.testing.assert_array_equal(run(data.pad_image((1, 2, 3, 4), 5), x), expected)
    assert (data.from_arrays(x) >> data.pad_image((1, 2, 3, 4))).sample_shape == expected.shape[1:]
    np.testing.assert_array_equal(run(data.pad_image(1), item_array(x))[1], np.pad(x[1], ((0, 0), (1, 1), (1, 1))))


# --- resizing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "size"), [(16, 11, (5, 7)), (5, 7, (16, 11)), (9, 9, (9, 4)), (1, 1, (3, 2))]
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_resize_is_torch_s_antialiased_interpolation(
    height: int, width: int, size: tuple[int, int], channels: int
) -> None:
    x = images(3, channels, height, width)
    floats = x.astype(np.float32) / 255
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(floats), size=size, mode="bilinear", antialias=True, align_corners=False
    ).numpy()
    np.testing.assert_allclose(run(data.resize(size), floats), expected, atol=2e-6)
    # Bytes are rounded between the two passes and after them.
    assert np.abs(run(data.resize(size), x).astype(np.float64) - 255 * expected).max() <= 1.01
    np.testing.assert_array_equal(run(data.resize(size), item_array(x)), run(data.resize(size), x))


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(20, 30, (10, 15)), (30, 20, (15, 10)), (7, 7, (10, 10)), (20, 33, (10, 16))]
)
def test_one_number_resizes_the_shorter_side(height: int, width: int, expected: tuple[int, int]) -> None:
    dataset = data.from_arrays(images(2, 3, height, width)) >> data.resize(10)
    assert dataset.sample_shape == (3, *expected)
    assert dataset.batch(np.arange(2), KEY)[0].shape == (2, 3, *expected)  # type: ignore[union-attr]
    ragged = run(data.resize(10), sizes(7))
    assert all(min(image.shape[1:]) == 10 for image in ragged)


def test_random_resized_crop_resizes_parts_of_the_image() -> None:
    """On an image of its own coordinates the crop can be read off the result."""
    rows, columns = np.meshgrid(np.arange(60.0), np.arange(90.0), indexing="ij")
    x = np.tile(np.stack([rows, columns]).astype(np.float32)[None], (400, 1, 1, 1))
    found = run(data.random_resized_crop((30, 30)), x)
    assert found.shape == (400, 2, 30, 30)
    # Steps between neighbours, where interpolation is exact, tell height and width of each crop.
    high = (found[:, 0, 20, 15] - found[:, 0, 10, 15]) * 3
    wide = (found[:, 1, 15, 20] - found[:, 1, 15, 10]) * 3
    share, aspect = high * wide / (60 * 90), wide / high
    assert 0.07 < share.min() < 0.15
    assert share.max() > 0.85
    assert aspect.min() > 0.73
    assert aspect.max() < 1.36
    assert found[:, 0].min() >= 0
    assert found[:, 0].max() <= 59
    # Where every part fits, area and logarithm of the aspect are uniform.
    fitting = run(data.random_resized_crop((30, 30), scale=(0.1, 0.5), ratio=(1, 1.3)), x)
    high = (fitting[:, 0, 20, 15] - fitting[:, 0, 10, 15]) * 3
    wide = (fitting[:, 1, 15, 20] - fitting[:, 1, 15, 10]) * 3
    assert (high * wide / (60 * 90)).mean() == pytest.approx(0.3, abs=0.02)
    assert np.log(wide / high).mean() == pytest.approx(np.log(1.3) / 2, abs=0.02)
    whole = run(data.random_resized_crop((60, 90), scale=(1, 1), ratio=(1.5, 1.5)), x[:2])
    np.testing.assert_array_equal(whole, x[:2])
    # Nothing fits: the largest part in the middle of an allowed aspect.
    narrow = run(data.random_resized_crop((4, 4), scale=(1, 1), ratio=(1, 1)), x[:1])
    np.testing.assert_allclose(narrow, resample(x[0, :, :, 15:75], (4, 4))[None], rtol=1e-5)


# --- colours ---------------------------------------------------------------------------------------------------------


def rgb_image(image: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))


@pytest.mark.parametrize(
    ("what", "enhancer"),
    [("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast), ("saturation", ImageEnhance.Color)],
)
@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.7])
def test_color_jitter_is_pillow_s(
    what: str, enhancer: Callable[[Image.Image], ImageEnhance._Enhance], factor: float
) -> None:
    x = images(4, 3, 9, 5)
    settings: dict[str, object] = dict.fromkeys(("brightness", "contrast", "saturation"), 0)
    settings[what] = (factor, factor)
    found = run(data.color_jitter(**settings), x)  # type: ignore[arg-type]
    assert found.dtype == np.float32
    for image, original in zip(found, x, strict=True):
        expected = np.asarray(enhancer(rgb_image(original)).enhance(factor)).transpose(2, 0, 1)
        assert np.abs(image * 255 - expected).max() <= 1.6  # Pillow rounds twice
    np.testing.assert_array_equal(found, run(data.color_jitter(**settings), x.astype(np.float32) * np.float32(1 / 255)))  # type: ignore[arg-type]


def test_color_jitter_draws_factors_and_orders_for_each_image() -> None:
    grey = np.full((3000, 3, 1, 1), 0.25, np.float32)
    factors = run(data.color_jitter(0.4, 0, 0), grey)[:, 0, 0, 0] / 0.25
    assert factors.min() == pytest.approx(0.6, abs=0.01)
    assert factors.max() == pytest.approx(1.4, abs=0.01)
    assert factors.mean() == pytest.approx(1, abs=0.02)
    # Brightness 2, saturation 0: (0.9, 0.2, 0.1) becomes the luma of what was cut to 1, or the doubled luma.
    x = np.tile(np.array([0.9, 0.2, 0.1], np.float32).reshape(1, 3, 1, 1), (600, 1, 1, 1))
    found = run(data.color_jitter((2, 2), 0, (0, 0)), x)[:, 0, 0, 0]
    first, second = 0.299 + 0.587 * 0.4 + 0.114 * 0.2, 2 * (0.299 * 0.9 + 0.587 * 0.2 + 0.114 * 0.1)
    near = np.isclose(found[:, None], [first, second], atol=1e-6)
    assert near.any(axis=1).all()
    assert 240 < near[:, 0].sum() < 360


@settings(max_examples=100, deadline=None)
@given(st.tuples(*[st.floats(0, 1, width=32)] * 3), st.floats(-0.5, 0.5, width=32))
def test_hue_is_colorsys_s(color: tuple[float, float, float], turn: float) -> None:
    x = np.array(color, np.float32).reshape(1, 3, 1, 1)
    found = turn_hue(x, np.float32([[[turn]]]))[0, :, 0, 0]
    hue, saturation, value = colorsys.rgb_to_hsv(*color)
    np.testing.assert_allclose(found, colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value), atol=3e-6)


def test_hue_draws_for_each_image() -> None:
    red = np.tile(np.array([1, 0, 0], np.float32).reshape(1, 3, 1, 1), (2000, 1, 1, 1))
    found = run(data.hue(0.1), red)
    assert found[:, 0].min() == 1
    turned = found[:, 1, 0, 0] - found[:, 2, 0, 0]  # 6 x the turn, either way
    assert -0.6 <= turned.min() < -0.59
    assert 0.59 < turned.max() <= 0.6
    np.testing.assert_allclose(run(data.hue(0), images(2)), images(2) / np.float32(255), atol=1e-6)


def test_lighting_is_normal_along_the_principal_components() -> None:
    x = images(20_000, 3, 1, 2)
    shift = run(data.lighting(0.1), x) - x / np.float32(255)
    np.testing.assert_allclose(shift[..., 0], shift[..., 1], atol=1e-6)
    scores = shift[:, :, 0, 0] @ np.linalg.inv(np.array(EIGENVECTORS)).T / np.array(EIGENVALUES)
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=0.003)
    np.testing.assert_allclose(np.cov(scores.T), 0.01 * np.eye(3), atol=6e-4)
    assert np.abs((np.abs(scores) > 0.196).mean(axis=0) - 0.05).max() < 0.006


# --- channels and values ---------------------------------------------------------------------------------------------


def test_channels() -> None:
    x = images(3)
    np.testing.assert_array_equal(run(data.bgr(), x), x[:, ::-1])
    np.testing.assert_array_equal(run(data.rgb(), run(data.bgr(), x)), x)
    grey = run(data.grey(), x)
    expected = np.stack([np.asarray(rgb_image(image).convert("L"))[None] for image in x])
    assert grey.dtype == np.uint8
    assert np.abs(grey.astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(run(data.grey("bgr"), run(data.bgr(), x)), grey)
    np.testing.assert_allclose(
        run(data.grey(), x.astype(np.float32)), np.tensordot([0.299, 0.587, 0.114], x, (0, 1))[:, None], rtol=1e-5
    )
    for transform in (data.bgr(), data.grey(), data.color_jitter(), data.hue(), data.lighting()):
        with pytest.raises(InputError, match="3 channels"):
            _ = (data.from_arrays(images(2, 4)) >> transform).sample_shape


def test_normalize_pixels_has_a_mean_for_each() -> None:
    x = images(3)
    mean, std = x.mean(axis=0) / 255, x.std(axis=0) / 255 + 0.1
    np.testing.assert_allclose(run(data.normalize_pixels(mean, std), x), (x / 255 - mean) / std, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run(data.normalize_pixels(mean), x / 255.0), x / 255 - mean, atol=1e-6)
    with pytest.raises(InputError, match="does not fit"):
        _ = (data.from_arrays(images(1, 1)) >> data.normalize_pixels(mean)).sample_shape


def test_images_of_any_size_go_through_transforms_of_values() -> None:
    ragged = sizes(5)
    for transform in (data.to_float(), data.normalize([0.1, 0.2, 0.3], [1, 2, 3]), data.grey(), data.bgr()):
        found = run(transform, ragged)
        for image, original in zip(found, ragged, strict=True):
            np.testing.assert_array_equal(image, run(transform, original[None])[0])


def test_fill_cutout_and_expand() -> None:
    x = images(500, 3, 10, 20)
    expected = x.copy()
    expected[:, :, 2:5, 10:20] = 7
    np.testing.assert_array_equal(run(data.fill(0.2, 0.5, 0.5, 1, value=7), x), expected)

    ones = np.ones((3000, 1, 6, 6), np.float32)
    holes = run(data.cutout((2, 4)), ones)[:, 0] == 0
    for hole in holes:  # every hole is one rectangle
        rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
        assert hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert 1 <= len(rows) <= 2
        assert 2 <= len(columns) <= 4
        assert hole.sum() == len(rows) * len(columns)
    assert holes.any(axis=0).all()

    grounds = run(data.random_expand(3, value=[1, 2, 3]), x)
    ratios = []
    for image, ground in zip(x, grounds, strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(ground, (10, 20), axis=(1, 2))
        assert (windows == image[:, None, None]).all(axis=(0, 3, 4)).any()
        assert (ground == np.array([1, 2, 3]).reshape(3, 1, 1)).all(axis=0).sum() >= ground[0].size - 200
        ratios.append(ground.shape[2] / 20)
    assert 1 <= min(ratios) < 1.1
    assert 2.9 < max(ratios) <= 3
    np.testing.assert_array_equal(np.stack(list(run(data.random_expand(3, p=0), x))), x)
    assert (data.from_arrays(x) >> data.random_expand(2)).flow[0] == (Items(IMAGES, "float32", (3,)),)
    assert (data.from_arrays(x) >> data.random_expand(2) >> data.resize((5, 6))).sample_shape == (3, 5, 6)


RANDOM = [
    data.random_crop(6, padding=2), data.random_horizontal_flip(), data.random_resized_crop(6), data.color_jitter(),
    data.hue(), data.lighting(), data.cutout(3),
]  # fmt: skip


@pytest.mark.parametrize("transform", RANDOM, ids=lambda transform: type(transform).__name__)
def test_random_transforms_depend_on_the_key_alone(transform: data.InputTransform) -> None:
    x = images(16)
    dataset = data.from_arrays(x) >> transform
    first, _ = dataset.batch(np.arange(16), KEY)
    np.testing.assert_array_equal(first, dataset.batch(np.arange(16), KEY)[0])
    np.testing.assert_array_equal(x, images(16))  # the source's own array is as it was
    for key in ((2, 5, 2), (1, 6, 2), (1, 5, 3)):
        assert not np.array_equal(first, dataset.batch(np.arange(16), key)[0])
    assert first.shape[1:] == dataset.sample_shape  # type: ignore[union-attr]
    # Each image of a micro-batch draws for itself.
    same = run(transform, np.repeat(images(1), 16, axis=0)).reshape(16, -1)
    assert len(np.unique(same, axis=0)) > 1
    # Items of one size come out as a tensor of them does.
    np.testing.assert_allclose(np.stack(list(run(transform, item_array(x)))), run(transform, x), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: data.random_crop(0), "a size is a whole number"),
        (lambda: data.random_crop((1, 2, 3)), "a size is"),  # type: ignore[arg-type]
        (lambda: data.random_crop(4, padding=-1), "padding must be a number at least 0"),
        (lambda: data.random_horizontal_flip(1.5), r"p must be a number in 0\.\.1"),
        (lambda: data.random_resized_crop(4, scale=(0, 2)), r"scale must be in 0\.\.1"),
        (lambda: data.color_jitter(-1), "brightness must be a number at least 0"),
        (lambda: data.hue(0.7), "delta"),
        (lambda: data.fill(0.5, 0, 0.5, 1), "is empty"),
        (lambda: data.random_expand(0.5), "max_ratio"),
        (lambda: data.grey("xyz"), "order must be"),
        (lambda: data.pad_image((1, 2)), "padding is a number"),
        (lambda: data.normalize_pixels(np.zeros(3), np.zeros(3)), "std must be positive"),
        (lambda: (data.from_arrays(np.zeros((2, 5))) >> data.resize((2, 2))).flow, "takes images"),
        (lambda: (data.from_items(["a"]) >> data.to_float()).flow, "takes numbers"),
        (lambda: (data.from_arrays(images(2)) >> data.center_crop(100)).flow, "does not fit"),
        (lambda: (data.from_arrays(images(2)) >> data.random_expand(2, value=[1, 2])).flow, "has 2 values"),
    ],
)
def test_wrong_arguments_are_one_clear_line(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_streams_of_a_pipeline_s_places_differ() -> None:
    """Guards `place`: the transform at place 0 draws what it always drew."""
    x = images(8)
    dataset = data.from_arrays(x) >> data.random_horizontal_flip()
    flips = Stream("transform 0", *KEY).uniform64(8) < 0.5
    expected = np.where(flips[:, None, None, None], x[..., ::-1], x)
    np.testing.assert_array_equal(dataset.batch(np.arange(8), KEY)[0], expected)
