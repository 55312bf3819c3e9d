"""Words and normal numbers of `philox.Stream`."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from compute import philox
from compute.philox import Stream


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 9, 1000])
def test_words_are_the_bytes_of_the_64_bit_words(count: int) -> None:
    raw = Stream("t", 1, 2).bits(count // 4 + 1).astype("<u8").tobytes()
    assert Stream("t", 1, 2).words8(count).tobytes() == raw[:count]
    assert Stream("t", 1, 2).words16(count).astype("<u2").tobytes() == raw[: 2 * count]
    assert Stream("t", 1, 2).words16(count).dtype == np.uint16


def test_the_stream_goes_on_behind_words() -> None:
    stream, plain = Stream("t", 5), Stream("t", 5)
    stream.words16(5)  # two 64-bit words
    plain.bits(2)
    assert stream.bits(1) == plain.bits(1)


def test_log_cosine_and_sine() -> None:
    u = Stream("t", 1).uniform64(20000)
    x = np.concatenate([1.0 - u, [1.0, 2.0**-53, 0.5, 0.75, np.nextafter(1.0, 0)]])
    np.testing.assert_allclose(philox._log(x), np.log(x), rtol=4e-16, atol=1e-17)
    cosine, sine = philox._cosine_and_sine_of_turns(np.concatenate([u, [0.0, 0.25, 0.5]]))
    angle = 2 * math.pi * (np.concatenate([u, [0.0, 0.25, 0.5]]) - 0.5)
    np.testing.assert_allclose(cosine, np.cos(angle), atol=2e-15)
    np.testing.assert_allclose(sine, np.sin(angle), atol=2e-15)


def test_normal_numbers() -> None:
    x = Stream("t", 3, 1).normal((100, 1001))
    assert x.dtype == np.float32
    assert x.shape == (100, 1001)
    assert stats.kstest(x.ravel(), "norm").pvalue > 0.01
    assert abs(np.corrcoef(x[:, :-1].ravel(), x[:, 1:].ravel())[0, 1]) < 0.01
    assert Stream("t", 3, 1).normal(3).shape == (3,)
    # The bits themselves: every machine and version must give these.
    assert [v.hex() for v in Stream("t", 3, 1).normal(3).astype(float)] == [
        "-0x1.b9b96e0000000p+0",
        "0x1.ab58a80000000p+0",
        "-0x1.be7f6a0000000p+0",
    ]
