"""Payloads in shared memory: never changed while somebody may read them, gone with their processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.shared_memory import CannotShare, MappedSegment, SharedPool
from proto.exchange_pb2 import Segment, Shared


def announced(pool: SharedPool) -> Segment:
    announcement = pool.announcement
    assert announcement is not None
    return announcement


def put(pool: SharedPool, text: bytes) -> tuple[object, Shared]:
    block = pool.take(len(text))
    assert block is not None
    block.data[:] = np.frombuffer(text, dtype=np.uint8)
    return block, Shared(segment=block.segment.announcement.number, offset=block.offset, bytes=len(text), id=7)


def test_a_payload_is_read_where_it_lies_and_released_with_its_last_view() -> None:
    pool = SharedPool(1 << 20)
    mapped = MappedSegment(announced(pool))
    _, place = put(pool, b"0123456789abcdef")
    released: list[int] = []
    payload = mapped.payload(place, released.append)
    assert bytes(payload) == b"0123456789abcdef"
    view = np.frombuffer(payload, dtype="<f4")[1:3]
    assert not view.flags.writeable
    del payload
    assert not released
    del view
    assert released == [7]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3_000_000), st.integers(0, 2), st.booleans()), max_size=40), st.randoms())
def test_blocks_that_are_read_never_overlap_new_ones(orders: list[tuple[int, int, bool]], random) -> None:  # type: ignore[no-untyped-def]
    """Blocks are taken, sent to readers, released in any order; a reader that leaves takes its segment along."""
    pool = SharedPool(8 << 20)
    live = []
    for size, readers, leaves in orders:
        block = pool.take(size)
        if block is not None:
            for other, _ in live:
                if other.segment is block.segment:
                    assert block.offset >= other.offset + other.data.size or other.offset >= block.offset + size
            for reader in range(readers):
                block.sent(reader)
            block.drop()
            if readers:
                live.append((block, list(range(readers))))
        if live and leaves:
            pool.reader_left(0)
            taken = pool.take(1)
            assert taken is not None
            assert all(taken.segment is not other.segment for other, left in live if 0 in left)
            taken.drop()
        elif live:
            place = random.randrange(len(live))
            other, left = live[place]
            other.released(left.pop())
            if not left:
                live.pop(place)


def changed(change: Callable[[Segment], None]) -> Segment:
    wrong = Segment()
    wrong.CopyFrom(announced(POOL))
    change(wrong)
    return wrong


POOL = SharedPool(1 << 16)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda s: setattr(s, "boot_id", "another"), "another host"),
        (lambda s: setattr(s, "boot_id", ""), "another host"),
        (lambda s: setattr(s, "nonce", b"x" * 16), "another process's"),
        (lambda s: setattr(s, "bytes", s.bytes - 4096), "something else"),
        (lambda s: setattr(s, "fd", 1_000_000), "cannot open"),
        (lambda s: setattr(s, "pid", 2**31), "cannot open"),
        (lambda s: setattr(s, "fd", 0), "."),
    ],
)
def test_what_is_not_that_memory_is_not_read(change: Callable[[Segment], None], why: str) -> None:
    MappedSegment(announced(POOL))  # as it is, it can be
    with pytest.raises(CannotShare, match=why):
        MappedSegment(changed(change))


def test_a_file_that_could_shrink_is_not_read() -> None:
    """Its reader could be killed by SIGBUS."""
    fd = os.memfd_create("plain")
    os.ftruncate(fd, 4096)
    announcement = Segment(number=1, boot_id=announced(POOL).boot_id, pid=os.getpid(), fd=fd, bytes=4096)
    with pytest.raises(CannotShare):
        MappedSegment(announcement)
    os.close(fd)


def test_places_outside_of_the_segment_are_refused() -> None:
    mapped = MappedSegment(announced(POOL))
    size = mapped.memory.size
    for offset, length in ((0, 0), (0, size), (size - 16, 1), (2**63, 5), (5, 2**63)):
        with pytest.raises(ValueError, match="not in a segment"):
            mapped.payload(Shared(offset=offset, bytes=length), lambda _: None)


def mapped_inodes() -> set[str]:
    """Of the segments that this process has mapped."""
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    return {line[4] for line in lines if len(line) > 5 and "memfd:mesograd" in line[5]}


OWNER = """
import sys, time
from executor.shared_memory import SharedPool
pool = SharedPool(1 << 20)
block = pool.take(5)
block.data[:] = list(b"hello")
print(pool.announcement.SerializeToString().hex(), block.offset, flush=True)
sys.stdin.read()
"""


def test_nothing_is_left_of_a_killed_owner_and_its_readers_go_on() -> None:
    before = mapped_inodes()
    with subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        text, offset = owner.stdout.readline().split()
        mapped = MappedSegment(Segment.FromString(bytes.fromhex(text.decode())))
        payload = mapped.payload(Shared(offset=int(offset), bytes=5), lambda _: None)
        owner.send_signal(signal.SIGKILL)
        owner.wait(10)
        assert bytes(payload) == b"hello"
        del payload, mapped
        assert mapped_inodes() <= before, "it is still mapped"
        assert not [name for name in os.listdir("/dev/shm") if "mesograd" in name]
