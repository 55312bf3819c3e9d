"""An embedded cluster: real Mesos masters and agents on this machine, for `--master local[N]`, tests and first steps.

    with EmbeddedCluster(agents=2, ephemeral=True) as cluster:
        cluster.master              # "127.0.0.1:17042"
        cluster.kill("agent-1")
        cluster.start("agent-1")

All of it lives in one directory. Daemons get sessions of their own, so that a terminal's Ctrl-C does not reach them.
"""

import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from scheduler import cluster_processes
from scheduler.cluster_binaries import ZooKeeper, find_mesos, find_zookeeper, mesograd_home
from scheduler.cluster_children import Children, Watcher
from scheduler.cluster_errors import ClusterError
from scheduler.cluster_layout import ClusterOptions, Daemon, plan
from scheduler.cluster_master import RegisteredAgent, leading, mesos_serves, votes
from scheduler.cluster_ports import PortChooser, choosing_ports
from scheduler.cluster_state import ClusterState, locked
from scheduler.cluster_zookeeper import write_configuration, zookeeper_serves

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
LOG_LINES = 10
_POLL_S = 0.03


@dataclass(frozen=True)
class DaemonStatus:
    """One line of `mesograd cluster status`."""

    name: str
    address: str
    pid: int | None  # None: not running
    leading: bool = False  # masters
    agent: RegisteredAgent | None = None  # agents that the leading master knows
    log: Path | None = None


def default_directory() -> Path:
    """Where the cluster of `mesograd cluster` lives unless told otherwise."""
    return mesograd_home() / "cluster"


