"""What SIGINT, SIGTERM and SIGHUP do, before, in and after the driver's loop.

Each context manager leaves the handlers as it found them, and does nothing outside the main thread. A signal that is
ignored when it begins (SIGHUP under nohup) stays ignored.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def _kept() -> Iterator[dict[signal.Signals, Any]]:
    """Handlers of the signals that may be changed; put back afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield {}
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    changeable = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    try:
        yield changeable
    finally:
        for number, handler in changeable.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """SIGTERM and SIGHUP end the process as Ctrl-C does: through every `finally`."""

    def unwind(number: int, frame: object) -> None:
        sys.stderr.write(f"mesograd: stopped by {signal.Signals(number).name}\n")
        raise SystemExit(128 + number)

    with _kept() as changeable:
        for number in changeable:
            if number != signal.SIGINT:
                signal.signal(number, unwind)
        yield


@contextlib.contextmanager
def ignored() -> Iterator[None]:
    """Nothing interrupts: for the time in which the last processes are being ended."""
    with _kept() as changeable:
        for number in changeable:
            signal.signal(number, signal.SIG_IGN)
        yield


@contextlib.contextmanager
def handled(loop: asyncio.AbstractEventLoop, handle: Callable[[int], None]) -> Iterator[None]:
    """Calls `handle` on the loop with the number of each signal that comes."""
    with _kept() as changeable:
        for number in changeable:
            loop.add_signal_handler(number, handle, int(number))
        try:
            yield
        finally:
            for number in changeable:
                loop.remove_signal_handler(number)
