"""Delays between attempts: short at first, doubling, with jitter, bounded."""

import random
from collections.abc import Callable

# Of its own: a script that seeds the module's generator, to repeat its training, gets no clients in step by it.
_JITTER = random.Random()


class Backoff:
    """Yields the seconds to wait before the next attempt.

    Args:
        first_s: upper bound of the first delay.
        max_s: upper bound of every delay.
        uniform: draws from [low, high]; a test may pass its own.
    """

    def __init__(
        self, first_s: float = 0.25, max_s: float = 15.0, uniform: Callable[[float, float], float] = _JITTER.uniform
    ) -> None:
        self.max_s = max_s
        self._first_s = min(first_s, max_s)
        self._bound_s = self._first_s
        self._uniform = uniform

    def next_s(self) -> float:
        """The next delay: between half its bound and its bound, which then doubles up to `max_s`."""
        delay_s = self._uniform(self._bound_s / 2, self._bound_s)
        self._bound_s = min(2 * self._bound_s, self.max_s)
        return delay_s

    def reset(self) -> None:
        """Begins anew with `first_s`, after something worked."""
        self._bound_s = self._first_s
