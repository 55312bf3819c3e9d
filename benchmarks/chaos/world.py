"""A real cluster of 3 masters, 4 agents and a ZooKeeper, and what can be done to it and to a job on it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import psutil

from benchmarks.chaos.network import Drops
from benchmarks.chaos.schedule import Fault
from scheduler.cluster import EmbeddedCluster
from scheduler.cluster_errors import ClusterError

RESTART_S = 8.0  # a daemon that was killed is back after that at the latest
DRIVER_S = 5.0  # and so is a driver
CUT_S = 10.0  # traffic is cut off for no longer
LOSS = 0.2  # of segments, where packets are lost


class Driver(Protocol):
    """What can be done to the job's driver."""

    def kill(self) -> bool:
        """Kills it (SIGKILL); returns whether it was there."""

    def attach(self) -> None:
        """Starts another one in its place."""


class World:
    """Carries faults out and mends what they broke; `log` gets a line for each."""

    def __init__(
        self, cluster: EmbeddedCluster, driver: Driver, drops: Drops | None, log: Callable[[str], None]
    ) -> None:
        self.cluster = cluster
        self._driver = driver
        self.fired: list[str] = []
        self._drops = drops
        self._log = log
        self._mends: list[tuple[float, str, Callable[[], None]]] = []  # when, what, how
        self._down: set[str] = set()  # daemons that are away on purpose

    # --- faults ------------------------------------------------------------------------------------------------------

    def carry_out(self, fault: Fault, now: float) -> None:
        """Lets it happen, if there is a victim; says what happened."""
        action, _, what = fault.kind.partition(" ")
        try:
            victim = self._fire(action, what, fault, now)
        except (psutil.Error, ClusterError, OSError) as error:
            self._log(f"fault  {fault.kind}: nothing happened ({error})")
            return
        if victim:
            self.fired.append(fault.kind)
            self._log(f"fault  {fault.kind}: {victim}")
        else:
            self._log(f"fault  {fault.kind}: nobody is there just now")

    def _fire(self, action: str, what: str, fault: Fault, now: float) -> str:
        if what in ("leading master", "standing-by master", "agent", "agent with executors", "zookeeper"):
            return self._fire_at_daemon(action, what, fault, now)
        if what == "driver":
            if not self._driver.kill():
                return ""
            lasts_s = min(fault.lasts_s, DRIVER_S)
            self._mends.append((now + lasts_s, "the driver is started again", self._driver.attach))
            return f"away for {lasts_s:.1f} s"
        if action in ("cut", "lose"):
            return self._drop(fault, now)
        victims = self.tasks(what) if what != "executor" else self.executors()
        if not victims:
            return ""
        victim = victims[int(fault.choice * len(victims))]
        name = _name(victim)
        if action == "kill":
            victim.kill()
            return name
        self._stop(victim, fault.lasts_s, now)
        return f"{name} for {fault.lasts_s:.1f} s"

    def _fire_at_daemon(self, action: str, what: str, fault: Fault, now: float) -> str:
        names = self._daemons(what)
        if not names:
            return ""
        name = names[int(fault.choice * len(names))]
        pid = self.cluster.pid(name)
        if pid is None:
            return ""
        process = psutil.Process(pid)
        if action == "stop":
            self._down.add(name)
            self._stop(process, fault.lasts_s, now, lambda: self._down.discard(name))
            return f"{name} for {fault.lasts_s:.1f} s"
        executors = self._executors_of(name) if what == "agent with executors" else []
        self._down.add(name)
        self.cluster.kill(name)
        for executor in executors:
            executor.kill()
        lasts_s = min(fault.lasts_s, RESTART_S)

        def start() -> None:
            self._down.discard(name)
            self.mend_daemons()

        self._mends.append((now + lasts_s, f"{name} is started again", start))
        with_them = f" with {len(executors)} executors" if executors else ""
        return f"{name}{with_them}, away for {lasts_s:.1f} s"

    def _daemons(self, what: str) -> list[str]:
        """Names of the daemons of a kind that may be taken away: two masters and half of the agents have to stay."""
        kind = what.split()[0] if what.startswith(("agent", "zookeeper")) else "master"
        away = sum(name.startswith(kind) for name in self._down)
        if away >= {"agent": 2}.get(kind, 1):
            return []
        if what == "leading master":
            leader = self.cluster.leader()
            return [leader] if leader else []
        names = [name for name in self.cluster.names if name.startswith(kind) and name not in self._down]
        if what == "standing-by master":
            leader = self.cluster.leader()
            names = [name for name in names if name != leader]
        return names

    def _stop(
        self, process: psutil.Process, lasts_s: float, now: float, then: Callable[[], None] | None = None
    ) -> None:
        name = _name(process)
        process.suspend()

        def resume() -> None:
            with contextlib.suppress(psutil.NoSuchProcess):  # it was killed meanwhile
                process.resume()
            if then is not None:
                then()

        self._mends.append((now + lasts_s, f"{name} goes on", resume))

    def _drop(self, fault: Fault, now: float) -> str:
        drops = self._drops
        if drops is None:
            return ""
        if fault.kind.endswith("master"):
            leader = next((status for status in self.cluster.status() if status.leading), None)
            ports = [int(leader.address.rpartition(":")[2])] if leader else []
        else:
            ports = sorted(port for task in self.tasks("server") for port in _listening(task))
        if not ports:
            return ""
        port = ports[int(fault.choice * len(ports))]
        name = f"port {port}"
        if any(what.startswith(name) for _, what, _ in self._mends):
            return ""
        drops.add(name, port, LOSS if fault.kind.startswith("lose") else 1.0)
        lasts_s = min(fault.lasts_s, CUT_S)
        self._mends.append((now + lasts_s, f"{name} is reachable again", lambda: drops.remove(name)))
        return f"{name} for {lasts_s:.1f} s"

    # --- mends -------------------------------------------------------------------------------------------------------

    def mend(self, now: float) -> None:
        """Ends what was to last until now."""
        due = sorted((mend for mend in self._mends if mend[0] <= now), key=lambda mend: mend[0])
        self._mends = [mend for mend in self._mends if mend[0] > now]
        for _, what, act in due:
            act()
            self._log(f"mend   {what}")
        self.mend_daemons()

    def mend_all(self) -> None:
        """Ends all that lasts, and waits until the cluster is whole."""
        self.mend(float("inf"))
        deadline = time.monotonic() + 60
        while not self._is_whole():
            self.mend_daemons()
            if time.monotonic() > deadline:
                raise ClusterError("the cluster does not become whole again")
            time.sleep(0.2)

    def mend_daemons(self) -> None:
        """Starts daemons that have ended by themselves, as a supervisor would: masters that lost their leadership."""
        for name in self.cluster.names:
            if name not in self._down and self.cluster.pid(name) is None:
                try:
                    self.cluster.start(name)
                except ClusterError as error:
                    self._log(f"mend   {name}: {error}".splitlines()[0])

    def _is_whole(self) -> bool:
        statuses = self.cluster.status()
        agents = [status for status in statuses if status.name.startswith("agent")]
        return all(status.pid for status in statuses) and all(status.agent and status.agent.active for status in agents)

    # --- who is there ------------------------------------------------------------------------------------------------

    def tasks(self, role: str = "") -> list[psutil.Process]:
        """Processes of tasks, in the order of their names."""
        found = [p for p in self._ours() if "executor.task" in _command(p) and f".{role}" in _command(p)[-1]]
        return sorted(found, key=lambda process: _command(process)[-1:])

    def executors(self) -> list[psutil.Process]:
        """Processes of executors."""
        return sorted((p for p in self._ours() if _command(p)[-2:] == ["-m", "executor"]), key=lambda p: p.pid)

    def _executors_of(self, agent: str) -> list[psutil.Process]:
        place = str(self.cluster.directory / agent) + os.sep
        return [
            process for process in self.executors() if process.environ().get("MESOS_DIRECTORY", "").startswith(place)
        ]

    def _ours(self) -> list[psutil.Process]:
        root = str(self.cluster.directory) + os.sep
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("MESOS_DIRECTORY", "").startswith(
                    root
                ):
                    found.append(process)
        return found


def _sandbox(process: psutil.Process) -> str:
    """Of the executor that it is or belongs to; empty if it has none, or has ended."""
    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else process.environ().get("MESOS_DIRECTORY", "")
    except psutil.Error:
        return ""


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline()) or [""]
    except psutil.Error:
        return [""]


def _name(process: psutil.Process) -> str:
    command = _command(process)
    if "executor.task" in command:
        return f"{command[-1].partition('.')[2]} (process {process.pid})"
    if command[-2:] == ["-m", "executor"]:
        return f"executor (process {process.pid})"
    return f"{Path(command[0]).name} (process {process.pid})"


def _listening(process: psutil.Process) -> list[int]:
    with contextlib.suppress(psutil.Error):
        return [c.laddr.port for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    return []
