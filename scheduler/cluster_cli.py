"""`mesograd cluster`: the commands of the embedded cluster."""

from pathlib import Path

import click

from scheduler.cluster import ClusterOptions, DaemonStatus, EmbeddedCluster, default_directory
from scheduler.cluster_errors import ClusterError
from scheduler.cluster_layout import default_cpus, default_mem_mb


class _Failure(click.ClickException):
    def __init__(self, error: ClusterError) -> None:
        super().__init__(str(error))
        self.exit_code = error.exit_code  # type: ignore[misc]  # click reads it from the instance


class _Group(click.Group):
    """Turns a ClusterError into its line and its exit code."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ClusterError as error:
            raise _Failure(error) from error


_directory = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where all its files live. Default: $MESOGRAD_HOME/cluster, with ~/.mesograd for $MESOGRAD_HOME.",
)


def _cluster(directory: Path | None, options: ClusterOptions | None = None) -> EmbeddedCluster:
    return EmbeddedCluster(directory or default_directory(), options=options, ephemeral=False)


@click.group(cls=_Group)
def cluster() -> None:
    """A real Mesos cluster on this machine."""


@cluster.command()
@click.option("--agents", type=click.IntRange(1), default=2, show_default=True, help="Number of agents.")
@click.option("--masters", type=click.Choice(["1", "3"]), default="1", show_default=True, help="3 bring a ZooKeeper.")
@click.option("--cpus", type=click.FloatRange(0, min_open=True), help="CPUs each agent offers. Default: max(4, cores).")
@click.option("--mem", "mem_mb", type=click.IntRange(32), help="MB each agent offers. Default: min(16384, the host's).")
@click.option("--bind", default="127.0.0.1", show_default=True, help="IP address to listen on.")
@click.option(
    "--credentials", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Principals and secrets, as Mesos' masters take them; frameworks must then authenticate.",
)  # fmt: skip
@_directory
def up(
    agents: int,
    masters: str,
    cpus: float | None,
    mem_mb: int | None,
    bind: str,
    credentials: Path | None,
    directory: Path | None,
) -> None:
    """Start a cluster and wait until its agents are registered."""
    options = ClusterOptions(
        agents=agents, masters=int(masters), cpus=cpus or default_cpus(), mem_mb=mem_mb or default_mem_mb(), bind=bind,
        credentials=credentials,
    )  # fmt: skip
    started = _cluster(directory, options)
    started.up()
    click.echo(f"cluster of {agents} agents ({options.cpus:g} cpus, {options.mem_mb} MB each) in {started.directory}")
    click.echo(f"use it: mesograd run --master {started.master} ...")


@cluster.command()
@_directory
def status(directory: Path | None) -> None:
    """Show every daemon; exit code 1 unless all are running and registered."""
    shown = _cluster(directory)
    statuses = shown.status()
    click.echo(f"{shown.master} in {shown.directory}")
    for each in statuses:
        pid = str(each.pid or "-")
        click.echo(f"{each.name:<10} {_condition(each):<12} pid {pid:<8} {each.address:<22} {_details(each)}".rstrip())
    led = any(each.leading for each in statuses)
    if not led or any(_condition(each) in ("stopped", "unregistered") for each in statuses):
        raise SystemExit(1)


def _condition(each: DaemonStatus) -> str:
    if each.pid is None:
        return "stopped"
    if each.name.startswith("master"):
        return "leading" if each.leading else "standing by"
    if each.name.startswith("agent"):
        return "registered" if each.agent and each.agent.active else "unregistered"
    return "running"


def _details(each: DaemonStatus) -> str:
    if each.agent is None:
        return ""
    used, offered = each.agent.used, each.agent.resources
    return (
        f"cpus {used.get('cpus', 0):g}/{offered.get('cpus', 0):g} "
        f"mem {used.get('mem', 0):g}/{offered.get('mem', 0):g} MB  {each.agent.id}"
    )


@cluster.command()
@_directory
def down(directory: Path | None) -> None:
    """End every daemon, executor and task of the cluster. Logs stay until the next `up`."""
    ended = _cluster(directory)
    was_up = ended.is_up()
    ended.down()
    click.echo(f"cluster in {ended.directory} is down" if was_up else f"no cluster was up in {ended.directory}")


@cluster.command()
@click.argument("name")
@_directory
def start(name: str, directory: Path | None) -> None:
    """Start a daemon (master-1, agent-1, zookeeper, ...) again, with its data."""
    _cluster(directory).start(name)


@cluster.command()
@click.argument("name")
@_directory
def stop(name: str, directory: Path | None) -> None:
    """End a daemon with SIGTERM; an agent's executors live on."""
    _cluster(directory).stop(name)


@cluster.command()
@click.argument("name")
@_directory
def kill(name: str, directory: Path | None) -> None:
    """End a daemon with SIGKILL."""
    _cluster(directory).kill(name)


@cluster.command()
@click.argument("name")
@_directory
def restart(name: str, directory: Path | None) -> None:
    """Stop a daemon if it is running, and start it."""
    _cluster(directory).restart(name)
