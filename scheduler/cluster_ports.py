"""Free TCP ports for the daemons and for the `ports` resource of the agents.

Ports come from below the range the kernel hands to outgoing connections, so that none of those takes a chosen port
before its daemon binds it.
"""

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scheduler.cluster_errors import ClusterError
from scheduler.cluster_processes import running_clusters
from scheduler.cluster_state import ClusterState

LOWEST = 10000
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def port_is_free(port: int) -> bool:
    """True if nobody listens on the port, on any address; connections in TIME_WAIT do not count, as for servers."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def promised_ports() -> set[int]:
    """Ports of the clusters running on this host, of their stopped daemons too, and those that their agents offer."""
    promised: set[int] = set()
    for directory in running_clusters():
        try:
            state = ClusterState.load(directory)
        except ClusterError:
            continue  # another user's
        for daemon in state.layout.daemons if state else ():
            promised.add(daemon.port)
            if daemon.offered_ports:
                promised.update(range(daemon.offered_ports[0], daemon.offered_ports[1] + 1))
    return promised


@contextmanager
def choosing_ports() -> Iterator[None]:
    """Held from looking for free ports until daemons run that promise them: one cluster of a user at a time."""
    path = Path(tempfile.gettempdir()) / f"mesograd-ports-{os.getuid()}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class PortChooser:
    """Hands out free ports, none of them twice, starting at a random place."""

    def __init__(self) -> None:
        """Looks at the host's clusters once, for the ports they have promised."""
        try:
            highest = int(_EPHEMERAL_RANGE.read_text().split()[0]) - 1
        except (OSError, ValueError):
            highest = 32767
        if highest < LOWEST + 5000:  # an unusual kernel setting: then rather share the range with connections
            highest = 60000
        self._highest = highest
        self._taken = promised_ports()

    def one(self) -> int:
        """One free port."""
        return self.span(1)[0]

    def span(self, count: int) -> range:
        """`count` free ports in a row.

        Raises:
            ClusterError: the host has no such row.
        """
        for first in self._starts(count):
            ports = range(first, first + count)
            if self._taken.isdisjoint(ports) and all(map(port_is_free, ports)):
                self._taken.update(ports)
                return ports
        raise ClusterError(f"no {count} free TCP ports in a row between {LOWEST} and {self._highest}")

    def _starts(self, count: int) -> Iterator[int]:
        starts = range(LOWEST, self._highest - count + 2)
        # Steps of a prime number visit every start once unless it divides their number, whatever the first one is.
        begin, step = random.Random().randrange(len(starts)), 7919 if len(starts) % 7919 else 7907
        return (starts[(begin + i * step) % len(starts)] for i in range(len(starts)))
