"""Addresses, as people and Mesos write them, and delays between attempts."""

import pytest

from proto.backoff import Backoff
from proto.mesos_address import format_address, parse_address, redirect_target
from proto.mesos_http import basic_credential


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("master", ("master", 5050)),
        ("master:1", ("master", 1)),
        ("10.0.0.1:5051", ("10.0.0.1", 5051)),
        ("[::1]:5051", ("::1", 5051)),
        ("[::1]", ("::1", 5050)),
        ("fe80::1", ("fe80::1", 5050)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text, 5050) == expected
    assert parse_address(format_address(*expected)) == expected


@pytest.mark.parametrize(
    "text", ["", ":5050", "host:", "host:x", "host:70000", "host:0", "a:1/b", "user@host:1", "1:2:3:x", "[::1", "host"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="expected HOST:PORT, for example localhost:5050"):
        parse_address(text)


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("//10.0.0.2:5050", "10.0.0.2:5050"),
        ("//10.0.0.2:5050/api/v1/scheduler", "10.0.0.2:5050"),
        ("http://leader:5051/api/v1/scheduler", "leader:5051"),
        ("//[::1]:5050", "[::1]:5050"),
        ("leader:5052", "leader:5052"),
    ],
)
def test_redirections(location: str, expected: str) -> None:
    assert redirect_target(location) == expected


def test_credentials_are_utf8() -> None:
    assert basic_credential("ü", "a:b") == "Basic w7w6YTpi"


def test_back_off() -> None:
    longest = Backoff(first_s=0.25, max_s=15, uniform=lambda low, high: high)
    assert [longest.next_s() for _ in range(9)] == [0.25, 0.5, 1, 2, 4, 8, 15, 15, 15]
    longest.reset()
    assert longest.next_s() == 0.25
    shortest = Backoff(first_s=0.25, max_s=15, uniform=lambda low, high: low)
    assert [shortest.next_s() for _ in range(3)] == [0.125, 0.25, 0.5]
    assert Backoff(first_s=1, max_s=0.5, uniform=lambda low, high: high).next_s() == 0.5
    assert len({Backoff().next_s() for _ in range(20)}) > 1, "masters would see all executors at once"
