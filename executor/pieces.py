"""Slices of the flat vector are cut into pieces of a fixed size, each pushed, reduced, applied and sent by itself."""

from collections.abc import Iterable, Iterator

from proto.frames import CHUNK_BYTES

PIECE = CHUNK_BYTES // 4
"""Elements, float32, of every piece of a slice but the last."""


def piece_count(size: int) -> int:
    """Pieces of a slice of `size` elements."""
    return -(-size // PIECE)


def piece_bounds(size: int, index: int) -> tuple[int, int]:
    """Range [begin, end) of a piece in a slice of `size` elements."""
    return index * PIECE, min((index + 1) * PIECE, size)


def whole_pieces(size: int, begin: int, end: int) -> range | None:
    """The pieces that elements [begin, end) of a slice are; None if they are not whole ones."""
    if begin % PIECE or not 0 <= begin < end <= size or (end % PIECE and end != size):
        return None
    return range(begin // PIECE, piece_count(end))


def runs(indices: Iterable[int], longest: int) -> Iterator[range]:
    """Runs of consecutive numbers, of at most `longest`, in a rising sequence of numbers."""
    start = stop = -1
    for index in indices:
        if index != stop or stop - start == longest:
            if stop > start:
                yield range(start, stop)
            start = index
        stop = index + 1
    if stop > start:
        yield range(start, stop)


class Readiness:
    """Which pieces of a slice are known completely, as ranges of elements become known."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._missing = [end - begin for begin, end in (piece_bounds(size, k) for k in range(piece_count(size)))]
        self._left = len(self._missing)

    @property
    def complete(self) -> bool:
        """Whether all pieces are."""
        return not self._left

    def known(self, begin: int, end: int) -> list[int]:
        """Takes a range that did not overlap any before; the pieces that it completes, rising."""
        found = []
        for index in range(begin // PIECE, piece_count(end) if end > begin else 0):
            first, last = piece_bounds(self._size, index)
            self._missing[index] -= min(end, last) - max(begin, first)
            if not self._missing[index]:
                found.append(index)
        self._left -= len(found)
        return found
