"""In which order a server's parameters leave it, and that what leaves is what was wanted."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from compute.compression import SliceCodec, parse
from executor.data_path import ParameterOutbox
from executor.parameter_slice import ParameterSlice
from executor.pieces import PIECE, piece_bounds, piece_count
from executor.session import Session
from executor.shared_memory import Block, SharedPool
from proto.exchange_pb2 import Header
from proto.frames import Frame

SIZE = 5 * PIECE + 7
BEGIN = 3 * PIECE


@dataclass
class Held:
    """What an outbox needs of a ParameterSlice."""

    version: int
    parameters: NDArray[np.float32]
    begin: int = BEGIN

    @property
    def size(self) -> int:
        return int(self.parameters.size)


@dataclass(eq=False)
class Line:
    """In the place of a Session: frames leave when the test says so."""

    source: Callable[[], Frame | None] | None = None
    sent: list[Frame] = field(default_factory=list)

    def send_when_free(self, source: Callable[[], Frame | None]) -> None:
        self.source = source

    def shares(self, _: Block | None = None) -> bool:
        return False  # it is on another host

    def leave(self) -> bool:
        made = self.source() if self.source is not None else None
        if made is not None:
            self.sent.append(made)
        return made is not None


def values(version: int) -> NDArray[np.float32]:
    return np.linspace(version, version + 1, SIZE, endpoint=False, dtype=np.float32)


def described(line: Line) -> list[tuple[int, int]]:
    """Version and piece of each frame that left."""
    found = []
    for made in line.sent:
        parameters = Header.FromString(made.head).parameters
        found.append((parameters.version, parameters.offset // 4 // PIECE))
    return found


@pytest.mark.parametrize("shared", [False, True], ids=["own memory", "shared with others"])
@pytest.mark.parametrize("compression", ["none", "bf16"])
@settings(max_examples=30, deadline=None)
@given(st.permutations(range(piece_count(SIZE))), st.lists(st.integers(0, 2), max_size=6))
def test_each_piece_leaves_once_the_lowest_first(
    shared: bool, compression: str, order: list[int], leaving: list[int]
) -> None:
    """Pieces come to be in any order; whatever is there, forward passes need its beginning first."""
    codec = SliceCodec(parse(compression), BEGIN + SIZE - 3)
    outbox = ParameterOutbox(SharedPool(16 * SIZE) if shared else None, codec)
    line, quick, held = Line(), Line(), Held(0, values(0))
    old = cast("ParameterSlice", held)
    outbox.keep(old)
    for each in (line, quick):
        outbox.want(cast("Session", each), 1, old)
    waiting: set[int] = set()
    parameters = held.parameters.copy()
    for place, piece in enumerate(order):
        begin, end = piece_bounds(SIZE, piece)
        parameters[begin:end] = values(1)[begin:end]
        outbox.add(cast("ParameterSlice", Held(0, parameters)), 1, [piece])
        waiting.add(piece)
        assert quick.leave()
        for _ in range(leaving[place] if place < len(leaving) else 0):
            if line.leave():
                assert described(line)[-1] == (1, min(waiting))
                waiting.remove(min(waiting))
            else:
                assert not waiting
    for version in (2, 3, 4):  # the others go on meanwhile, and memory is used again
        newer = cast("ParameterSlice", Held(version - 1, values(version)))
        outbox.add(newer, version, list(range(piece_count(SIZE))))
        outbox.committed(version)
    while line.leave():
        pass
    assert described(quick) == [(1, piece) for piece in order]
    assert sorted(described(line)) == [(1, piece) for piece in range(piece_count(SIZE))]
    for made, (_, piece) in zip(line.sent, described(line), strict=True):
        begin, end = piece_bounds(SIZE, piece)
        exact = values(1)[begin:end]
        received = codec.decode(made.payload, BEGIN + begin, BEGIN + end)
        assert np.array_equal(received, codec.decode(codec.encode(exact, BEGIN + begin), BEGIN + begin, BEGIN + end))
        assert np.array_equal(received, exact) == (compression == "none")


def test_who_left_or_wants_something_else_gets_no_more() -> None:
    outbox = ParameterOutbox(None, SliceCodec(parse("none"), SIZE))
    line, held = Line(), cast("ParameterSlice", Held(4, values(4)))
    session = cast("Session", line)
    outbox.want(session, 4, held)
    assert line.leave()
    outbox.want(session, 4, held, again=True)
    while line.leave():
        pass
    assert described(line) == [(4, 0), *((4, piece) for piece in range(piece_count(SIZE)))]
    outbox.want(session, 3, held, again=True)  # it is gone: the present one
    assert line.leave()
    outbox.forget(session)
    assert not line.leave()
