"""Which checkpoints of a training are kept, and the deletion of the others."""

from __future__ import annotations

import posixpath
from collections.abc import Collection
from dataclasses import dataclass

from compute import checkpoint
from compute.errors import InputError
from compute.storage import delete_directory, delete_file


@dataclass(frozen=True)
class Retention:
    """Which checkpoints stay.

    Attributes:
        keep: how many of the newest; None for all.
        keep_every: the k-th, 2k-th, 3k-th ... checkpoint of the training stays for ever; 0: none does.
    """

    keep: int | None = 5
    keep_every: int = 0

    def check(self) -> None:
        """Raises InputError, one line with the remedy, if this makes no sense."""
        if self.keep is not None and (not isinstance(self.keep, int) or isinstance(self.keep, bool) or self.keep < 1):
            raise InputError(f"keep must be a whole number of at least 1, or None to keep all, got {self.keep!r}")
        if not isinstance(self.keep_every, int) or isinstance(self.keep_every, bool) or self.keep_every < 0:
            raise InputError(f"keep_every must be a whole number, 0 for none, got {self.keep_every!r}")


class Pruner:
    """Deletes what a retention does not keep. Only one process may prune a place: the one that writes manifests."""

    def __init__(self, url: str, retention: Retention) -> None:
        self._url = url
        self._retention = retention
        self._for_ever: set[int] = set()  # steps whose manifests said so: they need not be read again

    def prune(self, unfinished: Collection[int] = ()) -> list[int]:
        """Deletes superseded checkpoints, and remains of ones that were never completed.

        Remains lie before the newest complete checkpoint; what lies after it may be under way. A checkpoint's manifest
        goes first, so that one that is half deleted is no checkpoint any more.

        Args:
            unfinished: steps of checkpoints that are being written.

        Returns:
            Steps of what was deleted.

        Raises:
            InputError: the place cannot be read or deleted from.
        """
        keep = self._retention.keep
        complete: list[int] = []
        doomed: list[int] = []
        for step in reversed(checkpoint.steps(self._url)):
            place = checkpoint.step_url(self._url, step)
            if step in unfinished or step in self._for_ever:
                continue
            if not checkpoint.is_complete(place):
                if complete:
                    doomed.append(step)
            elif keep is None or len(complete) < keep:
                complete.append(step)
            elif self._stays(step):
                self._for_ever.add(step)
            else:
                doomed.append(step)
        for step in doomed:
            place = checkpoint.step_url(self._url, step)
            delete_file(posixpath.join(place, checkpoint.MANIFEST))
            delete_directory(place)
        return sorted(doomed)

    def _stays(self, step: int) -> bool:
        every = self._retention.keep_every
        if not every:
            return False
        try:
            number = checkpoint.read_manifest(checkpoint.step_url(self._url, step)).number
        except InputError:  # damaged, or of another version: not ours to delete
            return True
        return number % every == 0
