"""Reading ahead: results, bounds, failures, abandoned leases, threads that end."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute.data.prefetch import Prefetcher

TIMEOUT_S = 20


class Gate:
    """A read that lets requests through one by one, as the test says."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self._changed = threading.Condition()
        self._permits = 0

    def __call__(self, request: int) -> int:
        with self._changed:
            self.begun.append(request)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._permits > 0, TIMEOUT_S)
            self._permits -= 1
        return 10 * request

    def let(self, count: int = 1) -> None:
        with self._changed:
            self._permits += count
            self._changed.notify_all()

    def wait_begun(self, *requests: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.begun) >= len(requests), TIMEOUT_S)
            assert self.begun == list(requests)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def prefetcher(gate: Gate) -> Iterator[Prefetcher[int, int]]:
    made = Prefetcher(gate, ahead=2, least_s=0)
    yield made
    gate.let(100)
    made.close()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_reads_in_the_expected_order_and_no_more_than_the_bound(gate: Gate, prefetcher: Prefetcher[int, int]) -> None:
    prefetcher.expect([1, 2, 3, 4])
    gate.let(100)
    assert prefetcher.get(1) == 10  # room for two: 2 and 3
    assert [prefetcher.get(request) for request in (2, 3, 4)] == [20, 30, 40]
    assert gate.begun == [1, 2, 3, 4]


def test_no_more_is_held_than_allowed(gate: Gate, prefetcher: Prefetcher[int, int]) -> None:
    prefetcher.expect(range(10))
    gate.let(2)
    gate.wait_begun(0, 1)
    shelf = prefetcher._shelf
    with shelf._changed:
        assert shelf._changed.wait_for(lambda: len(shelf._done) == 2, TIMEOUT_S)
        assert shelf._next() is None  # nobody asked: the third is not begun
    assert prefetcher.get(0) == 0
    gate.wait_begun(0, 1, 2)


def test_an_unexpected_request_comes_first(gate: Gate, prefetcher: Prefetcher[int, int]) -> None:
    prefetcher.expect([1, 2, 3])
    gate.wait_begun(1)
    found: list[int] = []
    consumer = threading.Thread(target=lambda: found.append(prefetcher.get(9)))
    consumer.start()
    shelf = prefetcher._shelf
    with shelf._changed:
        assert shelf._changed.wait_for(lambda: list(shelf._asked) == [9], TIMEOUT_S)
    gate.let(2)
    consumer.join(TIMEOUT_S)
    assert found == [90]
    assert gate.begun[:2] == [1, 9]


def test_an_abandoned_lease_leaves_nothing(gate: Gate, prefetcher: Prefetcher[int, int]) -> None:
    prefetcher.expect([1, 2, 3])
    gate.wait_begun(1)
    prefetcher.expect([7, 8])  # while 1 is being read
    gate.let(3)
    assert prefetcher.get(7) == 70
    assert prefetcher.get(8) == 80
    assert gate.begun == [1, 7, 8]
    assert not prefetcher._shelf._done
    prefetcher.expect([5])
    gate.let()
    assert prefetcher.get(5) == 50
    prefetcher.expect([6])
    gate.let()
    with prefetcher._shelf._changed:
        assert prefetcher._shelf._changed.wait_for(lambda: 6 in prefetcher._shelf._done, TIMEOUT_S)
    prefetcher.expect([])
    assert not prefetcher._shelf._done
    gate.let()
    assert prefetcher.get(6) == 60  # dropped, so read once more
    assert gate.begun[-2:] == [6, 6]


def test_what_is_still_expected_is_kept(gate: Gate, prefetcher: Prefetcher[int, int]) -> None:
    prefetcher.expect([1, 2])
    gate.wait_begun(1)
    prefetcher.expect([1, 3])
    gate.let(2)
    assert [prefetcher.get(1), prefetcher.get(3)] == [10, 30]
    assert gate.begun == [1, 3]


@pytest.mark.parametrize("least_s", [0, 1000])
def test_failures_reach_the_consumer_of_their_request(least_s: float) -> None:
    calls: list[int] = []

    def read(request: int) -> int:
        calls.append(request)
        if request == 2 and calls.count(2) == 1:
            raise KeyError("file, record 2")
        return request

    prefetcher = Prefetcher(read, least_s=least_s)
    prefetcher.expect([1, 2, 3])
    assert prefetcher.get(1) == 1
    with pytest.raises(KeyError, match="record 2") as error:
        prefetcher.get(2)
    assert any(entry.name == "read" for entry in error.traceback)  # where it happened is told
    assert prefetcher.get(3) == 3
    assert prefetcher.get(2) == 2  # asked once more, read once more
    prefetcher.close()


