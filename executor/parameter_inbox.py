"""The parameters as they arrive at a worker, piece by piece from every server."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from executor.pieces import piece_bounds, piece_count, whole_pieces
from proto.exchange_pb2 import Parameters
from proto.frames import FrameError


@dataclass
class _Slice:
    """What came from one server.

    Attributes:
        version: of the pieces that came last; -1: none.
        wanted: version that was asked for and is not complete yet; -1: none.
        received: pieces of `version`.
    """

    begin: int
    size: int
    version: int = -1
    wanted: int = -1
    received: set[int] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        return self.version >= 0 and len(self.received) == piece_count(self.size)


@dataclass
class ParameterInbox:
    """A pure state machine: says when a version is complete, and keeps pieces until there is a place for them.

    Attributes:
        waiting: pieces that are to be loaded, in this order: offset in the flat vector in elements, and the bytes.
    """

    bounds: list[tuple[int, int]]
    waiting: list[tuple[int, memoryview]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._slices = [_Slice(begin, end - begin) for begin, end in self.bounds]

    def will_come(self, server: int, version: int) -> None:
        """This version was asked for along with something else."""
        self._slices[server].wanted = version

    def comes(self, server: int, message: Parameters, size: int) -> int:
        """A frame with `size` bytes of payload begins to be received where its parameters belong.

        Returns:
            The first of them, in elements of the flat vector.

        Raises:
            FrameError: it is not of this slice.
        """
        part = self._slices[server]
        begin, _ = self._pieces(part, message, size)
        if message.version != part.version:
            part.version, part.received = message.version, set()
        return part.begin + begin

    def take(self, server: int, message: Parameters, payload: memoryview, placed: bool = False) -> None:
        """Takes a frame.

        Args:
            placed: it was received where it belongs, as `comes` has said.

        Raises:
            FrameError: it is not of this slice.
        """
        part = self._slices[server]
        begin, pieces = self._pieces(part, message, len(payload))
        if message.version != part.version:
            part.version, part.received = message.version, set()
        part.received.update(pieces)
        if part.complete and part.wanted <= part.version:
            part.wanted = -1
        if len(payload) and not placed:
            self.waiting.append((part.begin + begin, payload))

    def _pieces(self, part: _Slice, message: Parameters, size: int) -> tuple[int, Iterable[int]]:
        """First element within the slice, and the pieces."""
        begin, end = message.offset // 4, (message.offset + size) // 4
        pieces = whole_pieces(part.size, begin, end) if part.size else ()
        if message.bytes != 4 * part.size or message.offset % 4 or size % 4 or pieces is None:
            raise FrameError(f"{size} of {message.bytes} bytes at {message.offset} of {4 * part.size}")
        return begin, pieces

    def missing(self, version: int) -> list[int]:
        """The servers that have to be asked for this version; they are taken to be asked now."""
        asked = []
        for server, part in enumerate(self._slices):
            if not (part.complete and part.version == version) and part.wanted != version:
                part.wanted, part.version, part.received = version, -1, set()
                asked.append(server)
        return asked

    def on_the_way(self, version: int) -> bool:
        """Whether all that is missing of this version, if anything is, was asked for."""
        parts = self._slices
        return not self.has(version) and all(version in (p.wanted, p.version if p.complete else -1) for p in parts)

    def lacking(self, version: int) -> list[tuple[int, int]]:
        """The pieces of this version that are still to come, as ranges [begin, end) of the flat vector."""
        found = []
        for part in self._slices:
            here = part.received if part.version == version else set()
            for index in range(piece_count(part.size)):
                if index not in here:
                    begin, end = piece_bounds(part.size, index)
                    found.append((part.begin + begin, part.begin + end))
        return found

    def has(self, version: int) -> bool:
        """Whether all of it is here."""
        return all(part.complete and part.version == version for part in self._slices)

    def ask_again(self, version: int) -> None:
        """This version or a later one was asked for anew, of every server."""
        for part in self._slices:
            part.wanted, part.version, part.received = version, -1, set()

    def has_at_least(self, version: int) -> bool:
        """Whether of every slice some version is here that is this one or later."""
        return all(part.complete and part.version >= version for part in self._slices)

    @property
    def versions(self) -> list[int]:
        """Of each slice."""
        return [part.version for part in self._slices]

    def is_past(self, version: int) -> bool:
        """Whether a server that was asked for this version has answered with a later one."""
        return any(part.complete and part.version > version for part in self._slices)
