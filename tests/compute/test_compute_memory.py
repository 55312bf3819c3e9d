"""Aligned arrays, huge pages, and buffers that plans share."""

from __future__ import annotations

import gc
import mmap
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute.arena import Arena
from compute.memory import ALIGNMENT_BYTES, HUGE_PAGE_BYTES, aligned

LINUX = sys.platform == "linux"


@given(st.lists(st.integers(0, 40), max_size=3), st.sampled_from([np.float32, np.uint16, np.int64, np.uint8]))
def test_small_arrays(shape: list[int], dtype: type) -> None:
    array = aligned(tuple(shape), dtype)
    assert array.shape == tuple(shape)
    assert array.dtype == dtype
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.size == 0 or array.ctypes.data % ALIGNMENT_BYTES == 0
    assert not array.any()


@pytest.mark.parametrize("size", [HUGE_PAGE_BYTES // 2, HUGE_PAGE_BYTES, 3 * HUGE_PAGE_BYTES + 4])
def test_large_arrays(size: int) -> None:
    array = aligned((size // 4,))
    assert array.nbytes == size
    assert array.ctypes.data % HUGE_PAGE_BYTES == 0
    assert not array.any()
    array += 1
    view = array[1:]
    del array
    gc.collect()
    assert (view == 1).all()


def resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * mmap.PAGESIZE


def huge_page_bytes(address: int) -> int:
    """Of the mapping that holds an address."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) <= address < int(found[2], 16)
        elif inside and line.startswith("AnonHugePages:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no such mapping")


def transparent_huge_pages() -> bool:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return setting.exists() and "[never]" not in setting.read_text()


@pytest.mark.skipif(not LINUX or not transparent_huge_pages(), reason="the kernel has no huge pages to give")
def test_large_arrays_lie_in_huge_pages() -> None:
    array = aligned((4 * HUGE_PAGE_BYTES + 4096,), np.uint8)
    array.fill(1)
    assert huge_page_bytes(array.ctypes.data) == 4 * HUGE_PAGE_BYTES


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_memory_returns_to_the_system_and_none_is_wasted() -> None:
    before = resident_bytes()
    arrays = [aligned((HUGE_PAGE_BYTES + HUGE_PAGE_BYTES // 2,), np.uint8) for _ in range(20)]
    for array in arrays:
        array.fill(1)
    wanted = sum(array.nbytes for array in arrays)
    used = resident_bytes() - before
    assert wanted <= used <= 1.05 * wanted
    del arrays, array
    gc.collect()
    assert resident_bytes() - before < 0.1 * wanted


@pytest.mark.skipif(not LINUX, reason="reads /proc, glibc")
def test_freed_memory_is_kept_for_the_next() -> None:
    """In a process of its own: it cannot be undone."""
    program = """
import resource, numpy as np
from compute.memory import keep_freed_memory
assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    for _ in range(5):
        a = np.ones(8 << 20, dtype=np.uint8)
        b = a + a
work()
before = faults()
work()
print(faults() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    # 16 MB are 4096 pages of 4 KB each time.
    assert int(done.stdout) < 1000


def test_an_arena_reuses_what_was_given_back() -> None:
    arena = Arena()
    a, b = arena.take(1000), arena.take(64)
    assert (a.offset, b.offset, arena.peak_bytes, arena.live_bytes) == (0, 1024, 1088, 1088)
    arena.give_back(a)
    small = arena.take(100)
    rest = arena.take(800)
    assert (small.offset, rest.offset, arena.peak_bytes) == (0, 128, 1088)
    arena.give_back(b)
    # It joins what the others left before it, and a hole at the end is extended.
    c = arena.take(200)
    assert (c.offset, arena.peak_bytes) == (960, 1216)
    arena.give_back(small)
    with pytest.raises(ValueError, match="given back before"):
        arena.give_back(small)
    with pytest.raises(ValueError, match="not of this arena"):
        arena.give_back(Arena().take(64))


def test_the_smallest_hole_that_fits_is_taken() -> None:
    arena = Arena()
    buffers = [arena.take(size) for size in (640, 64, 192, 64, 320, 64)]
    for index in (0, 2, 4):
        arena.give_back(buffers[index])
    assert arena.take(256).offset == buffers[4].offset
    assert arena.take(192).offset == buffers[2].offset
    assert arena.take(192).offset == buffers[0].offset


def test_arrays_of_a_buffer() -> None:
    arena = Arena()
    arena.take(1)
    buffer = arena.take(4 * 6 + 3)
    array = buffer.array((2, 3))
    assert array.ctypes.data % ALIGNMENT_BYTES == 0
    array[:] = 7
    assert buffer.array((6,)).tolist() == [7] * 6
    assert buffer.array((3,), np.uint8).dtype == np.uint8
    with pytest.raises(ValueError, match="an array of 28 bytes does not fit into 27"):
        buffer.array((7,))


def test_arrays_outlive_their_arena() -> None:
    arena = Arena()
    array = arena.take(8 << 20).array((1 << 20,), np.float64)
    array.fill(2)
    del arena
    gc.collect()
    assert (array == 2).all()


def test_arenas_on_the_same_memory() -> None:
    arena = Arena()
    first = arena.take(4096).array((1024,))
    twin = arena.again()
    second = twin.take(64).array((16,))
    second.fill(3)
    assert first[:16].tolist() == [3] * 16
    assert (arena.peak_bytes, twin.peak_bytes) == (4096, 64)


def test_an_arena_has_a_limit() -> None:
    arena = Arena(limit_bytes=1 << 20)
    whole = arena.take(1 << 20)
    with pytest.raises(MemoryError, match="more than the 1 MB"):
        arena.take(1)
    arena.give_back(whole)
    with pytest.raises(MemoryError, match="more than the 1 MB"):
        arena.take((1 << 20) + 1)
    assert arena.take(1 << 20).offset == 0


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_an_arena_costs_what_is_used() -> None:
    before = resident_bytes()
    arenas = [Arena() for _ in range(20)]
    for arena in arenas:
        arena.take(1 << 30)
    assert resident_bytes() - before < 4 << 20
    arrays = [arena.take(5 * HUGE_PAGE_BYTES).array((5 * HUGE_PAGE_BYTES,), np.uint8) for arena in arenas]
    for array in arrays:
        array.fill(1)
    used = resident_bytes() - before
    del arrays, array, arenas, arena
    gc.collect()
    assert used >= 20 * 5 * HUGE_PAGE_BYTES
    assert resident_bytes() - before < 8 << 20


@pytest.mark.skipif(not LINUX, reason="needs setrlimit")
def test_an_arena_where_addresses_are_scarce() -> None:
    program = """
import resource
import numpy as np
from compute.arena import Arena
limit = 3 << 30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
arenas = [Arena() for _ in range(6)]
for arena in arenas:
    arena.take(1 << 20).array((1 << 20,), np.uint8).fill(1)
print("ok")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "ok\n"


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_two_buffers_in_use_overlap(data: st.DataObject) -> None:
    """Over random orders of taking and giving back, with the content checked."""
    arena = Arena(limit_bytes=1 << 20)
    live: list[tuple[object, np.ndarray, int]] = []
    most = 0
    for step in range(data.draw(st.integers(1, 40))):
        if live and data.draw(st.booleans()):
            buffer, array, mark = live.pop(data.draw(st.integers(0, len(live) - 1)))
            assert (array == mark).all()
            arena.give_back(buffer)
        else:
            size = data.draw(st.integers(0, 5000))
            buffer = arena.take(size)
            array = buffer.array((size,), np.uint8)
            assert array.size == 0 or array.ctypes.data % ALIGNMENT_BYTES == 0
            mark = step % 251
            array.fill(mark)
            live.append((buffer, array, mark))
        for _, array, mark in live:
            assert (array == mark).all()
        spans = sorted((b.offset, b.offset + max(b.size_bytes, 1)) for b, _, _ in live)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
        most = max(most, arena.live_bytes)
        assert arena.live_bytes <= most <= arena.peak_bytes
    for buffer, _, _ in live:
        arena.give_back(buffer)
    assert arena.live_bytes == 0
    # All holes have become one again.
    whole = arena.take(max(arena.peak_bytes, 1))
    assert whole.offset == 0
    assert arena.peak_bytes == max(arena.peak_bytes, 64)
