"""What an embedded cluster consists of: daemons, their ports and their command lines. No process is touched here."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from scheduler.cluster_binaries import ZooKeeper
from scheduler.cluster_errors import ClusterError
from scheduler.cluster_zookeeper import zookeeper_command

PORTS_PER_AGENT = 100
QUORUM = 2
ZOOKEEPER_PATH = "/mesos"
# Half of Mesos's default: an embedded cluster shall elect a new leader within seconds.
ZOOKEEPER_SESSION = "4secs"


def default_cpus() -> float:
    """CPUs an agent offers unless told otherwise: more than a small machine has, so that small jobs fit."""
    return float(max(4, len(os.sched_getaffinity(0))))


def default_mem_mb() -> int:
    """Memory an agent offers unless told otherwise, MB."""
    return min(16384, int(psutil.virtual_memory().total >> 20))


@dataclass(frozen=True)
class ClusterOptions:
    """What was asked for.

    Attributes:
        agents: how many agents, at least 1.
        masters: 1, standing alone, or 3, electing a leader through a ZooKeeper of their own.
        cpus: CPUs that each agent offers; the host's are not divided among the agents.
        mem_mb: memory that each agent offers, MB.
        bind: IP address that all daemons listen on.
        master_flags: flags for every master, without the dashes, over those chosen here.
        agent_flags: likewise for every agent.
        attributes: of agents, in Mesos' form "rack:a;ssd:yes"; agent 1 gets the first, and so on, over and over.
        credentials: file with principals and secrets as Mesos has it, {"credentials": [{"principal", "secret"}, ...]};
            masters then take no framework that does not authenticate.
    """

    agents: int = 2
    masters: int = 1
    cpus: float = field(default_factory=default_cpus)
    mem_mb: int = field(default_factory=default_mem_mb)
    bind: str = "127.0.0.1"
    master_flags: Mapping[str, str] = field(default_factory=dict)
    agent_flags: Mapping[str, str] = field(default_factory=dict)
    attributes: tuple[str, ...] = ()
    credentials: Path | None = None

    def check(self) -> None:
        """Raises ClusterError if it makes no cluster."""
        if self.masters not in (1, 3):
            raise ClusterError(f"{self.masters} masters: an embedded cluster has 1 or 3", exit_code=2)
        if self.agents < 1:
            raise ClusterError(f"{self.agents} agents: a cluster needs at least 1", exit_code=2)
        if not self.cpus > 0:
            raise ClusterError(f"{self.cpus:g} cpus per agent: give more than 0", exit_code=2)
        if self.mem_mb < 32:
            raise ClusterError(f"{self.mem_mb} MB of memory per agent: Mesos offers none below 32", exit_code=2)
        if self.credentials is not None:
            if not self.credentials.is_file():
                raise ClusterError(f"no file {self.credentials} with credentials", exit_code=2)
            if self.credentials.stat().st_mode & 0o006:
                raise ClusterError(f"everyone can read {self.credentials}: chmod 600 it", exit_code=2)


@dataclass(frozen=True)
class Daemon:
    """One process of the cluster, as it is started and started again."""

    name: str  # master-1, agent-2, zookeeper
    argv: tuple[str, ...]
    port: int
    directory: Path  # all of its files
    offered_ports: tuple[int, int] | None = None  # first and last port of an agent's `ports` resource

    @property
    def log(self) -> Path:
        """Where its standard output and error go."""
        return self.directory / "log"

    @property
    def kind(self) -> str:
        """master, agent or zookeeper."""
        return self.name.partition("-")[0]


@dataclass(frozen=True)
class ClusterLayout:
    """All daemons of a cluster in the order in which they start."""

    directory: Path
    address: str  # what frameworks are told: HOST:PORT or zk://...
    bind: str
    daemons: tuple[Daemon, ...]

    def of_kind(self, kind: str) -> tuple[Daemon, ...]:
        """The masters, the agents, or ZooKeeper."""
        return tuple(daemon for daemon in self.daemons if daemon.kind == kind)

    def daemon(self, name: str) -> Daemon:
        """The daemon of that name; raises ClusterError naming all there are."""
        for daemon in self.daemons:
            if daemon.name == name:
                return daemon
        names = ", ".join(daemon.name for daemon in self.daemons)
        raise ClusterError(f"no {name!r} in this cluster: it has {names}", exit_code=2)


def plan(
    directory: Path,
    options: ClusterOptions,
    mesos: Path,
    zookeeper: ZooKeeper | None,
    span: Callable[[int], range],
) -> ClusterLayout:
    """Lays a new cluster out.

    Args:
        directory: the cluster's directory, absolute.
        options: what was asked for, checked.
        mesos: directory with Mesos's bin/.
        zookeeper: needed for three masters.
        span: hands out that many free ports in a row.
    """
    daemons: list[Daemon] = []
    ip = options.bind
    if zookeeper is not None:
        home = directory / "zookeeper"
        keeper = Daemon(home.name, zookeeper_command(zookeeper, home), span(1)[0], home)
        daemons.append(keeper)
        zk = f"zk://{ip}:{keeper.port}{ZOOKEEPER_PATH}"
    masters = []
    for number in range(1, options.masters + 1):
        home = directory / f"master-{number}"
        port = span(1)[0]
        flags = {
            **_common_flags(home, ip, port),
            "allocation_interval": "100ms",
            "agent_ping_timeout": "5secs",
            "max_agent_ping_timeouts": "5",
        }
        if options.credentials is not None:
            flags |= {
                "authenticate_http_frameworks": "true",
                "http_framework_authenticators": "basic",
                "credentials": f"file://{options.credentials.absolute()}",
            }
        if zookeeper is not None:
            flags |= {"zk": zk, "quorum": str(QUORUM), "zk_session_timeout": ZOOKEEPER_SESSION}
        masters.append(Daemon(home.name, _command(mesos, "mesos-master", flags, options.master_flags), port, home))
    daemons += masters
    address = zk if zookeeper is not None else f"{ip}:{masters[0].port}"
    disk_mb = int(shutil.disk_usage(directory).free >> 20) // (options.agents + 1)
    for number in range(1, options.agents + 1):
        home = directory / f"agent-{number}"
        port, offered = span(1)[0], span(PORTS_PER_AGENT)
        resources = {
            "cpus": f"{options.cpus:g}",
            "mem": str(options.mem_mb),
            "disk": str(disk_mb),
            "ports": f"[{offered[0]}-{offered[-1]}]",
        }
        flags = {
            **_common_flags(home, ip, port),
            "master": address,
            "runtime_dir": str(home / "run"),
            "fetcher_cache_dir": str(home / "fetch"),
            "launcher_dir": str(mesos / "bin"),
            "launcher": "posix",
            "isolation": "posix/cpu,posix/mem",
            "systemd_enable_support": "false",
            "switch_user": "false",
            "resources": ";".join(f"{name}(*):{amount}" for name, amount in resources.items()),
            "registration_backoff_factor": "50ms",
            "executor_reregistration_timeout": "15secs",
            "executor_registration_timeout": "2mins",
        }
        if options.attributes:
            flags["attributes"] = options.attributes[(number - 1) % len(options.attributes)]
        argv = _command(mesos, "mesos-agent", flags, options.agent_flags)
        daemons.append(Daemon(home.name, argv, port, home, (offered[0], offered[-1])))
    return ClusterLayout(directory, address, ip, tuple(daemons))


def _common_flags(home: Path, ip: str, port: int) -> dict[str, str]:
    return {"ip": ip, "port": str(port), "hostname": ip, "work_dir": str(home / "work")}


def _command(mesos: Path, program: str, flags: Mapping[str, str], more: Mapping[str, str]) -> tuple[str, ...]:
    merged = {**flags, **more}
    return (str(mesos / "bin" / program), *(f"--{name}={value}" for name, value in merged.items()))
