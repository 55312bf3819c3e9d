"""The commands `mesograd jobs` and `mesograd kill`."""

from __future__ import annotations

import time

import click

from scheduler.credentials import principal_secret

STATE_HELP = (
    "Where jobs' state is kept: a directory or zk://HOST:PORT/PATH. Default: $MESOGRAD_STATE, else $MESOGRAD_HOME/jobs."
)


@click.command()
@click.option("--state", default="", metavar="PLACE", help=STATE_HELP)
def jobs(state: str) -> None:
    """List the jobs known here: running, without a driver, or ended."""
    from scheduler.attach import known_jobs

    found = known_jobs(state)
    if not found:
        click.echo("no jobs")
    for job in found:
        begun = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.begun_s)) if job.begun_s else "-"
        click.echo(f"{job.job_id}  {begun}  step {job.step}  {job.state}{f': {job.detail}' if job.detail else ''}")


@click.command()
@click.option("--state", default="", metavar="PLACE", help=STATE_HELP)
@click.option("--secret-file", metavar="FILE", help="Holds the principal's secret. Default: MESOGRAD_SECRET.")
@click.argument("job_id", metavar="JOB")
def kill(state: str, secret_file: str | None, job_id: str) -> None:
    """End a job that has lost its driver, with its framework and all its tasks."""
    from scheduler.attach import kill as kill_job

    click.echo(kill_job(job_id, state, principal_secret(secret_file)))
