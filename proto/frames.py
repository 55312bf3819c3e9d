"""Frames of the exchange: a small protobuf header and raw tensor bytes in one message (format: exchange.proto)."""

import struct
from collections.abc import Callable, Iterator
from typing import Any

import google_crc32c
from google.protobuf.message import DecodeError

from proto.exchange_pb2 import Header

CHUNK_BYTES = 1 << 20  # 1 MB chunks moved most bytes per second through gRPC streams, see docs/architecture.md
MAX_HEADER_BYTES = 1 << 16

_PREFIX = struct.Struct("<II")
_LENGTH = struct.Struct("<I")

EXCHANGE_METHOD = "/mesograd.Exchange/Stream"
SECRET_KEY = "mesograd-secret"


class FrameError(ValueError):
    """A received frame is not well formed or its payload does not match its checksum."""


def encode(header: Header, payload: bytes | memoryview = b"") -> bytes:
    """One frame of `header` and `payload`.

    Raises:
        ValueError: the payload is larger than a chunk.
    """
    if len(payload) > CHUNK_BYTES:
        raise ValueError(f"payload of {len(payload)} bytes exceeds the chunk size {CHUNK_BYTES}")
    head = header.SerializeToString()
    body = b"".join((head, payload))
    return b"".join((_PREFIX.pack(len(head), _checksum(len(head), body)), body))


def decode(frame: bytes) -> tuple[Header, memoryview]:
    """Header and payload of a received frame; the payload is a view into it.

    Raises:
        FrameError: it is not well formed, or the checksum differs.
    """
    if len(frame) < _PREFIX.size:
        raise FrameError(f"frame of {len(frame)} bytes is too short to be one")
    size, checksum = _PREFIX.unpack_from(frame)
    body = frame[_PREFIX.size :]
    if size > MAX_HEADER_BYTES or size > len(body):
        raise FrameError(f"header length {size} does not fit a frame of {len(frame)} bytes")
    if _checksum(size, body) != checksum:
        raise FrameError("the checksum differs")
    try:
        header = Header.FromString(body[:size])
    except DecodeError as error:
        raise FrameError(f"header does not parse: {error}") from None
    return header, memoryview(body)[size:]


def _checksum(header_bytes: int, body: bytes) -> int:
    """CRC32C of the body and then of the header's length: with another length the same body reads otherwise."""
    return int(google_crc32c.extend(google_crc32c.value(body), _LENGTH.pack(header_bytes)))


def chunked(header: Callable[[int], Header], payload: memoryview) -> Iterator[bytes]:
    """Frames that carry `payload` in chunks; `header(offset)` makes the header of the chunk that starts at `offset`.

    An empty payload still makes one frame, so that the message as such arrives.
    """
    for offset in range(0, max(len(payload), 1), CHUNK_BYTES):
        yield encode(header(offset), payload[offset : offset + CHUNK_BYTES])


class Assembly:
    """Puts the chunks of one slice together.

    Attributes:
        data: the bytes received so far, in place.
    """

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self._received = 0

    def add(self, offset: int, chunk: memoryview) -> bool:
        """Takes the next chunk; True when the slice is complete.

        Raises:
            FrameError: the chunk does not start where the last one ended, or runs over the end.
        """
        if offset != self._received or offset + len(chunk) > len(self.data):
            raise FrameError(
                f"chunk of {len(chunk)} bytes at {offset} does not follow {self._received} of {len(self.data)} bytes"
            )
        self.data[offset : offset + len(chunk)] = chunk
        self._received += len(chunk)
        return self._received == len(self.data)


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
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.enable_http_proxy", 0),
        ("grpc.so_reuseport", 0),
    ]