def test_a_failure_that_nobody_asks_for_is_forgotten() -> None:
    def read(request: int) -> int:
        if request < 0:
            raise ValueError("never seen")
        return request

    prefetcher = Prefetcher(read, least_s=0)
    prefetcher.expect([-1])
    assert prefetcher.get(4) == 4
    prefetcher.expect([5])
    assert prefetcher.get(5) == 5
    prefetcher.close()


def test_closing_ends_threads_and_waiting_consumers(gate: Gate) -> None:
    prefetcher = Prefetcher(gate, threads=3, ahead=3, least_s=0)
    prefetcher.expect([1, 2, 3, 4])
    failed: list[BaseException] = []

    def consume() -> None:
        try:
            prefetcher.get(9)
        except RuntimeError as error:
            failed.append(error)

    consumer = threading.Thread(target=consume)
    consumer.start()
    with prefetcher._shelf._changed:
        assert prefetcher._shelf._changed.wait_for(lambda: 9 in prefetcher._shelf._wanted, TIMEOUT_S)
    gate.let(0)
    closer = threading.Thread(target=prefetcher.close)
    closer.start()
    consumer.join(TIMEOUT_S)
    assert len(failed) == 1
    gate.let(100)
    closer.join(TIMEOUT_S)
    prefetcher.close()
    with pytest.raises(RuntimeError, match="closed"):
        prefetcher.get(1)


def test_a_forgotten_prefetcher_ends_its_threads() -> None:
    prefetcher = Prefetcher(lambda request: request, least_s=0)
    assert prefetcher.get(3) == 3
    threads = list(prefetcher._shelf._threads)
    assert threads
    del prefetcher
    gc.collect()
    for thread in threads:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


def test_quick_reads_are_made_by_the_caller() -> None:
    threads: set[str] = set()

    def read(request: int) -> int:
        threads.add(threading.current_thread().name)
        return request

    prefetcher = Prefetcher(read, least_s=1000)
    prefetcher.get(0)  # of the first it is not known yet
    threads.clear()
    for request in range(1, 40):
        prefetcher.expect([request, request + 1])
        assert prefetcher.get(request) == request
    assert threads == {threading.current_thread().name}
    prefetcher.close()


def test_slow_reads_go_to_the_threads_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the median of the last nine; the time is the test's."""
    now = [0.0]
    monkeypatch.setattr("compute.data.prefetch.time.monotonic", lambda: now[0])
    where: dict[int, str] = {}

    def read(request: int) -> int:
        where[request] = threading.current_thread().name
        now[0] += 1.0 if 20 <= request < 40 else 0.0
        return request

    prefetcher = Prefetcher(read, least_s=0.5)
    for request in range(80):
        assert prefetcher.get(request) == request
    mine = threading.current_thread().name
    assert [where[request] == mine for request in (10, 19, 22, 30, 39, 42, 50, 79)] == [
        True,
        True,
        True,
        False,
        False,
        False,
        True,
        True,
    ]
    prefetcher.close()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(0, 6), max_size=6), st.lists(st.integers(0, 6), max_size=5)), max_size=12),
    st.integers(1, 3), st.integers(1, 3), st.sampled_from([0, 1000]),
)  # fmt: skip
def test_whatever_is_expected_and_asked_the_answers_are_right(
    leases: list[tuple[list[int], list[int]]], threads: int, ahead: int, least_s: float
) -> None:
    lock, active, most = threading.Lock(), [0], [0]

    def read(request: int) -> np.ndarray:
        with lock:
            active[0] += 1
            most[0] = max(most[0], active[0])
        if request == 6:
            with lock:
                active[0] -= 1
            raise ValueError("six")
        made = np.full(3, request)
        with lock:
            active[0] -= 1
        return made

    prefetcher = Prefetcher(read, threads, ahead, least_s)
    for expected, asked in leases:
        prefetcher.expect(expected)
        for request in asked:
            if request == 6:
                with pytest.raises(ValueError, match="six"):
                    prefetcher.get(request)
            else:
                assert prefetcher.get(request).tolist() == [request] * 3
    assert most[0] <= threads
    assert len(prefetcher._shelf._done) <= ahead
    prefetcher.close()


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"ahead": 0}])
def test_bounds_of_nothing_are_refused(wrong: dict[str, int]) -> None:
    read: Callable[[int], int] = abs
    with pytest.raises(ValueError, match="at least 1"):
        Prefetcher(read, **wrong)  # type: ignore[arg-type]
