"""What the kernel tells of processes that were killed for memory."""

from pathlib import Path

import pytest

from executor.memory_kills import MemoryKills
from executor.task_table import Exited, Launch, Report, Started, TaskTable


@pytest.mark.parametrize(
    ("line", "file"),
    [("5:cpu,memory:/mesos/x", "memory/mesos/x/memory.oom_control"), ("0::/mesos/x", "mesos/x/memory.events")],
)
def test_both_versions_of_cgroups(tmp_path: Path, line: str, file: str) -> None:
    process, counts = tmp_path / "cgroup", tmp_path / file
    process.write_text(f"9:freezer:/elsewhere\n{line}\n")
    counts.parent.mkdir(parents=True)
    counts.write_text("under_oom 0\noom_kill 2\n")
    kills = MemoryKills(process, tmp_path)
    assert not kills.more(), "those before do not count"
    counts.write_text("under_oom 0\noom_kill 3\n")
    assert kills.more()
    assert not kills.more()
    counts.unlink()
    assert not kills.more()


def test_without_cgroups_there_is_nothing_to_tell(tmp_path: Path) -> None:
    assert not MemoryKills(tmp_path / "none", tmp_path).more()


def test_the_label_tells_the_driver() -> None:
    table = TaskTable()
    table.handle(Launch("t"), 0.0)
    table.handle(Started("t"), 0.0)
    (report,) = table.handle(Exited("t", None, 9, for_memory=True), 1.0)
    assert isinstance(report, Report)
    assert report.labels == {"signal": "SIGKILL", "killed_for": "memory"}
