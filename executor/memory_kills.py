"""How often the kernel has killed a process because the memory of this process's cgroup was used up."""

from pathlib import Path


class MemoryKills:
    """Compares the kernel's count with that of the last look.

    The count is `oom_kill` in memory.events (cgroup version 2) or memory.oom_control (version 1, since Linux 4.13);
    where there is neither, nothing is ever found.
    """

    def __init__(self, process: Path = Path("/proc/self/cgroup"), hierarchy: Path = Path("/sys/fs/cgroup")) -> None:
        self._file = _count_file(process, hierarchy)
        self._count = self._read()

    def more(self) -> bool:
        """Whether there have been any since the last look."""
        before, self._count = self._count, self._read()
        return self._count > before

    def _read(self) -> int:
        if self._file is None:
            return 0
        try:
            for line in self._file.read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
        except (OSError, ValueError):
            pass  # the cgroup is gone, or is of a kernel that does not count
        return 0


def _count_file(process: Path, hierarchy: Path) -> Path | None:
    """Lines of /proc/PID/cgroup are ID:CONTROLLERS:PATH (man 7 cgroups)."""
    try:
        lines = process.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            file = hierarchy / "memory" / path.lstrip("/") / "memory.oom_control"
        elif not controllers:
            file = hierarchy / path.lstrip("/") / "memory.events"
        else:
            continue
        if file.is_file():
            return file
    return None
