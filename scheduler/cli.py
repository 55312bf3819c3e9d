"""The command `mesograd`."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path
from typing import Any

import click

from scheduler.cluster_cli import cluster
from scheduler.constraints import Constraint, ConstraintError
from scheduler.context import ProfileOptions, RunContext, RunOptions
from scheduler.credentials import principal_secret
from scheduler.jobs_cli import STATE_HELP, jobs, kill
from scheduler.outcome import EXIT_USAGE, UsageError
from scheduler.phases import Phases
from scheduler.run import run_script


def version() -> str:
    """Of the installed distribution."""
    try:
        return importlib.metadata.version("mesograd")
    except importlib.metadata.PackageNotFoundError:
        return "(a checkout that is not installed)"


_WORKERS = click.IntRange(1, 10_000)
COLOCATED = "colocated"
MAX_SERVERS = 1_000


class _Servers(click.ParamType[int | str]):
    """A number, or `colocated`."""

    name = "servers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == COLOCATED:
            return COLOCATED
        try:
            number = int(value)
        except ValueError:
            number = 0
        if not 1 <= number <= MAX_SERVERS:
            self.fail(f"{value!r} is neither a number from 1 to {MAX_SERVERS} nor {COLOCATED!r}.", param, ctx)
        return number


_SERVERS = _Servers()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version(), prog_name="mesograd")
def cli() -> None:
    """Trains neural networks on an Apache Mesos cluster, on CPUs."""


cli.add_command(cluster)
cli.add_command(jobs)
cli.add_command(kill)


@cli.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--master", default="local[1]", show_default=True,
    help="local[N], HOST:PORT, zk://HOST:PORT,.../PATH, or file:///PATH of a file that holds one of these.",
)  # fmt: skip
@click.option("--workers", type=_WORKERS, help="No more and no less. Default: one per agent of local[N], else 1.")
@click.option("--min-workers", type=_WORKERS, help="Training begins with that many; more come and go.")
@click.option("--max-workers", type=_WORKERS, help="Take more workers as the cluster has room, up to that many.")
@click.option(
    "--servers", type=_SERVERS, default=1, show_default=True, metavar="N|colocated",
    help="Parameter servers; colocated: one beside the workers on each agent, however these come and go.",
)  # fmt: skip
@click.option(
    "--server-replicas", type=click.IntRange(0, 1), default=0, show_default=True,
    help="Live copies of each server: with 1, a lost server costs no replay.",
)
@click.option("--cpus-per-worker", type=click.FloatRange(0.1), default=1.0, show_default=True)
@click.option("--mem-per-worker", type=click.FloatRange(32), default=1024.0, show_default=True, help="MB.")
@click.option(
    "--placement", type=click.Choice(["spread", "pack"]), default="spread", show_default=True,
    help="Workers on as many agents as possible, or on as few.",
)  # fmt: skip
@click.option(
    "--constraint", "constraints", multiple=True, metavar="[ROLE:]FIELD:OPERATOR[:VALUE]",
    help="Where tasks may run, as Marathon has it: hostname:UNIQUE, rack:GROUP_BY, worker:zone:CLUSTER:a. Repeatable.",
)  # fmt: skip
@click.option("--revocable", is_flag=True, help="Workers may run on cpus that Mesos can take back (oversubscription).")
@click.option(
    "--mem-retry", type=click.FloatRange(1, 10, min_open=True), metavar="FACTOR",
    help="Relaunch a task that was killed for want of memory with FACTOR times as much.",
)  # fmt: skip
@click.option(
    "--env", "environment", multiple=True, metavar="NAME=VALUE", help="For tasks; goes over ours. Repeatable."
)
@click.option("--resume", is_flag=True, help="Continue from the newest complete checkpoint of the job.")
@click.option("--engine", type=click.Choice(["onednn", "mkl", "numpy"]), help="Over what the script says.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), help="Likewise.")
@click.option("--sync", metavar="sync|ssp:S|async", help="Likewise. How gradients meet; only sync is reproducible.")
@click.option("--compression", metavar="none|bf16|fp16|topk:RATIO|8bit|1bit", help="Likewise. Of gradients.")
@click.option("--parameter-compression", metavar="none|bf16", help="Likewise. Of parameters on their way to workers.")
@click.option(
    "--exchange", type=click.Choice(["auto", "shm", "tcp", "grpc"]), default="auto", show_default=True,
    help="How tensors travel: by shared memory within a host and sockets between hosts (auto), by shared memory or not "
    "at all (shm), by sockets everywhere (tcp), within the gRPC streams (grpc).",
)
@click.option("--python", default=sys.executable, help="Python interpreter on the agents. Default: this one.")
@click.option("--driver-host", default="", help="Address of this machine that agents reach. Default: found out.")
@click.option("--role", default="*", show_default=True, help="Mesos role.")
@click.option("--user", default="", help="User that tasks run as on the agents. Default: the present one.")
@click.option("--principal", default="mesograd", show_default=True, help="Mesos principal.")
@click.option("--secret-file", metavar="FILE", help="Holds the principal's secret. Default: MESOGRAD_SECRET.")
@click.option("--state", default="", metavar="PLACE", help=STATE_HELP)
@click.option(
    "--attach", is_flag=False, flag_value="", metavar="[JOB]",
    help="Instead of SCRIPT: drive this job, whose driver died, on; default: the only such one.",
)  # fmt: skip
@click.option("--take-over", is_flag=True, help="With --attach: even from a driver that seems to live.")
@click.option("-v", "--verbose", is_flag=True, help="Show the start-up phases and what happens inside.")
@click.argument("script", type=click.Path(path_type=Path), required=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def run(
    ctx: click.Context,
    master: str,
    workers: int | None,
    min_workers: int | None,
    max_workers: int | None,
    servers: int | str,
    server_replicas: int,
    cpus_per_worker: float,
    mem_per_worker: float,
    placement: str,
    constraints: tuple[str, ...],
    revocable: bool,
    mem_retry: float | None,
    environment: tuple[str, ...],
    resume: bool,
    engine: str | None,
    exchange: str,
    precision: str | None,
    sync: str | None,
    compression: str | None,
    parameter_compression: str | None,
    python: str,
    driver_host: str,
    role: str,
    user: str,
    principal: str,
    secret_file: str | None,
    state: str,
    attach: str | None,
    take_over: bool,
    verbose: bool,
    script: Path | None,
    arguments: tuple[str, ...],
) -> None:
    """Run the job of a training SCRIPT; the arguments behind it are the script's own."""
    from scheduler.master import parse_master

    secret = principal_secret(secret_file)
    if attach is not None:
        if script is not None:
            raise click.UsageError("--attach takes no SCRIPT: the job goes on as it was begun")
        from scheduler.attach import attach as attach_job

        attach_job(attach, state, secret, driver_host, verbose, take_over)
        return
    if script is None:
        raise click.UsageError("Missing argument 'SCRIPT'.")
    if take_over:
        raise click.UsageError("--take-over is for --attach")
    parse_master(master)
    options = RunOptions(
        master=master,
        workers=workers,
        min_workers=min_workers,
        max_workers=max_workers,
        pack=placement == "pack",
        constraints=_constraints(constraints),
        revocable=revocable,
        mem_retry=mem_retry or 0.0,
        environment=_environment(environment),
        servers=1 if isinstance(servers, str) else servers,
        colocated=servers == COLOCATED,
        server_replicas=server_replicas,
        cpus_per_worker=cpus_per_worker,
        mem_per_worker_mb=mem_per_worker,
        resume=resume,
        python=python,
        driver_host=driver_host,
        engine=engine or "",
        exchange=exchange,
        precision=precision or "",
        sync=sync or "",
        compression=compression or "",
        parameter_compression=parameter_compression or "",
        role=role,
        user=user,
        principal=principal,
        principal_secret=secret,
        state=state,
        verbose=verbose,
    )
    options.worker_range(1)
    phases = ctx.obj if isinstance(ctx.obj, Phases) else Phases()
    ctx.exit(run_script(script, arguments, RunContext(options, phases)))