class EmbeddedCluster:
    """Starts, watches and ends the daemons of one directory."""

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        options: ClusterOptions | None = None,
        agents: int | None = None,
        masters: int | None = None,
        cpus: float | None = None,
        mem_mb: int | None = None,
        ephemeral: bool = True,
    ) -> None:
        """Does nothing yet: `up` (or `with`) starts it; without `up`, the methods act on the cluster that is there.

        Args:
            directory: for all files; None: a temporary one, removed at the end.
            options: everything that can be chosen; the next four go over it.
            agents: how many.
            masters: 1 or 3.
            cpus: of each agent.
            mem_mb: of each agent, MB.
            ephemeral: the cluster ends with this process, even if this is killed.

        Raises:
            ClusterError: the options make no cluster.
        """
        chosen = {"agents": agents, "masters": masters, "cpus": cpus, "mem_mb": mem_mb}
        given = {name: value for name, value in chosen.items() if value is not None}
        self.options = ClusterOptions(**{**vars(options or ClusterOptions()), **given})
        self.options.check()
        self.ephemeral = ephemeral
        self._temporary = directory is None
        if directory is None:
            directory = Path(tempfile.gettempdir(), f"mesograd-cluster-{secrets.token_hex(8)}")
        self.directory = Path(directory).resolve()
        self._children = Children.of(self.directory)
        self._watcher: Watcher | None = None

    # --- the whole cluster ---------------------------------------------------------------------------------------

    @property
    def master(self) -> str:
        """What a framework is pointed at: "127.0.0.1:PORT" or "zk://127.0.0.1:PORT/mesos"."""
        return self._state().layout.address

    def up(self) -> None:
        """Starts the cluster and returns once every agent is registered.

        Raises:
            ClusterError: one is up in this directory already, something is not installed, or a daemon died (the
                last lines of its log follow) or did not answer in time; nothing is left running then.
        """
        mesos = find_mesos()
        zookeeper = find_zookeeper() if self.options.masters > 1 else None
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=not self._temporary)
        except OSError as error:
            raise ClusterError(f"cannot create {self.directory}: {error.strerror}", exit_code=2) from error
        with locked(self.directory):
            self._clear_stale_state()
            try:
                state = self._launch_all(mesos, zookeeper)
                self._wait_until_complete(state)
            except BaseException:
                self._end_everything()
                self._remove_if_temporary()
                raise

    def down(self) -> None:
        """Ends every daemon, executor and task; logs and sandboxes stay until the next `up` in the directory.

        Raises:
            ClusterError: a process cannot be killed.
        """
        if self.directory.is_dir():
            with locked(self.directory):
                self._end_everything()
        self._remove_if_temporary()

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.down()

    # --- single daemons ------------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """Names of all daemons, running or not: zookeeper, master-1, agent-1, ..."""
        return [daemon.name for daemon in self._state().layout.daemons]

    def start(self, name: str) -> None:
        """Starts a daemon that is not running, on the same port with the same data; an agent then finds its executors.

        Raises:
            ClusterError: it is running, does not exist, or dies at once or does not answer in time.
        """
        with locked(self.directory):
            state = self._state()
            daemon = state.layout.daemon(name)
            if state.process(daemon):
                raise ClusterError(f"{name} is running already", exit_code=2)
            state.records[daemon.name] = self._children.launch(daemon)
            state.save()
            self._wait_until_it_serves(daemon, state)

    def stop(self, name: str) -> None:
        """Ends a daemon with SIGTERM; executors of an agent live on, as when a real agent is restarted."""
        self._end(name, signal.SIGTERM)

    def kill(self, name: str) -> None:
        """Ends a daemon with SIGKILL."""
        self._end(name, signal.SIGKILL)

    def restart(self, name: str) -> None:
        """Stops a daemon if it is running, and starts it."""
        state = self._state()
        if state.process(state.layout.daemon(name)):
            self.stop(name)
        self.start(name)

    # --- questions -----------------------------------------------------------------------------------------------

    def is_up(self) -> bool:
        """True if a daemon of this directory is running."""
        state = ClusterState.load(self.directory)
        return state is not None and any(state.process(daemon) for daemon in state.layout.daemons)

    def pid(self, name: str) -> int | None:
        """Process id of a daemon, None unless it is running."""
        state = self._state()
        process = state.process(state.layout.daemon(name))
        return process.pid if process else None

    def leader(self) -> str | None:
        """Name of the leading master, None while none leads."""
        return next((status.name for status in self.status() if status.leading), None)

    def status(self) -> list[DaemonStatus]:
        """All daemons, with what the leading master says of the agents.

        Raises:
            ClusterError: there is no cluster in the directory.
        """
        state = self._state()
        running = {daemon.name: state.process(daemon) for daemon in state.layout.daemons}
        ports = [daemon.port for daemon in state.layout.of_kind("master") if running[daemon.name]]
        leader_port, agents = leading(state.layout.bind, ports) or (None, [])
        by_port = {agent.port: agent for agent in agents}
        statuses = []
        for daemon in state.layout.daemons:
            process = running[daemon.name]
            statuses.append(
                DaemonStatus(
                    name=daemon.name,
                    address=f"{state.layout.bind}:{daemon.port}",
                    pid=process.pid if process else None,
                    leading=daemon.kind == "master" and daemon.port == leader_port,
                    agent=by_port.get(daemon.port) if daemon.kind == "agent" else None,
                    log=daemon.log,
                )
            )
        return statuses

    # --- inside --------------------------------------------------------------------------------------------------

    def _state(self) -> ClusterState:
        state = ClusterState.load(self.directory)
        if state is None:
            raise ClusterError(f"no cluster in {self.directory}: start one with `mesograd cluster up`", exit_code=2)
        return state

    def _remove_if_temporary(self) -> None:
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _clear_stale_state(self) -> None:
        """Removes what an earlier cluster left in the directory, running orphans of its agents included."""
        state = ClusterState.load(self.directory)
        if state is None:
            return
        alive = [daemon.name for daemon in state.layout.daemons if state.process(daemon)]
        if alive:
            raise ClusterError(
                f"a cluster is up already in {self.directory} ({', '.join(alive)} running): "
                "`mesograd cluster down` ends it",
                exit_code=2,
            )
        self._end_everything()
        for daemon in state.layout.daemons:
            if daemon.directory.is_dir():
                shutil.rmtree(daemon.directory)

    def _launch_all(self, mesos: Path, zookeeper: ZooKeeper | None) -> ClusterState:
        with choosing_ports():
            layout = plan(self.directory, self.options, mesos, zookeeper, PortChooser().span)
            taken = [daemon.directory for daemon in layout.daemons if daemon.directory.exists()]
            if taken:
                raise ClusterError(f"{taken[0]} exists and is of no cluster of ours: choose another --dir", exit_code=2)
            state = ClusterState(layout)
            state.save()  # before the first daemon: should we be killed now, the next `up` clears the rest away
            if self.ephemeral:
                self._watcher = Watcher(self.directory, self._temporary)
            for daemon in layout.daemons:
                daemon.directory.mkdir(mode=0o700)
                if daemon.kind == "zookeeper":
                    write_configuration(daemon.directory, layout.bind, daemon.port)
                state.records[daemon.name] = self._children.launch(daemon)
                if daemon.kind == "zookeeper":
                    self._wait_until_it_serves(daemon, state)
            state.save()
        return state

    def _end(self, name: str, number: signal.Signals) -> None:
        with locked(self.directory):
            state = self._state()
            daemon = state.layout.daemon(name)
            process = state.process(daemon)
            if process is None:
                raise ClusterError(f"{name} is not running", exit_code=2)
            process.send_signal(number)
            self._wait_until(lambda: state.process(daemon) is None, f"{name} does not end", state, (), STOP_TIMEOUT_S)
            self._children.reap(name)

    def _end_everything(self) -> None:
        left = cluster_processes.end_cluster_processes(self.directory)
        if left:
            raise ClusterError(f"processes {', '.join(map(str, left))} of {self.directory} cannot be killed")
        self._children.reap_all()
        if self._watcher is not None:
            self._watcher.dismiss()
            self._watcher = None

    def _wait_until_complete(self, state: ClusterState) -> None:
        expected = {daemon.port for daemon in state.layout.of_kind("agent")}
        masters = [daemon.port for daemon in state.layout.of_kind("master")]

        def registered() -> bool:
            found = leading(state.layout.bind, masters)
            return found is not None and expected <= {agent.port for agent in found[1] if agent.active}

        names = [daemon.name for daemon in state.layout.daemons]
        self._wait_until(registered, "not every agent has registered with a leading master", state, names)
        # A quorum is enough to lead; only with all of them may a master be lost.
        for port in masters:
            complaint = f"the master on port {port} has no copy of the registry"
            self._wait_until(partial(votes, state.layout.bind, port), complaint, state, names)

    def _wait_until_it_serves(self, daemon: Daemon, state: ClusterState) -> None:
        ip, port = state.layout.bind, daemon.port
        serves = zookeeper_serves if daemon.kind == "zookeeper" else mesos_serves
        complaint = f"{daemon.name} does not answer on port {port}"
        self._wait_until(lambda: serves(ip, port), complaint, state, [daemon.name])

    def _wait_until(
        self,
        condition: Callable[[], bool],
        complaint: str,
        state: ClusterState,
        starting: Sequence[str],
        timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        """Polls until `condition`; a daemon in `starting` that dies meanwhile is an error with the end of its log."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            for name in starting:
                code = self._children.returncode(name)
                if code is not None:
                    tail = _tail(state.layout.daemon(name))
                    raise ClusterError(f"{name} ended with {_ending(code)} while starting;{tail}")
            if time.monotonic() > deadline:
                logs = f"; logs: {self.directory}/*/log" if starting else ""
                raise ClusterError(f"{complaint} after {timeout_s:.0f} s{logs}")
            time.sleep(_POLL_S)


def _ending(returncode: int) -> str:
    return f"exit code {returncode}" if returncode >= 0 else signal.Signals(-returncode).name


def _tail(daemon: Daemon) -> str:
    lines = daemon.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
    if not lines:
        return f" its log {daemon.log} is empty"
    return f" last lines of {daemon.log}:\n" + "\n".join(f"  {line}" for line in lines)


__all__ = ["ClusterError", "ClusterOptions", "DaemonStatus", "EmbeddedCluster", "default_directory"]
