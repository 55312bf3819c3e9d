"""`mesograd run`: executes a training script as `python SCRIPT args` would, with the options for its job at hand."""

from __future__ import annotations

import os
import runpy
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from scheduler.context import RunContext, running
from scheduler.outcome import EXIT_FAILED, EXIT_USAGE, UsageError

_OUR_ROOT = Path(__file__).resolve().parent.parent
_OUR_DIRECTORIES = tuple(f"{_OUR_ROOT / name}{os.sep}" for name in ("scheduler", "executor", "proto", "compute"))


def run_script(script: Path, arguments: Sequence[str], run: RunContext) -> int:
    """Executes `script` as `__main__`. Returns the exit code; what went wrong has been said on standard error.

    Raises:
        UsageError: the script cannot be read.
        SystemExit: as the script raised it.
    """
    if not script.is_file():
        raise UsageError(f"script not found: {script}")
    argv, path = sys.argv, list(sys.path)
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.resolve().parent))
    try:
        with running(run):
            runpy.run_path(str(script), run_name="__main__")
    except KeyboardInterrupt:
        sys.stderr.write("mesograd: interrupted\n")
        return 130
    except Exception as error:  # noqa: BLE001  # whatever the user's script raises is shown as it is
        return _show(error)
    finally:
        sys.argv, sys.path[:] = argv, path
    if not run.jobs:
        sys.stderr.write(f"mesograd: {script} ended without calling TrainingJob.run(); nothing was trained\n")
    return 0


def _show(error: Exception) -> int:
    from compute.errors import InputError

    if isinstance(error, InputError):
        sys.stderr.write(f"mesograd: {' '.join(str(error).split())}\n")
        return EXIT_USAGE
    sys.stderr.write("".join(user_traceback(error)))
    return EXIT_FAILED


def user_traceback(error: BaseException) -> list[str]:
    """The lines of its traceback, without frames of Mesograd and of what executes the script."""
    shown = traceback.TracebackException.from_exception(error)
    pending: list[traceback.TracebackException | None] = [shown]
    while pending:
        part = pending.pop()
        if part is not None:
            part.stack = traceback.StackSummary.from_list(
                [frame for frame in part.stack if not _is_ours(frame.filename)]
            )
            pending += [part.__cause__, part.__context__]
    return list(shown.format())


def _is_ours(filename: str) -> bool:
    return filename == "<frozen runpy>" or filename == runpy.__file__ or filename.startswith(_OUR_DIRECTORIES)
