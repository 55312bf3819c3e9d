"""Keeps a job's FrameworkID on disk, so that a restarted driver is the same framework to the master."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class FrameworkStore:
    """One file in the job's state directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._path = directory / "framework_id"

    def load(self) -> str:
        """The saved id, or empty."""
        try:
            return self._path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""

    def save(self, framework_id: str) -> None:
        """Durable when it returns: written beside, synced, renamed, directory synced. Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(framework_id + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def remove(self) -> None:
        """The framework is gone: so is its id, and the directory if nothing else is in it."""
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._path.parent.rmdir()
