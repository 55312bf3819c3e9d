"""The tensors' way out of a server: versions of the parameters, kept and sent piece by piece."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

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

    def __init__(self, attempt: int, version: int, size: int, pool: SharedPool | None) -> None:
        self.version = version
        self._attempt = attempt
        self.size = size
        self._frames: dict[int, Frame] = {}  # of the pieces, for those that get them over a socket; made once for all
        large = 4 * size >= SHARED_FROM_BYTES
        self._block: Block | None = pool.take(4 * size) if pool is not None and large else None
        self.pieces: set[int] = set()

    @property
    def complete(self) -> bool:
        return len(self.pieces) == piece_count(self.size)

    def add(self, pieces: list[int], parameters: NDArray[np.float32]) -> None:
        """These pieces have this version now."""
        data = parameters.data.cast("B")
        for index in pieces:
            begin, end = piece_bounds(self.size, index)
            if self._block is not None:
                self._block.data[4 * begin : 4 * end] = data[4 * begin : 4 * end]
            else:
                self._frames[index] = self._made(begin, parameters[begin:end])
        self.pieces.update(pieces)

    def send(self, session: Session, pieces: list[int]) -> None:
        """Sends pieces of it, which are there."""
        if self._block is not None and session.shares(self._block):
            for run in runs(pieces, LONGEST_RUN):
                begin, end = run.start * PIECE, min(run.stop * PIECE, self.size)
                session.send_block(self._header(begin), self._block, 4 * begin, 4 * end)
        else:
            session.send_frames(self._frame(index) for index in pieces)
        if not self.size:
            session.send(self._header(0))

    def readdress(self, attempt: int) -> None:
        """It goes on to be sent in another attempt."""
        self._attempt = attempt
        for index, made in self._frames.items():
            self._frames[index] = frame(self._header(piece_bounds(self.size, index)[0]), made.payload)

    def drop(self) -> None:
        """It will not be sent any more."""
        if self._block is not None:
            self._block.drop()

    def _frame(self, index: int) -> Frame:
        if index not in self._frames and self._block is not None:
            begin, end = piece_bounds(self.size, index)
            self._frames[index] = self._made(begin, self._block.data[4 * begin : 4 * end])
        return self._frames[index]

    def _made(self, begin: int, values: NDArray[Any]) -> Frame:
        """With a copy of the values: they do not stay where they are."""
        return frame(self._header(begin), values.copy().data.cast("B"))

    def _header(self, begin: int) -> Header:
        parameters = Parameters(version=self.version, offset=4 * begin, bytes=4 * self.size)
        return Header(attempt=self._attempt, parameters=parameters)


class ParameterOutbox:
    """Who wants which version of the parameters, and the versions that may still be wanted.

    Those are all from the last committed one on: as long as a step is not committed, it may be that a worker has to
    compute a part of it again, because another server has not got it.
    """

    def __init__(self, pool: SharedPool | None) -> None:
        self._pool = pool
        self._attempt = 0
        self._images: dict[int, _Image] = {}
        self._wants: dict[Session, tuple[int, set[int]]] = {}  # the version, and the pieces of it that were sent

    def restart(self, attempt: int, keep: bool = False) -> None:
        """Another attempt: whoever waited gets a new membership and asks again.

        Args:
            keep: it goes on with what the slice held, of which pieces may have the next version.
        """
        self._attempt = attempt
        self._wants = {}
        for image in self._images.values():
            if keep:
                image.readdress(attempt)
            else:
                image.drop()
        if not keep:
            self._images = {}

    def forget(self, session: Session) -> None:
        """The session has ended."""
        self._wants.pop(session, None)

    def want(self, session: Session, version: int, held: ParameterSlice, again: bool = False) -> None:
        """Sends what there is of this version, and the rest as it comes to exist; of one long past, the present one.

        Args:
            again: even if it was sent on this session before.
        """
        self.keep(held)
        if version < min(self._images):
            version = held.version
        if again or self._wants.get(session, (-1, ()))[0] != version:
            self._wants[session] = (version, set())
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
        for session, (version, _) in list(self._wants.items()):
            if version == image.version:
                self._send(session, image)

    def committed(self, step: int) -> None:
        """No version before this one will be wanted."""
        for version in [v for v in self._images if v < step and v != max(self._images)]:
            self._images.pop(version).drop()

    def _image(self, version: int, held: ParameterSlice) -> _Image:
        if version not in self._images:
            self._images[version] = _Image(self._attempt, version, held.size, self._pool)
        return self._images[version]

    def _send(self, session: Session, image: _Image) -> None:
        _, sent = self._wants[session]
        pieces = sorted(image.pieces - sent)
        if pieces or not (image.size or sent):
            image.send(session, pieces)
            sent.update(pieces or [0])  # an empty slice is one empty frame
