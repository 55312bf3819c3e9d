"""Codecs: what comes back, how far it may be off, what is refused, and that nothing is lost for good."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from compute import InputError
from compute.bfloat16 import from_bfloat16, round_bfloat16, to_bfloat16
from compute.compression import Codec, ErrorFeedback, Plain, Rounding, SliceCodec, parse
from compute.compression.sparse import TopK

NAMES = ["none", "bf16", "fp16", "topk:0.1", "topk:1", "8bit", "1bit"]
values = arrays.arrays(
    np.float32, st.integers(0, 3000), elements=st.floats(-50, 50, width=32), fill=st.floats(-1, 1, width=32)
)
anything = arrays.arrays(np.float32, st.integers(1, 300), elements=st.floats(width=32))


def there_and_back(codec: Codec, x: np.ndarray) -> np.ndarray:
    data = codec.encode(x)
    assert len(data) == codec.encoded_bytes(x.size)
    return codec.decode(data, x.size)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=40)
@given(x=values)
def test_what_comes_back_is_near(name: str, x: np.ndarray) -> None:
    codec, before = parse(name), x.copy()
    y = there_and_back(codec, x)
    assert (y.shape, y.dtype) == (x.shape, np.float32)
    assert np.array_equal(x, before)
    error = np.abs(y - x)
    match name:
        case "none" | "topk:1":
            assert np.array_equal(y, x)
        case "bf16":
            assert np.all(error <= np.abs(x) * 2.0**-8 + 1e-38)
        case "fp16":
            assert np.all(error <= np.abs(x) * 2.0**-11 + 2.0**-35)
        case "topk:0.1":
            assert np.count_nonzero(y) <= -(-x.size // 10)
            assert np.all((y == x) | (y == 0))
            assert x.size == 0 or np.max(error) <= np.sort(np.abs(x))[-codec.kept(x.size)]
        case "8bit":
            for start in range(0, x.size, 1024):
                block = slice(start, start + 1024)
                assert np.max(error[block]) <= np.max(np.abs(x[block])) / 254 * 1.001 + 1e-38
        case "1bit":
            for start in range(0, x.size, 1024):
                part, back = x[start : start + 1024], y[start : start + 1024]
                assert np.sum(back, dtype=np.float64) == pytest.approx(np.sum(part, dtype=np.float64), abs=0.02)
                assert np.sum((back - part) ** 2, dtype=np.float64) <= np.sum(part**2, dtype=np.float64) * 1.001 + 1e-6


@pytest.mark.parametrize("name", ["bf16", "fp16"])
@settings(deadline=None, max_examples=60)
@given(x=values)
def test_what_is_rounded_travels_without_loss(name: str, x: np.ndarray) -> None:
    codec = parse(name)
    assert isinstance(codec, Rounding)
    rounded = x.copy()
    codec.round(rounded)
    assert np.array_equal(rounded, there_and_back(codec, x))
    assert np.array_equal(there_and_back(codec, rounded), rounded)
    again = rounded.copy()
    codec.round(again)
    assert np.array_equal(again, rounded)


@given(x=anything)
def test_rounding_in_place_is_that_of_bfloat16(x: np.ndarray) -> None:
    expected = from_bfloat16(to_bfloat16(x))
    with np.errstate(all="ignore"):
        round_bfloat16(x)
    assert np.array_equal(x.view(np.uint32), expected.view(np.uint32))


def test_fp16_saturates() -> None:
    assert there_and_back(parse("fp16"), np.array([1e6, -1e6], np.float32)).tolist() == [65504 / 1024, -65504 / 1024]


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=30)
@given(x=anything)
def test_values_that_are_not_finite_do_no_harm_and_nans_show(name: str, x: np.ndarray) -> None:
    y = there_and_back(parse(name), x)
    if np.isnan(x).any() and name not in ("1bit", "topk:0.1"):
        assert np.isnan(y).any()
    if np.isnan(x).sum() == 1 and name == "topk:0.1" and np.isfinite(x[~np.isnan(x)]).all():
        assert np.isnan(y).any()


@pytest.mark.parametrize("name", NAMES)
@given(data=st.binary(max_size=5000), size=st.integers(0, 3000))
def test_bytes_from_anywhere_are_refused_or_decoded(name: str, data: bytes, size: int) -> None:
    try:
        assert parse(name).decode(data, size).shape == (size,)
    except ValueError:
        pass


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_number_of_bytes_is_refused(name: str) -> None:
    codec = parse(name)
    data = bytes(codec.encode(np.ones(100, np.float32)))
    for wrong in (data[:-1], data + b"\0"):
        with pytest.raises(ValueError, match="bytes for 100 elements"):
            codec.decode(wrong, 100)


def test_places_beyond_the_slice_are_refused() -> None:
    data = bytearray(TopK(0.5).encode(np.ones(4, np.float32)))
    data[4:8] = (9).to_bytes(4, "little")
    with pytest.raises(ValueError, match="not in the slice"):
        TopK(0.5).decode(data, 4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("begin", "end"), [(0, 3000), (0, 1000), (1500, 3000), (2500, 3000), (7, 7)])
def test_statistics_travel_as_they_are(name: str, begin: int, end: int) -> None:
    weights = 2000
    vector = np.random.default_rng(1).normal(size=3000).astype(np.float32)
    codec = SliceCodec(parse(name), weights)
    data = codec.encode(vector[begin:end], begin)
    assert len(data) == codec.encoded_bytes(begin, end)
    back = codec.decode(data, begin, end)
    assert back.size == end - begin
    split = max(weights - begin, 0)
    assert np.array_equal(back[split:], vector[begin:end][split:])


@pytest.mark.parametrize("name", ["topk:0.01", "topk:0.1", "8bit", "1bit"])
def test_with_error_feedback_nothing_is_lost(name: str) -> None:
    random = np.random.default_rng(2)
    codec = SliceCodec(parse(name), 4000)
    feedback = ErrorFeedback(codec, 4000)
    wanted, sent = np.zeros(4000), np.zeros(4000)
    for _ in range(200):
        gradient = random.normal(0.1, 1.0, 4000).astype(np.float32)
        wanted += gradient
        for begin, end in ((0, 1500), (1500, 4000)):
            sent[begin:end] += codec.decode(feedback.encode(gradient[begin:end], begin), begin, end)
    assert np.allclose(sent + feedback.residual, wanted, atol=1e-2)
    lost = np.linalg.norm(wanted - sent) / np.linalg.norm(wanted)
    assert lost < (0.7 if name == "topk:0.01" else 0.4)


@pytest.mark.parametrize("text", ["", "zip", "topk", "topk:", "topk:0", "topk:1.5", "topk:-1", "topk:nan", "BF16"])
def test_no_other_compressions(text: str) -> None:
    with pytest.raises(InputError, match=r"topk:0\.01"):
        parse(text)


def test_none_is_no_copy() -> None:
    x = np.ones(10, np.float32)
    assert np.shares_memory(np.frombuffer(Plain().encode(x), np.float32), x)
