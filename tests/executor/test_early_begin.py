"""A lease begins before all of its parameters are there: the gate between who receives and who computes."""

import threading

import pytest

from executor.parameter_gate import ParameterGate, ParametersGone
from executor.parameter_inbox import ParameterInbox
from executor.pieces import PIECE
from proto.exchange_pb2 import Parameters

SIZE = 2 * PIECE + 5
BOUNDS = [(0, SIZE), (SIZE, SIZE + 7)]
PIECES = [(0, PIECE), (PIECE, 2 * PIECE), (2 * PIECE, SIZE), (SIZE, SIZE + 7)]


def send(inbox: ParameterInbox, server: int, version: int, piece: int) -> None:
    begin, end = PIECES[piece]
    first, last = BOUNDS[server]
    message = Parameters(version=version, offset=4 * (begin - first), bytes=4 * (last - first))
    inbox.take(server, message, memoryview(bytes(4 * (end - begin))))


def test_what_is_lacking_of_a_version_that_is_on_its_way() -> None:
    inbox = ParameterInbox(BOUNDS)
    assert not inbox.on_the_way(3), "nobody asked for it"
    for server in (0, 1):
        inbox.will_come(server, 3)
    assert inbox.on_the_way(3)
    assert inbox.lacking(3) == PIECES
    send(inbox, 0, 3, 1)
    send(inbox, 1, 3, 3)
    assert inbox.on_the_way(3)
    assert inbox.lacking(3) == [PIECES[0], PIECES[2]]
    send(inbox, 0, 3, 0)
    send(inbox, 0, 3, 2)
    assert not inbox.on_the_way(3)
    assert inbox.has(3)


def test_the_next_version_may_be_asked_for_before_this_one_is_complete() -> None:
    inbox = ParameterInbox(BOUNDS)
    for server in (0, 1):
        inbox.will_come(server, 3)
    send(inbox, 0, 3, 0)
    for server in (0, 1):
        inbox.will_come(server, 4)
    send(inbox, 0, 3, 1)
    send(inbox, 0, 3, 2)
    send(inbox, 1, 3, 3)
    assert inbox.missing(4) == [], "it will come without being asked for again"
    send(inbox, 0, 4, 0)
    assert inbox.lacking(4) == PIECES[1:]


def waiting(gate: ParameterGate, begin: int, end: int) -> tuple[threading.Thread, list[str]]:
    told: list[str] = []

    def wait() -> None:
        try:
            gate.needed(begin, end)
            told.append("there")
        except ParametersGone:
            told.append("gone")

    thread = threading.Thread(target=wait)
    thread.start()
    return thread, told


def test_needed_waits_for_every_piece_of_its_range() -> None:
    gate = ParameterGate(3, PIECES)
    thread, told = waiting(gate, PIECE - 1, PIECE + 1)
    gate.arrived(*PIECES[0])
    assert gate.lacks(PIECE - 1, PIECE + 1)
    thread.join(0.05)
    assert thread.is_alive()
    gate.arrived(*PIECES[1])
    thread.join()
    assert told == ["there"]
    gate.needed(0, 2 * PIECE)
    gate.arrived(2 * PIECE, SIZE)
    gate.needed(0, SIZE)
    assert gate.lacks(*PIECES[3])


def test_who_waits_is_told_that_nothing_comes() -> None:
    gate = ParameterGate(3, PIECES)
    thread, told = waiting(gate, 0, 1)
    gate.give_up()
    thread.join()
    assert told == ["gone"]
    with pytest.raises(ParametersGone):
        gate.needed(0, 1)
