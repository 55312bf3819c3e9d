"""Reads what will be asked for next in threads of its own, while the caller computes."""

from __future__ import annotations

import statistics
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

Request = TypeVar("Request", bound=Hashable)
Result = TypeVar("Result")

LEAST_S = 1e-3
"""Handing a micro-batch over from thread to thread costs some 0.1 ms; quicker reads are not worth it."""
_REMEMBERED = 9


class Prefetcher(Generic[Request, Result]):
    """Computes `read(request)` ahead of time.

    `expect` says what will probably be asked for, in that order; `get` takes it. A request that nobody expected is read
    next and waited for. At most `ahead` results are held or being read that were not asked for yet, whatever is
    expected; what is no longer expected is dropped. While reads take less than `least_s`, the caller makes them itself.
    Never more than `threads` calls of `read` run at a time, those by the caller included.

    The threads start with the first request and end with `close`, or when the prefetcher is no longer referred to.

    Args:
        read: must depend on its request alone. An exception that it raises is raised again by `get` of that request;
            the request is then forgotten, so that asking once more reads once more.
        threads: at least 1.
        ahead: at least 1.
        least_s: seconds; compared with the median of the last reads. 0 for always reading in the threads.
    """

    def __init__(
        self, read: Callable[[Request], Result], threads: int = 1, ahead: int = 2, least_s: float = LEAST_S
    ) -> None:
        if threads < 1 or ahead < 1:
            raise ValueError(f"threads and ahead must be at least 1, got {threads} and {ahead}")
        self._shelf = _Shelf(read, threads, ahead, least_s)
        self._closed = weakref.finalize(self, self._shelf.close)

    def expect(self, requests: Iterable[Request]) -> None:
        """Replaces what is expected. What was read of it before is kept, all else is dropped."""
        self._shelf.expect(requests)

    def get(self, request: Request) -> Result:
        """The result of `read(request)`; waits for it where it has not been read yet.

        Raises:
            RuntimeError: the prefetcher was closed.
            Exception: whatever `read` raised.
        """
        return self._shelf.get(request)

    def close(self) -> None:
        """Ends the threads and waits for them, and so for the reads they are at. May be called more than once."""
        self._closed()
        self._shelf.join()


class _Failure:
    """An exception that waits for its consumer."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Shelf(Generic[Request, Result]):
    """What a prefetcher shares with its threads: they must not keep the prefetcher itself alive."""

    def __init__(self, read: Callable[[Request], Result], threads: int, ahead: int, least_s: float) -> None:
        self._read = read
        self._least_s = least_s
        self._seconds: deque[float] = deque([least_s], maxlen=_REMEMBERED)  # of the last reads
        self._count = threads
        self._ahead = ahead
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        # Under the condition's lock. A request is in at most one of these four:
        self._asked: deque[Request] = deque()  # waited for, not begun
        self._expected: deque[Request] = deque()  # not begun
        self._reading: set[Request] = set()
        self._done: dict[Request, Result | _Failure] = {}
        self._wanted: set[Request] = set()  # what may be kept when it is done: expected or waited for
        self._closed = False

    def expect(self, requests: Iterable[Request]) -> None:
        """See Prefetcher."""
        listed = list(dict.fromkeys(requests))
        with self._changed:
            self._wanted = {*listed, *self._asked}
            self._done = {request: result for request, result in self._done.items() if request in self._wanted}
            known = {*self._asked, *self._reading, *self._done}
            self._expected = deque(request for request in listed if request not in known)
            if not self._quick():
                self._start()
                self._changed.notify_all()

    def get(self, request: Request) -> Result:
        """See Prefetcher."""
        with self._changed:
            if self._closed:
                raise RuntimeError("the prefetcher is closed")
            if request in self._expected:
                self._expected.remove(request)
            known = request in self._done or request in self._reading or request in self._asked
            self._wanted.add(request)
            if not known and self._quick() and not self._asked and len(self._reading) < self._count:
                self._reading.add(request)
                own = True
            else:
                own = False
                if not known:
                    self._asked.append(request)
                self._start()
                self._changed.notify_all()
        if own:
            self._finish(request, *self._timed(request))
        with self._changed:
            while request not in self._done:
                if self._closed:
                    raise RuntimeError("the prefetcher is closed")
                self._changed.wait()
            result = self._done.pop(request)
            self._wanted.discard(request)
            self._changed.notify_all()
        if isinstance(result, _Failure):
            raise result.error
        return result

    def close(self) -> None:
        """Ends the threads after the read that each is at."""
        with self._changed:
            self._closed = True
            self._asked.clear()
            self._expected.clear()
            self._done.clear()
            self._changed.notify_all()

    def join(self) -> None:
        """Waits for the threads' end."""
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        if not self._threads and not self._closed:
            for number in range(self._count):
                # A daemon: a process that ends need not wait for a slow file.
                thread = threading.Thread(target=self._run, name=f"prefetch {number}", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _quick(self) -> bool:
        return statistics.median(self._seconds) < self._least_s

    def _next(self) -> Request | None:
        """Takes the request to read now; None if there is none, or no room for one that nobody waits for."""
        if len(self._reading) >= self._count:
            return None
        if self._asked:
            return self._asked.popleft()
        if self._expected and not self._quick() and len(self._reading) + len(self._done) < self._ahead:
            return self._expected.popleft()
        return None

    def _run(self) -> None:
        while True:
            with self._changed:
                while (request := self._next()) is None:
                    if self._closed:
                        return
                    self._changed.wait()
                if self._closed:
                    return
                self._reading.add(request)
            self._finish(request, *self._timed(request))

    def _timed(self, request: Request) -> tuple[Result | _Failure, float]:
        """Reads; also gives the seconds that it took."""
        begun = time.monotonic()
        result: Result | _Failure
        try:
            result = self._read(request)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to whoever asks for the request
            result = _Failure(error)
        return result, time.monotonic() - begun

    def _finish(self, request: Request, result: Result | _Failure, seconds: float) -> None:
        with self._changed:
            self._reading.discard(request)
            self._seconds.append(seconds)
            if request in self._wanted and not self._closed:
                self._done[request] = result
            self._changed.notify_all()
