"""Frames of the exchange: a small protobuf header and raw tensor bytes in one message (format: exchange.proto)."""

import struct
from typing import Any

import google_crc32c
import numpy as np
from google.protobuf.message import DecodeError

from proto.exchange_pb2 import Header

CHUNK_BYTES = 1 << 20  # of a piece; messages of 1 MB moved most bytes per second through gRPC streams
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
    checksum = _checksum(len(head), head, payload)
    return b"".join((_PREFIX.pack(len(head), checksum), head, payload))


def decode(frame: bytes) -> tuple[Header, memoryview]:
    """Header and payload of a received frame; the payload is a view into it.

    Raises:
        FrameError: it is not well formed, or the checksum differs.
    """
    if len(frame) < _PREFIX.size:
        raise FrameError(f"frame of {len(frame)} bytes is too short to be one")
    size, checksum = _PREFIX.unpack_from(frame)
    body = memoryview(frame)[_PREFIX.size :]
    if size > MAX_HEADER_BYTES or size > len(body):
        raise FrameError(f"header length {size} does not fit a frame of {len(frame)} bytes")
    if _checksum(size, body, b"") != checksum:
        raise FrameError("the checksum differs")
    try:
        header = Header.FromString(bytes(body[:size]))
    except DecodeError as error:
        raise FrameError(f"header does not parse: {error}") from None
    return header, body[size:]


def _checksum(header_bytes: int, head: bytes | memoryview, payload: bytes | memoryview) -> int:
    """CRC-32C of head, payload and then the header's length: with another length the same bytes read otherwise."""
    checksum = 0
    for part in (head, payload, _LENGTH.pack(header_bytes)):
        # The library takes no memoryview, but anything else that lends its bytes without being asked to return them.
        checksum = google_crc32c.extend(checksum, np.frombuffer(part, dtype=np.uint8) if len(part) else b"")
    return int(checksum)


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
