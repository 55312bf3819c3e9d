"""Prepared calls of C libraries, and what they do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any


@dataclass(frozen=True, slots=True)
class Record:
    """What a prepared call does, for profiles.

    Attributes:
        name: the operation, such as "convolution_backward_data".
        implementation: the kernel's name, such as "jit:avx512_core".
        flops: floating-point operations of its multiplications and additions; 0 where memory is what counts.
        size_bytes: bytes of all arguments, each read or written once.
    """

    name: str
    implementation: str
    flops: float
    size_bytes: int


class Call(partial[Any]):
    """A prepared call, which returns 0, None or the library's error code. It costs no more than a plain `partial`.

    Attributes:
        record: what it does.
        kept: what must live as long as the call can be made.
    """

    __slots__ = ("kept", "record")

    record: Record
    kept: tuple[Any, ...]
