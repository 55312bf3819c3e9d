"""Frames of the exchange: a small protobuf header and raw tensor bytes in one message (format: exchange.proto)."""

import struct
from typing import Any, NamedTuple

import xxhash
from google.protobuf.message import DecodeError

from proto.exchange_pb2 import Header

CHUNK_BYTES = 2 << 20  # of a piece; with 1 MB a step of VGG costs 6 to 12 % more time, for the interpreter's work
MAX_HEADER_BYTES = 1 << 16

_PREFIX = struct.Struct("<IQ")
_LENGTH = struct.Struct("<I")

EXCHANGE_METHOD = "/mesograd.Exchange/Stream"
SECRET_KEY = "mesograd-secret"


class FrameError(ValueError):
    """A received frame is not well formed or its payload does not match its checksum."""


class Frame(NamedTuple):
    """A frame whose payload lies where it was.

    Attributes:
        head: the header, serialized.
        checksum: over head, payload and the header's length.
    """

    head: bytes
    payload: bytes | memoryview
    checksum: int

    @property
    def size(self) -> int:
        """Bytes."""
        return _PREFIX.size + len(self.head) + len(self.payload)

    def message(self) -> bytes:
        """As one message."""
        return b"".join((_PREFIX.pack(len(self.head), self.checksum), self.head, self.payload))


def frame(header: Header, payload: bytes | memoryview = b"") -> Frame:
    """A frame of `header` and `payload`, which is not copied.

    Raises:
        ValueError: the payload is larger than a chunk.
    """
    if len(payload) > CHUNK_BYTES:
        raise ValueError(f"payload of {len(payload)} bytes exceeds the chunk size {CHUNK_BYTES}")
    head = header.SerializeToString()
    return Frame(head, payload, checksum(len(head), head, payload))


def encode(header: Header, payload: bytes | memoryview = b"") -> bytes:
    """One message of `header` and `payload`.

    Raises:
        ValueError: the payload is larger than a chunk.
    """
    return frame(header, payload).message()


def decode(message: bytes) -> tuple[Header, memoryview]:
    """Header and payload of a received message; the payload is a view into it.

    Raises:
        FrameError: it is not well formed, or the checksum differs.
    """
    if len(message) < _PREFIX.size:
        raise FrameError(f"frame of {len(message)} bytes is too short to be one")
    size, told = _PREFIX.unpack_from(message)
    body = memoryview(message)[_PREFIX.size :]
    if size > MAX_HEADER_BYTES or size > len(body):
        raise FrameError(f"header length {size} does not fit a frame of {len(message)} bytes")
    if checksum(size, body, b"") != told:
        raise FrameError("the checksum differs")
    return parsed(body[:size]), body[size:]


def parsed(head: memoryview) -> Header:
    """A header.

    Raises:
        FrameError: it is none.
    """
    try:
        return Header.FromString(bytes(head))
    except DecodeError as error:
        raise FrameError(f"header does not parse: {error}") from None


def checksum(header_bytes: int, head: bytes | memoryview, payload: bytes | memoryview) -> int:
    """XXH3 of head, payload and then the header's length: with another length the same bytes read otherwise."""
    found = xxhash.xxh3_64(head)
    found.update(payload)
    found.update(_LENGTH.pack(header_bytes))
    return found.intdigest()


def xxh3(data: bytes) -> int:
    """XXH3 of some bytes (xxHash 0.8, 64 bits, seed 0)."""
    return xxhash.xxh3_64_intdigest(data)


def grpc_options() -> list[tuple[str, Any]]:
    """Channel and server options of every gRPC connection between our processes.

    Keep-alive finds a peer that vanished without closing within half a minute (gRPC keepalive guide).
    """
    return [
        ("grpc.max_send_message_length", 64 << 20),
        ("grpc.max_receive_message_length", 64 << 20),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.max_ping_strikes", 0),  # or a server that is starved of time cuts off whoever asks if it lives
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.enable_http_proxy", 0),
        ("grpc.so_reuseport", 0),
    ]
