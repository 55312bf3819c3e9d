"""The process of a task: started, fed, ended with all that it started."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from executor.child import Child, death_signal_command, session_members
from tests.mesos_api.recorders import wait_until


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    children: list[Child] = []

    def start(script: str, line: bytes = b"", **environment: str) -> Child:
        environment = {"PATH": os.environ["PATH"], **environment}
        out, err = tmp_path / "out", tmp_path / "err"
        children.append(Child.start([sys.executable, "-c", script], line, environment, tmp_path, out, err))
        return children[-1]

    yield start
    for child in children:
        if child._process.returncode is None:
            child.kill_session()
            wait_until(child.has_exited, 5, "it lives")
            child.reap()


def wait_exit(child: Child) -> int:
    wait_until(child.has_exited, 10, "it does not end")
    return child.reap()


def test_return_codes(start: Callable[..., Child]) -> None:
    assert wait_exit(start("raise SystemExit(3)")) == 3
    assert wait_exit(start("import os; os.kill(os.getpid(), 11)")) == -signal.SIGSEGV


def test_an_end_is_seen_without_being_lost(start: Callable[..., Child]) -> None:
    """SIGTERM may come when the child has just ended: it must stay a zombie, or its process id might be another's."""
    child = start("")
    wait_until(child.has_exited, 10, "it does not end")
    child.terminate()
    assert child.has_exited()
    assert child.reap() == 0


def test_feeding_in_pieces(start: Callable[..., Child], tmp_path: Path) -> None:
    line = b"x" * 500_000 + b"\n"
    child = start("import sys; sys.stdin.readline(); data = sys.stdin.read(); print(len(data))", line)
    assert child.feed(), "a pipe holds less"
    wait_until(lambda: not child.feed(), 10, "it is not read")
    assert not child.has_exited(), "its input stays open"
    child.terminate()
    assert wait_exit(child) == -signal.SIGTERM


def test_a_child_that_does_not_read(start: Callable[..., Child]) -> None:
    child = start("", b"x" * 500_000)
    wait_until(child.has_exited, 10, "it does not end")
    assert not child.feed()
    assert child.reap() == 0


def test_everything_it_started_ends_with_it(start: Callable[..., Child], tmp_path: Path) -> None:
    """A grandchild in another process group, which ignores SIGTERM."""
    child = start(
        "import os, signal, time\n"
        "if os.fork() == 0:\n"
        "    os.setpgid(0, 0); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    open('ready', 'w').close(); time.sleep(600)\n"
        "while not os.path.exists('ready'): time.sleep(0.01)\n"
    )
    wait_until(child.has_exited, 10, "it does not end")
    assert len(session_members(child.pid)) == 1
    assert child.reap() == 0
    wait_until(lambda: not session_members(child.pid), 5, "the grandchild lives")


def test_what_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Child.start([sys.executable], b"", {}, tmp_path / "missing", tmp_path / "out", tmp_path / "err")


def test_the_death_signal_is_at_hand() -> None:
    assert death_signal_command(), "setpriv (Debian: util-linux) is missing: a hung child would outlive its executor"
