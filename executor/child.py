"""The process of one task: started in a session of its own, fed its request, ended together with all it started."""

import contextlib
import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_KILL_ROUNDS = 10  # a process may fork while its session is being killed; each round catches what the last one missed


@functools.cache
def death_signal_command() -> tuple[str, ...]:
    """A prefix for commands that has the kernel kill them when the thread that started them ends; or nothing.

    The child also ends when its standard input does, but a process that hangs or is stopped does not notice that.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return ()
    prefix = (setpriv, "--pdeathsig", "KILL", "--")
    try:
        subprocess.run([*prefix, "true"], stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return prefix


class Child:
    """A running task. Its standard input stays open as long as this executor lives.

    Attributes:
        pid: process id, which is also that of its session and process group.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", line: bytes) -> None:
        self._process = process
        self._pending = memoryview(line)
        assert process.stdin is not None  # start() asked for a pipe
        self._stdin = process.stdin
        os.set_blocking(self._stdin.fileno(), False)
        self.pid = process.pid

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        line: bytes,
        environment: Mapping[str, str],
        directory: Path,
        stdout: Path,
        stderr: Path,
    ) -> "Child":
        """Starts `command` in `directory`; `line` is what feed() will write.

        Raises:
            OSError: if it cannot be started.
            ValueError: if an argument or a variable holds a null character.
        """
        with stdout.open("ab") as out, stderr.open("ab") as err:
            process = subprocess.Popen(
                [*death_signal_command(), *command],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env=dict(environment),
                cwd=directory,
                start_new_session=True,
                bufsize=0,
            )
        return cls(process, line)

    def fileno(self) -> int:
        """Of the child's standard input, to wait until it can be written to."""
        return self._stdin.fileno()

    def feed(self) -> bool:
        """Writes what the pipe has room for of the request; returns whether there is more."""
        try:
            while self._pending:
                self._pending = self._pending[os.write(self._stdin.fileno(), self._pending) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:  # it closed its input, or ended; the latter shows by itself
            self._pending = memoryview(b"")
        return bool(self._pending)

    def tell(self, line: bytes) -> bool:
        """Has feed() write one more line, unless it is still busy with one before; returns whether there is more."""
        if not self._pending:
            self._pending = memoryview(line)
        return self.feed()

    def has_exited(self) -> bool:
        """Whether it ended; it stays a zombie, which keeps its process id, until reap()."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def terminate(self) -> None:
        """Asks it to end (SIGTERM)."""
        os.kill(self.pid, signal.SIGTERM)  # not by Popen, which would reap it if it has just ended

    def kill_session(self) -> None:
        """Kills it (SIGKILL) with all processes of its session, whatever their process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        for _ in range(_KILL_ROUNDS):
            members = [pid for pid in session_members(self.pid) if pid != self.pid]
            if not members:
                return
            for pid in members:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)

    def reap(self) -> int:
        """After has_exited(): kills what is left of its session, and returns its return code as subprocess has it."""
        self.kill_session()
        self._stdin.close()
        return self._process.wait()


def session_members(session: int) -> list[int]:
    """Ids of the processes of a session, zombies excepted."""
    members = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # pid (name) state ppid pgrp session ...; the name may hold anything, parentheses too
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[3]) == session and fields[0] != b"Z":
            members.append(int(name))
    return members
