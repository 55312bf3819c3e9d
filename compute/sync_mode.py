"""How the workers' gradients meet: in steps, or each on its own."""

from __future__ import annotations

import re
from dataclasses import dataclass

from compute.errors import InputError


@dataclass(frozen=True)
class SyncMode:
    """See `parse`.

    Attributes:
        synchronous: gradients of a step are added up before they are applied; who computed what does not show.
        staleness: else the most updates by others that may lie between what a gradient was computed with and what it is
            applied to; None for any number.
    """

    synchronous: bool = True
    staleness: int | None = None

    @classmethod
    def parse(cls, text: str) -> SyncMode:
        """
        Args:
            text: "sync"; "ssp:S", bounded staleness (Ho et al.: More effective distributed ML via a stale synchronous
                parallel parameter server, 2013); "async" (Dean et al.: Large scale distributed deep networks, 2012).

        Raises:
            InputError: it is none of them.
        """
        if text == "sync":
            return cls()
        if text == "async":
            return cls(False)
        match = re.fullmatch(r"ssp:(\d{1,6})", text) if isinstance(text, str) else None
        if match is None:
            raise InputError(f'sync must be "sync", "ssp:S" with a whole number S of updates, or "async", got {text!r}')
        return cls(False, int(match[1]))
