"""Hosts that are namespaces of this machine: each has a network and process ids of its own.

They hang on one bridge, each by a link whose rate tc's token bucket filter limits in both directions (tc-tbf(8)).
Needs root, and util-linux's unshare and nsenter, iproute2's ip and tc, and the kernel's bridge, veth and sch_tbf.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND_S = 10.0
TOOLS = ("unshare", "nsenter", "ip", "tc")
BURST_BYTES = 128 << 10  # more than one packet of a network device that leaves segmentation to the next one
QUEUE_BYTES = 512 << 10  # as switches with little memory have


class HostsError(RuntimeError):
    """They cannot be had here; the text says why."""


@dataclass(frozen=True)
class Host:
    """One of them.

    Attributes:
        address: IPv4.
        enter: command that runs what follows it there.
    """

    index: int
    address: str
    enter: tuple[str, ...]


class Hosts(ExitStack):
    """`count` hosts, each with a link of `rate_bit_s` in each direction; all their processes end with this context."""

    def __init__(self, count: int, rate_bit_s: float) -> None:
        super().__init__()
        self._count, self._rate = count, rate_bit_s
        self.hosts: list[Host] = []
        self._switch: tuple[str, ...] = ()

    def __enter__(self) -> Hosts:
        """
        Raises:
            HostsError: no right to it, or something is missing.
        """
        missing = [tool for tool in TOOLS if shutil.which(tool) is None]
        if missing:
            raise HostsError(f"no {', '.join(missing)} here")
        super().__enter__()
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def link_bytes(self) -> list[tuple[int, int]]:
        """Of each host's link: bytes that left the host and that came to it so far, as the filters counted them."""
        return [
            (self._passed(host.enter, "eth0"), self._passed(self._switch, f"port{host.index}")) for host in self.hosts
        ]

    def _build(self) -> None:
        self._switch = self._namespaces("--net")
        run(self._switch, "ip", "link", "add", "bridge", "type", "bridge")
        run(self._switch, "ip", "link", "set", "bridge", "up")
        for index in range(self._count):
            enter = self._namespaces("--net", "--pid", "--mount")
            port, address = f"port{index}", f"10.0.0.{index + 1}"
            run(
                self._switch, "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns",
                enter[enter.index("--target") + 1],
            )  # fmt: skip
            run(self._switch, "ip", "link", "set", port, "master", "bridge", "up")
            run(enter, "ip", "link", "set", "lo", "up")
            run(enter, "ip", "address", "add", f"{address}/24", "dev", "eth0")
            run(enter, "ip", "link", "set", "eth0", "up")
            for where, device in ((self._switch, port), (enter, "eth0")):
                run(
                    where, "tc", "qdisc", "add", "dev", device, "root", "tbf", "rate", f"{self._rate:.0f}bit",
                    "burst", str(BURST_BYTES), "limit", str(QUEUE_BYTES),
                )  # fmt: skip
            self.hosts.append(Host(index, address, enter))

    def _namespaces(self, *kinds: str) -> tuple[str, ...]:
        """New namespaces, which last until their first process sees the end of its input; the command to enter them."""
        own_processes = "--pid" in kinds
        command = ["unshare", *kinds, *["--fork", "--mount-proc"] * own_processes, "sh", "-c", "echo ready; exec cat"]
        holder = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.callback(holder.communicate)
        assert holder.stdout is not None
        assert holder.stderr is not None
        if not holder.stdout.readline():
            raise HostsError(f"no namespaces here: {holder.stderr.read().strip()}")
        pid = str(holder.pid)
        if own_processes:
            pid = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
        return ("nsenter", "--target", pid, *kinds, "--wd", "--")

    @staticmethod
    def _passed(enter: tuple[str, ...], device: str) -> int:
        found: list[dict[str, Any]] = json.loads(run(enter, "tc", "-s", "-j", "qdisc", "show", "dev", device))
        return next(int(qdisc["bytes"]) for qdisc in found if qdisc["kind"] == "tbf")


def run(enter: tuple[str, ...], *command: str) -> str:
    """Standard output of a command in a host.

    Raises:
        HostsError: it failed.
    """
    done = subprocess.run([*enter, *command], capture_output=True, text=True, timeout=COMMAND_S, check=False)
    if done.returncode:
        raise HostsError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
