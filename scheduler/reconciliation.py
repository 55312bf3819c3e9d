"""When to ask the master about tasks, as Mesos' reconciliation guide has it: one request in flight, with back-off."""

from __future__ import annotations

from collections.abc import Iterable

from scheduler.plan import Patience


class Reconciliation:
    """Explicit reconciliation of some tasks until each has been answered, and a look at everything now and then."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._open: set[str] = set()
        self._delay_s = patience.reconcile_first_s
        self._due: float | None = None
        self._all_due: float | None = None

    def begin(self, task_ids: Iterable[str], now: float) -> None:
        """(Re)starts with these tasks, due at once; the periodic implicit round restarts too."""
        self._open = set(task_ids)
        self._delay_s = self._patience.reconcile_first_s
        self._due = now
        self._all_due = now + self._patience.reconcile_all_s

    def add(self, task_ids: Iterable[str], now: float) -> None:
        self._open.update(task_ids)
        if self._open and (self._due is None or self._due > now + self._patience.reconcile_first_s):
            self._due = now

    def answered(self, task_id: str) -> None:
        self._open.discard(task_id)

    def due(self, now: float) -> set[str]:
        """Tasks to ask for now; empty if it is not time or all have been answered."""
        if self._due is None or now < self._due:
            return set()
        if not self._open:
            self._due = None
            return set()
        self._due = now + self._delay_s
        self._delay_s = min(2 * self._delay_s, self._patience.reconcile_max_s)
        return set(self._open)

    def all_due(self, now: float) -> bool:
        """True once per interval: time for an implicit reconciliation."""
        if self._all_due is None or now < self._all_due:
            return False
        self._all_due = now + self._patience.reconcile_all_s
        return True
