"""RecordIO: any records, cut anywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.recordio import RecordDecoder, RecordError


def encode(*records: bytes) -> bytes:
    return b"".join(b"%d\n%s" % (len(record), record) for record in records)


def decode(data: bytes, cuts: list[int]) -> list[bytes]:
    decoder, records, start = RecordDecoder(), [], 0
    for cut in [*sorted(cut for cut in cuts if cut <= len(data)), len(data)]:
        records += decoder.feed(data[start:cut])
        start = cut
    return records


@given(st.lists(st.binary(max_size=200)), st.lists(st.integers(0, 2000)))
def test_any_cuts(records: list[bytes], cuts: list[int]) -> None:
    assert decode(encode(*records), cuts) == records


def test_every_cut() -> None:
    records = [b"", b"a", b"12\n", b"x" * 100]
    data = encode(*records)
    assert decode(data, list(range(len(data)))) == records


def test_an_unfinished_record_waits() -> None:
    decoder = RecordDecoder()
    assert decoder.feed(b"1") == []
    assert decoder.feed(b"0\n12345678") == []
    assert decoder.feed(b"902\nab7") == [b"1234567890", b"ab"]


@pytest.mark.parametrize(
    "data", [b"x", b"\n", b"-1\n", b"1 \n", b" 1\n", b"1.5\n", b"0x10\n", b"9" * 21, b"101\n", b"\xff"]
)
def test_what_is_no_length(data: bytes) -> None:
    with pytest.raises(RecordError):
        RecordDecoder(max_record_bytes=100).feed(data)


@given(st.binary(max_size=60), st.lists(st.integers(0, 60)))
def test_noise_is_refused_or_waits(data: bytes, cuts: list[int]) -> None:
    try:
        records = decode(data, cuts)
    except RecordError:
        return
    assert sum(map(len, records)) <= len(data)
