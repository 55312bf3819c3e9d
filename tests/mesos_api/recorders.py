"""A scheduler and an executor that note every callback, and may be told to do something in one."""

import threading
import time
from collections.abc import Callable
from typing import Any

CALLBACKS_OF_SCHEDULER = (
    *("registered", "reregistered", "disconnected", "processHeartBeat", "error", "connectionFailed", "callbackFailed"),
    *("resourceOffers", "inverseOffers", "offerRescinded", "inverseOfferRescinded"),
    *("statusUpdate", "frameworkMessage", "slaveLost", "executorLost"),
)
CALLBACKS_OF_EXECUTOR = (
    *("registered", "reregistered", "disconnected", "shutdown", "error"),
    *("launchTask", "launchTaskGroup", "killTask", "frameworkMessage"),
)


class Recorder:
    """Its `seen` holds (callback, arguments without the driver) in order; `on` maps a callback to what it shall do."""

    callbacks: tuple[str, ...] = ()

    def __init__(self, **on: Callable[..., Any]) -> None:
        self.on = on
        self.seen: list[tuple[str, tuple[Any, ...]]] = []
        self.threads: set[int] = set()
        self._changed = threading.Condition()
        for name in self.callbacks:
            setattr(self, name, self._callback(name))

    def _callback(self, name: str) -> Callable[..., None]:
        def callback(driver: Any, *args: Any) -> None:
            with self._changed:
                self.threads.add(threading.get_ident())
                self.seen.append((name, args))
                self._changed.notify_all()
            if name in self.on:
                self.on[name](driver, *args)

        return callback

    def args_of(self, name: str) -> list[tuple[Any, ...]]:
        with self._changed:
            return [args for seen, args in self.seen if seen == name]

    def wait(self, name: str, count: int = 1, timeout_s: float = 10.0) -> tuple[Any, ...]:
        """The arguments of the `count`-th callback of that name."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.args_of(name)) >= count, timeout_s), (
                f"{len(self.args_of(name))} of {count} callbacks {name} within {timeout_s} s; "
                f"seen: {[seen for seen, _ in self.seen]}"
            )
            return self.args_of(name)[count - 1]


class RecordingScheduler(Recorder):
    callbacks = CALLBACKS_OF_SCHEDULER


class RecordingExecutor(Recorder):
    callbacks = CALLBACKS_OF_EXECUTOR


def wait_until(condition: Callable[[], Any], timeout_s: float, what: str) -> None:
    """For what tells of itself only when asked."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"{what} within {timeout_s} s"
        pause.wait(0.01)
