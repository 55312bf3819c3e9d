"""Finding and ending every process of one embedded cluster, its executors and their tasks included.

Mesos starts executors in sessions of their own, and a daemon that was killed leaves them behind, so neither the
process tree nor a process group is enough. Every daemon carries an environment variable that its executors inherit.

Run as a program (`python -P cluster_processes.py OWNER_PID DIRECTORY [--remove]`) this file is the watcher of an
ephemeral cluster: when its owner dies, however it dies, it ends the cluster. It therefore imports nothing of ours.
"""

import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

MARKER = "MESOGRAD_CLUSTER"  # environment variable of every daemon: the directory of its cluster
SANDBOX = "MESOS_DIRECTORY"  # environment variable that Mesos sets for every executor
TERMINATE_GRACE_S = 2.0
KILL_TIMEOUT_S = 10.0


def is_alive(process: psutil.Process) -> bool:
    """True unless the process has ended; a zombie has, but for one of whose threads some still are ending."""
    try:
        return bool(
            process.is_running() and (process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1)
        )
    except psutil.Error:
        return False


def cluster_processes(directory: Path) -> list[psutil.Process]:
    """Every live process that belongs to the cluster in `directory`, but for the caller and its ancestors."""
    root = str(directory)
    ourselves = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found: dict[int, psutil.Process] = {}
    children: dict[int, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            children.setdefault(process.ppid(), []).append(process)
        except (psutil.Error, OSError):
            continue  # ended meanwhile, a kernel thread, or another user's
        if environment.get(MARKER) == root or environment.get(SANDBOX, "").startswith(root + os.sep):
            found[process.pid] = process
    waiting = list(found.values())
    while waiting:  # a task may have cleared its environment
        for child in children.get(waiting.pop().pid, ()):
            if child.pid not in found:
                found[child.pid] = child
                waiting.append(child)
    return [process for pid, process in found.items() if pid not in ourselves and is_alive(process)]


def running_clusters() -> set[Path]:
    """Directories of all clusters of this host of which a process runs that we may look at."""
    directories = set()
    for process in psutil.process_iter():
        try:
            directory = process.environ().get(MARKER)
        except (psutil.Error, OSError):
            continue
        if directory:
            directories.add(Path(directory))
    return directories


def end_cluster_processes(directory: Path, grace_s: float = TERMINATE_GRACE_S) -> list[int]:
    """Ends every process of the cluster in `directory`: SIGTERM, and after `grace_s` SIGKILL until none is left.

    Returns:
        The pids of those that are still there after `KILL_TIMEOUT_S` (in uninterruptible sleep); normally none.
    """
    processes = cluster_processes(directory)
    _signal(processes, signal.SIGTERM)
    _wait(processes, grace_s)
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while processes := cluster_processes(directory):  # again and again: one may have forked before it died
        if time.monotonic() > deadline:
            return [process.pid for process in processes]
        _signal(processes, signal.SIGKILL)
        _wait(processes, 1.0)
    return []


def _signal(processes: Iterable[psutil.Process], number: int) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.Error:
            continue


def _wait(processes: Iterable[psutil.Process], timeout_s: float) -> None:
    """Waits until all have ended; not with psutil.wait_procs, which would reap children of the caller's Popen."""
    deadline = time.monotonic() + timeout_s
    remaining = list(processes)
    while remaining := [process for process in remaining if is_alive(process)]:
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)


def watch(owner_pid: int, directory: Path, remove: bool) -> None:
    """Returns when the owner has ended, having ended its cluster (and removed `directory` if `remove`).

    The owner is seen to end by its end of our standard input, and, since a child that it forked may hold that open
    for longer, by its pidfd too.
    """
    waited: list[int] = [sys.stdin.fileno()]
    try:
        waited.append(os.pidfd_open(owner_pid))
    except OSError:
        pass  # it has ended already, or a kernel without pidfd: standard input tells
    if os.getppid() == owner_pid:
        select.select(waited, [], [])
    end_cluster_processes(directory)
    if remove:
        shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    """The watcher's command line."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with its owner and not before
    watch(int(sys.argv[1]), Path(sys.argv[2]), "--remove" in sys.argv[3:])


if __name__ == "__main__":
    main()
