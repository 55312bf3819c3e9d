"""Dropping TCP traffic to and from a port, in a network namespace of this program's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

_MARK = "MESOGRAD_CHAOS_NAMESPACE"
_TIMEOUT_S = 10.0


def enter_namespace() -> bool:
    """Starts this program again in a network namespace where it has lo to itself; False if that cannot be had here.

    Needs root, and util-linux's unshare, iproute2's ip and iptables.
    """
    if os.environ.get(_MARK):
        return os.environ[_MARK] == "1"
    tools = all(shutil.which(tool) for tool in ("unshare", "ip", "iptables"))
    rule = "ip link set lo up && iptables -w -A INPUT -p tcp --dport 1 -j DROP"
    probe = ["unshare", "--net", "--", "sh", "-c", rule]
    if not tools or subprocess.run(probe, capture_output=True, timeout=_TIMEOUT_S, check=False).returncode:
        return False
    os.environ[_MARK] = "1"
    command = [sys.executable, "-m", "benchmarks.chaos", *sys.argv[1:]]
    script = 'ip link set lo up && exec "$@"'
    os.execvp("unshare", ["unshare", "--net", "--", "sh", "-c", script, "sh", *command])
    raise AssertionError("exec does not return")


class Drops:
    """Rules in force, by a name that the caller chooses."""

    def __init__(self) -> None:
        self._rules: dict[str, list[list[str]]] = {}

    def add(self, name: str, port: int, probability: float = 1.0) -> None:
        """Drops segments to and from a port; all of them, or at random."""
        chance = [] if probability >= 1 else ["-m", "statistic", "--mode", "random", "--probability", str(probability)]
        rules = [["INPUT", "-p", "tcp", end, str(port), *chance, "-j", "DROP"] for end in ("--dport", "--sport")]
        for rule in rules:
            _iptables("-A", rule)
        self._rules[name] = rules

    def remove(self, name: str) -> None:
        """Lets them through again."""
        for rule in self._rules.pop(name):
            _iptables("-D", rule)

    def clear(self) -> None:
        for name in list(self._rules):
            self.remove(name)


def _iptables(action: str, rule: list[str]) -> None:
    subprocess.run(["iptables", "-w", action, *rule], check=True, capture_output=True, timeout=_TIMEOUT_S)
