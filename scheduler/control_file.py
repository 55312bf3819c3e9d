"""Where a running job's driver can be reached from this machine, and with what: one file in its state directory."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

_NAME = "control"


@dataclass(frozen=True)
class ControlPoint:
    """The driver's end of the control channel."""

    address: str  #: "host:port"
    secret: str


class ControlFile:
    """Holds the job's secret, so only its owner may read it."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _NAME

    def save(self, point: ControlPoint) -> None:
        """Written beside and renamed, so that nobody reads half of it. Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f"{_NAME}.{os.getpid()}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump({"address": point.address, "secret": point.secret}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._path)

    def load(self) -> ControlPoint | None:
        """None if there is none, or none of ours."""
        try:
            fields = json.loads(self._path.read_text(encoding="utf-8"))
            return ControlPoint(str(fields["address"]), str(fields["secret"]))
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None

    def remove(self) -> None:
        """The driver ends: it cannot be reached any more. The directory goes, too, if nothing else is in it."""
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._path.parent.rmdir()


def jobs_with_a_driver(directory: Path) -> list[str]:
    """Ids of the jobs below the state directory whose driver left a control file: it runs, or was killed."""
    return sorted(path.parent.name for path in directory.glob(f"*/{_NAME}"))
