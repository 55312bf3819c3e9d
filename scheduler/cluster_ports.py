"""Free TCP ports for the daemons and for the `ports` resource of the agents.

Ports come from below the range the kernel hands to outgoing connections, so that none of those takes a chosen port
before its daemon binds it.
"""

import random
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil

from scheduler.cluster_errors import ClusterError

LOWEST = 10000
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_PORTS_RESOURCE = re.compile(r"ports\(\*\):\[(\d+)-(\d+)\]")


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
    """Ports that agents already running on this host offer; free at the moment, perhaps, but spoken for."""
    promised: set[int] = set()
    for process in psutil.process_iter():
        try:
            arguments = process.cmdline()
        except psutil.Error:
            continue
        if arguments and Path(arguments[0]).name == "mesos-agent":
            for first, last in _PORTS_RESOURCE.findall(" ".join(arguments)):
                promised.update(range(int(first), int(last) + 1))
    return promised


class PortChooser:
    """Hands out free ports, none of them twice, starting at a random place."""

    def __init__(self) -> None:
        """Looks at the host's agents once, for the ports they have promised."""
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
        begin, step = random.randrange(len(starts)), 7919 if len(starts) % 7919 else 7907
        return (starts[(begin + i * step) % len(starts)] for i in range(len(starts)))
