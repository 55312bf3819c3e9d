"""Memory that processes of one host share, for payloads that then need not go through a socket.

The owner of a segment (`SharedPool`) puts payloads into blocks of it and tells the other side where; the other side
(`MappedSegment`) reads them where they lie. A block is written again only after every reader has released it. Where a
connection ends before that, nobody can know whether its reader still reads, so the whole segment is given up: no reader
ever sees a block change. Segments have no name (memfd_create(2)): nothing of them outlives their processes.
"""

import ctypes
import fcntl
import logging
import mmap
import os
import weakref
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from compute.memory import HUGE_PAGE_BYTES
from proto.exchange_pb2 import Segment, Shared

NONCE_BYTES = 16
ALIGNMENT_BYTES = 64
WAYS = ("auto", "shm", "tcp", "grpc")
SHARING_WAYS = ("auto", "shm")
WAY_VARIABLE = "MESOGRAD_EXCHANGE"
"""What tasks take from their environment: how tensors travel.

auto: by shared memory where both ends prove able to, else over lanes (executor/data_lane.py); shm: in no other way
than the first; tcp: never so; grpc: within the gRPC streams."""


logger = logging.getLogger(__name__)


class CannotShare(Exception):
    """The other side's memory cannot be read here; the text says why."""


def way() -> str:
    """How tensors are to travel. Raises ValueError if the environment says something unknown."""
    chosen = os.environ.get(WAY_VARIABLE, "auto")
    if chosen not in WAYS:
        raise ValueError(f"{WAY_VARIABLE} is {chosen!r}, it must be one of {', '.join(WAYS)}")
    return chosen


def boot_id() -> str:
    """Of the running kernel (random(4)); empty where the system has none."""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
    return ""


class Block:
    """Some bytes of a segment.

    Attributes:
        data: uint8, writable by the owner.
        kept: the owner may still send it to somebody.
    """

    def __init__(self, segment: "_Segment", offset: int, size: int) -> None:
        self.segment = segment
        self.offset = offset
        self.data = segment.memory[offset : offset + size]
        self.kept = True
        self._readers: Counter[Hashable] = Counter()

    def sent(self, reader: Hashable) -> None:
        """Somebody was told of it, and will release it."""
        self._readers[reader] += 1

    def released(self, reader: Hashable) -> None:
        """One of those has."""
        self._readers[reader] -= 1
        if self._readers[reader] <= 0:
            del self._readers[reader]
        self._maybe_free()

    def drop(self) -> None:
        """The owner will not send it again."""
        self.kept = False
        self._maybe_free()

    def is_read_by(self, reader: Hashable) -> bool:
        """Whether somebody has yet to release it."""
        return reader in self._readers

    def _maybe_free(self) -> None:
        if not self.kept and not self._readers:
            self.segment.blocks.pop(self.offset, None)


class _Segment:
    """One piece of shared memory, from which blocks are taken where they first fit."""

    def __init__(self, number: int, size: int) -> None:
        whole = -(-(size + NONCE_BYTES) // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
        self.fd = os.memfd_create("mesograd", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, whole)
        # A file that cannot shrink: whoever reads it cannot be hit by SIGBUS.
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        mapping = mmap.mmap(self.fd, whole, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # a kernel may be built without them; small pages do as well
                mapping.madvise(mmap.MADV_HUGEPAGE)
        self.memory: NDArray[np.uint8] = np.frombuffer(mapping, dtype=np.uint8)
        nonce = os.urandom(NONCE_BYTES)
        self.memory[-NONCE_BYTES:] = np.frombuffer(nonce, dtype=np.uint8)
        self.size = whole - NONCE_BYTES
        self.blocks: dict[int, Block] = {}
        self.announcement = Segment(
            number=number, boot_id=boot_id(), pid=os.getpid(), fd=self.fd, bytes=whole, nonce=nonce
        )
        weakref.finalize(self, os.close, self.fd).atexit = False

    def take(self, size: int) -> Block | None:
        offset = 0
        for start in sorted(self.blocks):
            if start - offset >= size:
                break
            offset = start + -(-self.blocks[start].data.size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        if offset + size > self.size:
            return None
        block = self.blocks[offset] = Block(self, offset, size)
        return block


class SharedPool:
    """The memory of this process that others may read. Not thread-safe."""

    def __init__(self, size: int) -> None:
        """
        Args:
            size: bytes that may be in use at a time; taken from the system as they are first written.
        """
        self._size = size
        self._number = 0
        self._refused = False
        self._segment: _Segment | None = None

    @property
    def announcement(self) -> Segment | None:
        """Of the present segment; None if the system gives none."""
        segment = self._present()
        return segment.announcement if segment else None

    def take(self, size: int) -> Block | None:
        """A block that nobody reads; None if there is no room."""
        segment = self._present()
        return segment.take(size) if segment else None

    def reader_left(self, reader: Hashable) -> None:
        """A connection has ended: what its other end may still be reading is never written again."""
        segment = self._segment
        if segment is not None and any(block.is_read_by(reader) for block in segment.blocks.values()):
            self._segment = None

    def _present(self) -> _Segment | None:
        if self._segment is None and not self._refused:
            self._number += 1
            try:
                self._segment = _Segment(self._number, self._size)
            except OSError as error:
                logger.warning("no shared memory: %s", error)
                self._refused = True
        return self._segment


class MappedSegment:
    """Another process's segment, read-only."""

    def __init__(self, announcement: Segment) -> None:
        """
        Raises:
            CannotShare: it is not on this host, or not within reach of this process.
        """
        if not announcement.boot_id or announcement.boot_id != boot_id():
            raise CannotShare("it is on another host")
        path = f"/proc/{announcement.pid}/fd/{announcement.fd}"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise CannotShare(f"cannot open {path}: {error.strerror}") from None
        try:
            if os.fstat(fd).st_size != announcement.bytes or announcement.bytes <= NONCE_BYTES:
                raise CannotShare(f"{path} is something else")
            if not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
                raise CannotShare(f"{path} may shrink")
            self._mapping = mmap.mmap(fd, announcement.bytes, mmap.MAP_SHARED, mmap.PROT_READ)
        except OSError as error:
            raise CannotShare(f"cannot map {path}: {error.strerror}") from None
        finally:
            os.close(fd)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):
                self._mapping.madvise(mmap.MADV_HUGEPAGE)
        self.memory: NDArray[np.uint8] = np.frombuffer(self._mapping, dtype=np.uint8)
        if self.memory[-NONCE_BYTES:].tobytes() != announcement.nonce:
            raise CannotShare(f"{path} is another process's")

    def payload(self, shared: Shared, released: Callable[[int], None]) -> memoryview:
        """A payload where it lies; `released` is called with its id when the last view of it is gone, in any thread.

        Raises:
            ValueError: it does not lie in the segment.
        """
        begin, end = shared.offset, shared.offset + shared.bytes
        if not 0 < shared.bytes <= end <= self.memory.size - NONCE_BYTES:
            raise ValueError(f"bytes {begin} to {end} are not in a segment of {self.memory.size}")
        # numpy's views refer to the owner of the memory, not to each other: an object of its own for every payload
        # makes it known when the last of them is gone. The mapping lives as long, in the finalizer's arguments.
        lent = (ctypes.c_ubyte * shared.bytes).from_address(self.memory.ctypes.data + begin)
        weakref.finalize(lent, _gone, self, released, shared.id).atexit = False
        view = np.frombuffer(memoryview(lent).cast("B"), dtype=np.uint8)
        view.flags.writeable = False
        return view.data


def _gone(_segment: MappedSegment, released: Callable[[int], None], number: int) -> None:
    released(number)
