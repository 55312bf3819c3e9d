"""Where the executor's sandbox keeps what belongs to a task. Nobody else makes up these paths."""

from pathlib import Path

TAIL_LINES = 20
TAIL_BYTES = 4096


class SandboxPaths:
    """Paths below the sandbox directory of one executor."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def stdout(self, task_id: str) -> Path:
        """What the task wrote to its standard output."""
        return self.root / f"{task_id}.stdout"

    def stderr(self, task_id: str) -> Path:
        """What the task wrote to its standard error."""
        return self.root / f"{task_id}.stderr"


def tail(path: Path, lines: int = TAIL_LINES, max_bytes: int = TAIL_BYTES) -> str:
    """The last lines of a file, at most `max_bytes` of them; empty if there is no such file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - max_bytes))
            data = file.read(max_bytes)
    except OSError:
        return ""
    return "\n".join(data.decode("utf-8", "replace").rstrip().splitlines()[-lines:])
