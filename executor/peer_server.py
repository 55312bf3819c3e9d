"""Another server of the job, as the book keeper sees it."""

from executor.pieces import piece_count
from executor.session import Session
from proto import control_pb2 as control
from proto.exchange_pb2 import Holding
from proto.frames import FrameError


class PeerServer:
    """What it has said so far."""

    def __init__(self, server: control.Server) -> None:
        self.index = server.index
        self.task_id = server.task_id
        self.holding: Holding | None = None  # what it had when this attempt began
        self.address = server.address
        self.version = 0  # what it has applied, as far as it said so
        self.session: Session | None = None
        self.restored = False
        self.weights: bytearray | None = None
        self._arriving: tuple[bytearray, set[int]] = (bytearray(), set())

    def take_weights(self, offset: int, size: int, payload: memoryview) -> None:
        """Takes a frame of the final weights."""
        data, offsets = self._arriving
        if len(data) != size:
            data, offsets = self._arriving = (bytearray(size), set())
        if offset + len(payload) > size:
            raise FrameError(f"{len(payload)} bytes at {offset} of {size}")
        data[offset : offset + len(payload)] = payload
        offsets.add(offset)
        if len(offsets) >= piece_count(size // 4):
            self.weights = data
