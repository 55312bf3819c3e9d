"""The tensors' way out of a server: versions of the parameters, kept and sent piece by piece."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from compute.compression import SliceCodec
from executor.gradient_push import SHARED_FROM_BYTES
from executor.parameter_slice import ParameterSlice
from executor.pieces import PIECE, piece_bounds, piece_count, runs
from executor.session import Session
from executor.shared_memory import Block, SharedPool
from proto.exchange_pb2 import Header, Parameters
from proto.frames import Frame, frame

LONGEST_RUN = 1 << 20
"""Pieces that one frame may carry whose payload lies in shared memory."""


class _Image:
    """One version of a slice's parameters as workers get it, made while the pieces come to have that version.

    What is in it does not change when the slice goes on to the next version.
    """

    def __init__(
        self, attempt: int, version: int, held: ParameterSlice, codec: SliceCodec, pool: SharedPool | None
    ) -> None:
        self.version = version
        self.size = held.size
        self._attempt = attempt
        self._begin = held.begin
        self._codec = codec
        self._frames: dict[int, Frame] = {}  # of the pieces, for those that get them over a socket; made once for all
        large = 4 * self.size >= SHARED_FROM_BYTES
        self._block: Block | None = pool.take(4 * self.size) if pool is not None and large else None
        self.pieces: set[int] = set()

    def add(self, pieces: list[int], parameters: NDArray[np.float32]) -> None:
        """These pieces have this version now."""
        for index in pieces:
            begin, end = piece_bounds(self.size, index)
            if self._block is None:
                # With a copy of the values: they do not stay where they are.
                plain = parameters[begin:end].copy() if self._codec.plain else parameters[begin:end]
                self._frames[index] = self._made(begin, self._encoded(begin, plain))
            else:
                data = self._encoded(begin, parameters[begin:end])
                self._block.data[4 * begin : 4 * begin + len(data)] = data
        self.pieces.update(pieces)

    def shared_with(self, session: Session) -> bool:
        """Whether the session's other end can read it where it lies."""
        return self._block is not None and session.shares(self._block)

    def send_shared(self, session: Session, pieces: list[int]) -> None:
        """Sends pieces of it, which are there, to whom it is shared with."""
        assert self._block is not None
        for run in runs(pieces, LONGEST_RUN if self._codec.plain else 1):
            begin, end = run.start * PIECE, min(run.stop * PIECE, self.size)
            session.send_block(self.header(begin), self._block, 4 * begin, 4 * begin + self._bytes(begin, end))

    def frame(self, index: int) -> Frame:
        """A piece of it, which is there, for a socket."""
        if index not in self._frames and self._block is not None:
            begin, end = piece_bounds(self.size, index)
            # With a copy: nobody says when a socket has read it, and the memory may be used again before.
            payload = bytes(self._block.data[4 * begin :][: self._bytes(begin, end)])
            self._frames[index] = self._made(begin, payload)
        return self._frames[index]

    def readdress(self, attempt: int) -> None:
        """It goes on to be sent in another attempt."""
        self._attempt = attempt
        for index, made in self._frames.items():
            self._frames[index] = frame(self.header(piece_bounds(self.size, index)[0]), made.payload)

    def drop(self, unsent: Iterable[int] = ()) -> None:
        """Nobody else will want it.

        Args:
            unsent: pieces whose frames are still to be sent to some.
        """
        if self._block is not None:
            for index in unsent:
                self.frame(index)
            self._block.drop()
            self._block = None

    def _encoded(self, begin: int, values: NDArray[np.float32]) -> memoryview:
        return memoryview(self._codec.encode(values, self._begin + begin))

    def _bytes(self, begin: int, end: int) -> int:
        return self._codec.encoded_bytes(self._begin + begin, self._begin + end)

    def _made(self, begin: int, payload: bytes | memoryview) -> Frame:
        return frame(self.header(begin), payload)

    def header(self, begin: int) -> Header:
        """Of a frame that begins with this element of the slice."""
        parameters = Parameters(version=self.version, offset=4 * begin, bytes=4 * self.size)
        return Header(attempt=self._attempt, parameters=parameters)