def _constraints(texts: tuple[str, ...]) -> tuple[Constraint, ...]:
    try:
        return tuple(constraint for text in texts for constraint in Constraint.parse(text))
    except ConstraintError as error:
        raise UsageError(str(error)) from None


def _environment(texts: tuple[str, ...]) -> dict[str, str]:
    for text in texts:
        if not text.partition("=")[0] or "=" not in text or "\0" in text:
            raise UsageError(f"--env takes NAME=VALUE, not {text!r}")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


@cli.command()
@click.option("--state", default="", metavar="PLACE", help=STATE_HELP)
@click.argument("job")
@click.argument("workers", type=_WORKERS, required=False)
@click.option("--servers", type=_SERVERS, metavar="N|colocated", help="Parameter servers from now on.")
def scale(state: str, job: str, workers: int | None, servers: int | str | None) -> None:
    """Have WORKERS workers in the running JOB from now on, or that many servers. The trained weights stay the same.

    JOB is an id as `mesograd jobs` lists it.
    """
    from scheduler.scaling import scale as tell

    if workers is None and servers is None:
        raise click.UsageError("Say how many: WORKERS, or --servers N.")
    if workers is not None:
        click.echo(tell(job, workers=workers, place=state))
    if isinstance(servers, str):
        click.echo(tell(job, colocated=True, place=state))
    elif servers is not None:
        click.echo(tell(job, servers=servers, place=state))


@cli.command(context_settings={"allow_interspersed_args": False})
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True)
@click.option("--batch", type=click.IntRange(1), help="Samples of a pass. Default: a micro-batch of the job.")
@click.option("--steps", type=click.IntRange(1, 10_000), default=10, show_default=True)
@click.option("--rows", type=click.IntRange(1), default=40, show_default=True, help="Layers shown, the slowest first.")
@click.option("--engine", type=click.Choice(["onednn", "mkl"]), help="Over what the script says.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), help="Likewise.")
@click.argument("script", type=click.Path(path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def profile(
    ctx: click.Context,
    threads: int,
    batch: int | None,
    steps: int,
    rows: int,
    engine: str | None,
    precision: str | None,
    script: Path,
    arguments: tuple[str, ...],
) -> None:
    """Show where the time of a training step of SCRIPT's job goes: per layer and pass, with the kernels that ran.

    Runs on this machine, without a cluster.
    """
    looking = ProfileOptions(threads=threads, batch_size=batch, steps=steps, rows=rows)
    options = RunOptions(engine=engine or "", precision=precision or "", profile=looking)
    ctx.exit(run_script(script, arguments, RunContext(options)))


def main() -> None:
    """Entry point. Every mistake of the user is one line on standard error."""
    phases = Phases()
    phases.mark("command")
    try:
        code = cli.main(prog_name="mesograd", standalone_mode=False, obj=phases)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        code = EXIT_USAGE
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "mesograd"
        _say(f"{error.format_message()} (see {path} --help)")
        code = EXIT_USAGE
    except click.ClickException as error:
        _say(error.format_message())
        code = error.exit_code
    except UsageError as error:
        _say(str(error))
        code = EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted")
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it flushes
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _say(message: str) -> None:
    click.echo(f"mesograd: {' '.join(message.split())}", err=True)


if __name__ == "__main__":
    main()
