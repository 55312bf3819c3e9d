"""A real ZooKeeper of a test's own."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from scheduler.cluster_binaries import find_zookeeper
from scheduler.cluster_zookeeper import write_configuration, zookeeper_command, zookeeper_serves

START_S = 60.0


@contextlib.contextmanager
def running_zookeeper(home: Path) -> Iterator[str]:
    """ "host:port" of a server that keeps its files in `home`, until the context ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    write_configuration(home, "127.0.0.1", port)
    with open(home / "log", "wb") as log:
        process = subprocess.Popen(zookeeper_command(find_zookeeper(), home), stdout=log, stderr=log, cwd=home)
    try:
        deadline = time.monotonic() + START_S
        while not zookeeper_serves("127.0.0.1", port):
            assert process.poll() is None, (home / "log").read_text()
            assert time.monotonic() < deadline, (home / "log").read_text()
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