@dataclass
class _Due:
    """What a session is to get.

    Attributes:
        version: that was wanted.
        image: of that version, once there is one.
        taken: pieces that were sent, or are to be.
        unsent: those to be sent over a socket: a heap, as forward passes use the lowest first.
    """

    version: int
    image: _Image | None = None
    taken: set[int] = field(default_factory=set)
    unsent: list[int] = field(default_factory=list)

    def next(self) -> Frame | None:
        """What is to be sent next of what is there."""
        return self.image.frame(heappop(self.unsent)) if self.unsent and self.image is not None else None


class ParameterOutbox:
    """Who wants which version of the parameters, and the versions that may still be wanted.

    Those are all from the last committed one on: as long as a step is not committed, it may be that a worker has to
    compute a part of it again, because another server has not got it.
    """

    def __init__(self, pool: SharedPool | None, codec: SliceCodec) -> None:
        """
        Args:
            pool: memory that workers of this host read; None: not to be used.
            codec: of parameters.
        """
        self._pool = pool
        self._codec = codec
        self._attempt = 0
        self._images: dict[int, _Image] = {}
        self._wants: dict[Session, _Due] = {}

    def restart(self, attempt: int, keep: bool = False) -> None:
        """Another attempt: whoever waited gets a new membership and asks again.

        Args:
            keep: it goes on with what the slice held, of which pieces may have the next version.
        """
        self._attempt = attempt
        for session in list(self._wants):
            self.forget(session)
        for image in self._images.values():
            if keep:
                image.readdress(attempt)
            else:
                image.drop()
        if not keep:
            self._images = {}

    def forget(self, session: Session) -> None:
        """Nothing more is for this session."""
        due = self._wants.pop(session, None)
        if due is not None:
            due.unsent.clear()

    def want(self, session: Session, version: int, held: ParameterSlice, again: bool = False) -> None:
        """Sends what there is of this version, and the rest as it comes to exist; of one long past, the present one.

        Args:
            again: even if it was sent on this session before.
        """
        self.keep(held)
        if version < min(self._images):
            version = held.version
        if again or session not in self._wants or self._wants[session].version != version:
            self.forget(session)
            self._wants[session] = _Due(version)
        image = self._images.get(version)
        if image is not None:
            self._send(session, image)

    def keep(self, held: ParameterSlice) -> None:
        """Before anything of the slice moves on: makes sure that its present version is kept."""
        if held.version not in self._images:
            self._image(held.version, held).add(list(range(piece_count(held.size))), held.parameters)

    def add(self, held: ParameterSlice, version: int, pieces: list[int]) -> None:
        """These pieces of the slice have this version now: sends them to whoever wants it."""
        image = self._image(version, held)
        image.add(pieces, held.parameters)
        for session, due in list(self._wants.items()):
            if due.version == image.version:
                self._send(session, image)

    def committed(self, step: int) -> None:
        """No version before this one will be wanted."""
        for version in [v for v in self._images if v < step and v != max(self._images)]:
            image = self._images.pop(version)
            image.drop({index for due in self._wants.values() if due.image is image for index in due.unsent})

    def _image(self, version: int, held: ParameterSlice) -> _Image:
        if version not in self._images:
            self._images[version] = _Image(self._attempt, version, held, self._codec, self._pool)
        return self._images[version]

    def _send(self, session: Session, image: _Image) -> None:
        due = self._wants[session]
        due.image = image
        pieces = sorted(image.pieces - due.taken)
        due.taken.update(pieces)
        if not image.size:
            if not due.taken:
                due.taken.add(0)
                session.send(image.header(0))  # an empty slice is one empty frame
        elif image.shared_with(session):
            image.send_shared(session, pieces)
        elif pieces:
            for index in pieces:
                heappush(due.unsent, index)
            session.send_when_free(due.next)
