"""Frames survive the round trip, and nothing that is not a frame is taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.exchange_pb2 import Header, Push
from proto.frames import CHUNK_BYTES, FrameError, decode, encode, xxh3


@given(st.binary(max_size=3000), st.integers(0, 2**63), st.integers(0, 2**63))
def test_round_trip(payload: bytes, attempt: int, step: int) -> None:
    header, received = decode(encode(Header(attempt=attempt, push=Push(step=step)), payload))
    assert (header.attempt, header.push.step, bytes(received)) == (attempt, step, payload)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_or_carry_a_matching_checksum(data: bytes) -> None:
    try:
        header, payload = decode(data)
    except FrameError:
        return
    assert encode(header, payload)  # what passes is a frame


@given(st.binary(min_size=1, max_size=300), st.data())
def test_a_flipped_bit_is_found(payload: bytes, data: st.DataObject) -> None:
    frame = bytearray(encode(Header(attempt=1, push=Push(step=2)), payload))
    position = data.draw(st.integers(0, len(frame) - 1))
    frame[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(FrameError):
        decode(bytes(frame))


@given(st.binary(max_size=100), st.integers(0, 60))
def test_a_truncated_frame_is_refused(payload: bytes, cut: int) -> None:
    frame = encode(Header(attempt=1, push=Push(step=2, bytes=len(payload))), b"payload" + payload)
    with pytest.raises(FrameError):
        decode(frame[: max(len(frame) - 1 - cut, 0)])


def test_the_checksum_is_that_of_xxhash() -> None:
    """Of no bytes and seed 0, as the library's own sanity tests have it."""
    assert xxh3(b"") == 0x2D06800538D394C2


def test_a_payload_larger_than_a_chunk_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="exceeds the chunk size"):
        encode(Header(), bytes(CHUNK_BYTES + 1))
