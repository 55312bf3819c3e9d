"""Where the secret of the Mesos principal comes from: a file or the environment, never the command line."""

from __future__ import annotations

import os
import stat
from collections.abc import MutableMapping
from pathlib import Path

from scheduler.outcome import UsageError

VARIABLE = "MESOGRAD_SECRET"


def principal_secret(file: str | None, environ: MutableMapping[str, str] = os.environ) -> str | None:
    """The secret in `file`, else that in MESOGRAD_SECRET, else None.

    The variable is taken out of the environment, so that no process started from here inherits it.

    Raises:
        UsageError: the file cannot be read, can be read by everyone, or holds no secret.
    """
    given = environ.pop(VARIABLE, "").strip()
    if file is None:
        return given or None
    path = Path(file)
    try:
        mode = path.stat().st_mode
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--secret-file {file}: {getattr(error, 'strerror', None) or 'it is not text'}") from None
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise UsageError(f"--secret-file {file}: everyone on this machine can read or write it; chmod 600 {file}")
    if not secret or not secret.isprintable():
        raise UsageError(f"--secret-file {file}: it must hold the principal's secret and nothing else, on one line")
    return secret
