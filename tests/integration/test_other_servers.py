"""`mesograd scale JOB --servers N` on a real Mesos: no step is computed again, and the weights keep every bit."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from scheduler.cluster import ClusterOptions, EmbeddedCluster
from tests.data_files import FASHION_MNIST
from tests.integration.runs import LENET, ROOT, WORK, Run, environment, tasks

pytestmark = pytest.mark.cluster

EPOCHS = 2


def job(master: str, *options: str) -> Run:
    return Run.start("--master", master, "--workers", "2", *options, LENET, "-f", str(FASHION_MNIST), "-e", str(EPOCHS))


def scale(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scheduler.cli", "scale", *arguments],
        env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def refused(*arguments: str) -> str:
    """The one line that says why not."""
    done = scale(*arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    return done.stderr


@contextmanager
def suspended_workers() -> Iterator[None]:
    """Workers wait, or the job would be over before the driver and servers have done what they were told."""
    workers = tasks("worker").values()
    for worker in workers:
        worker.suspend()
    yield
    for worker in workers:
        worker.resume()


def test_servers_are_added_and_removed_while_the_job_runs() -> None:
    options = ClusterOptions(agents=2, cpus=6)
    with EmbeddedCluster(WORK / "servers", options=options, ephemeral=True) as cluster:
        assert "'0' is neither a number from 1 to 1000 nor 'colocated'" in refused("job", "--servers", "0")
        assert "'many' is neither" in refused("job", "--servers", "many")
        assert "WORKERS, or --servers N" in refused("job")
        assert "there is no job" in refused("job", "--servers", "2")
        reference = job(cluster.master, "--servers", "2").weights()
        run = job(cluster.master, "--servers", "1")
        run.until("validation at step 235")
        (job_id,) = {name.partition(".")[0] for name in tasks("server")}
        with suspended_workers():
            assert "from 1 to 3 servers" in scale(job_id, "--servers", "3").stdout
            run.until("3 servers are there")
        run.until("3 servers have the parameters now")
        assert len(tasks("server")) == 3
        with suspended_workers():  # they are on two agents
            assert "from 3 to 2 servers" in scale(job_id, "--servers", "colocated").stdout
        run.until("server 2 has left .*: the job has fewer servers")
        assert len(tasks("server")) == 2
        assert run.weights() == reference
        assert [line for line in run.lines if "going on with step" in line]
        assert not [line for line in run.lines if "replay" in line]
        exact = [line for line in run.lines if re.match(r"epoch \d+ done .*: 60000 samples, each sample once", line)]
        assert len(exact) == EPOCHS
        assert f"job {job_id} has ended" in refused(job_id, "--servers", "1")
