"""`TrainingJob`: what a training script describes and runs."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import importlib.metadata
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from compute import InputError, TrainingSpec, Validation
from compute.data.dataset import Dataset
from compute.metrics import Metric
from compute.nn.criterion import Criterion
from compute.nn.module import Module
from compute.optim.clipping import Clip
from compute.optim.groups import Optimizers
from compute.retention import Retention
from compute.trigger import Trigger
from scheduler import conclusion, context, job_record, shipping, signals
from scheduler.cluster import EmbeddedCluster
from scheduler.cluster_errors import ClusterError
from scheduler.context import RunContext, RunOptions
from scheduler.driver import drive, new_secret
from scheduler.job_record import JobRecord
from scheduler.job_states import job_states
from scheduler.local import agent_size, first_complaint, host_size
from scheduler.master import LocalMaster, RemoteMaster, address_towards, leading_master, parse_master
from scheduler.outcome import EXIT_FAILED, EXIT_USAGE, JobResult, Outcome, UsageError
from scheduler.plan import DEFAULT_SERVER_NEED, JobPlan
from scheduler.profile import profile_step
from scheduler.progress_marks import ProgressMarks
from scheduler.resources import Need
from scheduler.state_store import StateError, StateStore


class Job:
    """Base of what a script runs on the cluster that `mesograd run` names; subclasses say what (`_spec`)."""

    _spec: TrainingSpec

    def __init__(self) -> None:
        self._checkpoint_url = ""
        self._summary_directory: Path | None = None

    def run(self) -> JobResult:
        """Runs to the end.

        Raises:
            JobFailed: it did not get there. It has been said why, on standard error; as a SystemExit it ends the
                script with the exit code that fits.
        """
        run = context.current()
        run.jobs += 1
        conclusion.set_up_logging(run.options.verbose)
        try:
            outcome = self._run(run)
        except (UsageError, InputError) as error:
            raise conclusion.failed(str(error), EXIT_USAGE) from None
        except ClusterError as error:
            raise conclusion.failed(str(error), error.exit_code) from None
        except StateError as error:
            raise conclusion.failed(f"{error}; see --state", EXIT_FAILED) from None
        except OSError as error:
            raise conclusion.failed(f"{error.filename or 'driver'}: {error.strerror or error}", EXIT_FAILED) from error
        return conclusion.result(outcome, self._checkpoint_url)

    def _run(self, run: RunContext) -> Outcome:
        options = run.options
        spec = self._spec
        if options.engine:
            spec = replace(spec, engine=options.engine)
        if options.precision:
            spec = replace(spec, precision=options.precision)
        if options.sync:
            spec = replace(spec, sync=options.sync)
        if options.compression:
            spec = replace(spec, compression=options.compression)
        if options.parameter_compression:
            spec = replace(spec, parameter_compression=options.parameter_compression)
        spec.check()
        if options.profile is not None:
            print(profile_step(spec, options.profile), flush=True)
            return Outcome()
        if options.resume and not self._checkpoint_url:
            raise UsageError("--resume needs checkpoints: call job.checkpoint(directory, trigger) in the script")
        if options.server_replicas and spec.sync != "sync":
            raise UsageError(
                f"--server-replicas repeats steps to the bit, which --sync {spec.sync} cannot: leave out one of the two"
            )
        if options.colocated and spec.sync != "sync":
            raise UsageError(
                f"--servers colocated changes their number as workers come and go, which --sync {spec.sync} cannot: "
                "name a number"
            )
        master = parse_master(options.master)
        plan = self._plan(spec, options, master)
        if self._summary_directory is not None:
            self._summary_directory.mkdir(parents=True, exist_ok=True)
        run.phases.mark("script")
        with signals.unwinding(), _state(options.state, plan.job_id) as store, _cluster(master, plan) as cluster:
            if isinstance(master, RemoteMaster):
                uri, host = master.uri, options.driver_host or address_towards(leading_master(master))
                run.phases.mark("master found")
            else:
                assert cluster is not None
                uri, host = cluster.master, options.driver_host or "127.0.0.1"
                run.phases.mark("cluster up")
            record = JobRecord(
                plan,
                master=uri,
                embedded=cluster is not None,
                driver_host=host,
                samples_per_epoch=len(spec.dataset),
                batch_size=spec.step_samples,
                caveat=spec.caveat,
                summary_directory=str(self._summary_directory or ""),
                begun_s=time.time(),
            )
            job_record.create(store, record)
            reporter = conclusion.reporter(record, ProgressMarks())
            outcome = asyncio.run(
                drive(plan, uri, host, reporter, store, run.phases, principal_secret=options.principal_secret)
            )
            if cluster is not None and outcome.worn_out and not outcome.detail:
                outcome = replace(outcome, detail=first_complaint(cluster.directory))
        reporter.finish(replace(outcome, caveat=record.caveat))
        if options.verbose:
            print(run.phases.line(), flush=True)
        return outcome

    def _plan(self, spec: TrainingSpec, options: RunOptions, master: LocalMaster | RemoteMaster) -> JobPlan:
        least, most = options.worker_range(master.agents if isinstance(master, LocalMaster) else 1)
        return JobPlan(
            job_id=_job_id(),
            workers=most,
            min_workers=least,
            servers=options.servers,
            colocated=options.colocated,
            synchronous=spec.sync == "sync",
            server_replicas=options.server_replicas,
            control="",  # known once the driver listens
            secret=new_secret(),
            python=options.python,
            spec=shipping.dump(spec),
            sources=shipping.sources(),
            checkpoint_url=self._checkpoint_url,
            resume=options.resume,
            worker_need=Need(options.cpus_per_worker, options.mem_per_worker_mb),
            server_need=DEFAULT_SERVER_NEED,
            executor_environment=_executor_environment(),
            user=options.user or getpass.getuser(),
            role=options.role,
            principal=options.principal,
            pack=options.pack,
            constraints=options.constraints,
            revocable=options.revocable,
            mem_retry=options.mem_retry,
            task_environment={"MESOGRAD_EXCHANGE": options.exchange, **options.environment},
        )


class TrainingJob(Job):
    """A network, its data, and how to train it; `run` trains it on the cluster that `mesograd run` names.

    Args:
        model: the network.
        criterion: the loss.
        dataset: what it learns from.
        optimizer: how it learns; one optimizer, or a mapping from name prefixes of layers to optimizers ("": the rest).
        batch_size: samples per step.
        end_when: trigger that ends the training.
        micro_batches: parts of a step, a power of two; they fix the order of additions, whoever computes them.
        seed: of initial parameters, the order of samples, and random layers.
        engine: "onednn", "mkl" or "numpy".
        precision: "fp32", or "bf16" (engine onednn).
        weights: saved model (compute.save_model) to begin with, a path or fsspec URL that all tasks reach.
        clip: optim.ClipValue(low, high) or optim.ClipNorm(max_norm); None for no gradient clipping.
        sync: "sync": gradients of a step are added up, then applied; "async": each batch's gradient is applied when it
            arrives; "ssp:S": likewise, but at most S updates after what it was computed with.
        accumulate: batches whose gradients are added up (to their mean) before the weights are updated.
        compression: of gradients on their way to the servers: "none", "bf16", "fp16", "topk:RATIO", "8bit", "1bit".
        parameter_compression: of parameters on their way to the workers: "none", "bf16".
    """

    def __init__(
        self,
        model: Module,
        criterion: Criterion,
        dataset: Dataset,
        optimizer: Optimizers,
        batch_size: int,
        end_when: Trigger,
        micro_batches: int = 8,
        seed: int = 1,
        engine: str = "onednn",
        precision: str = "fp32",
        weights: str | os.PathLike[str] = "",
        clip: Clip | None = None,
        sync: str = "sync",
        accumulate: int = 1,
        compression: str = "none",
        parameter_compression: str = "none",
    ) -> None:
        super().__init__()
        self._spec = TrainingSpec(
            model=model,
            criterion=criterion,
            dataset=dataset,
            optimizer=optimizer,
            batch_size=batch_size,
            end_when=end_when,
            micro_batches=micro_batches,
            seed=seed,
            engine=engine,
            precision=precision,
            weights=absolute_url(weights) if weights else "",
            clip=clip,
            sync=sync,
            accumulate=accumulate,
            compression=compression,
            parameter_compression=parameter_compression,
        )

    def validate(
        self, trigger: Trigger, dataset: Dataset, metrics: Sequence[Metric], batch_size: int = 256
    ) -> TrainingJob:
        """Whenever `trigger` fires, runs the model over `dataset` and reports `metrics`."""
        self._spec.validation = Validation(trigger, dataset, metrics, batch_size)
        return self

    def checkpoint(
        self, url: str | os.PathLike[str], trigger: Trigger, keep: int | None = 5, keep_every: int = 0
    ) -> TrainingJob:
        """Whenever `trigger` fires, writes a checkpoint to a directory or fsspec URL; `--resume` continues from it.

        Args:
            keep: how many of the newest stay; older ones are deleted. None: all stay.
            keep_every: besides, every so many-th checkpoint stays for ever; 0: none does.
        """
        self._checkpoint_url = absolute_url(url)
        self._spec.checkpoint_when = trigger
        self._spec.retention = Retention(keep, keep_every)
        return self

    def summary(self, directory: str | os.PathLike[str]) -> TrainingJob:
        """Writes TensorBoard event files: Loss, Throughput and LearningRate for each step, metrics per validation."""
        self._summary_directory = Path(directory).expanduser().absolute()
        return self


@contextlib.contextmanager
def _state(place: str, job_id: str) -> Iterator[StateStore]:
    """The new job's state, not begun yet, and ours while the context lasts."""
    states = job_states(place)
    store = states.store(job_id)
    try:
        try:
            states.prepare()
            job_record.forget_old(states)
        except StateError as error:
            raise UsageError(f"{error}; name a place for the job's state with --state") from None
        yield store
    finally:
        store.close()
        states.close()


@contextlib.contextmanager
def _cluster(master: LocalMaster | RemoteMaster, plan: JobPlan) -> Iterator[EmbeddedCluster | None]:
    """The embedded cluster of local[N], up while the context lasts; None for other masters."""
    if isinstance(master, RemoteMaster):
        yield None
        return
    size = agent_size(plan, host_size())
    cluster = EmbeddedCluster(agents=master.agents, cpus=size.cpus, mem_mb=size.mem_mb, ephemeral=True)
    try:
        cluster.up()
        yield cluster
    finally:
        with signals.ignored():
            cluster.down()


def _executor_environment() -> dict[str, str]:
    """PYTHONPATH of this checkout, where Mesograd runs from one without being installed."""
    try:
        importlib.metadata.distribution("mesograd")
    except importlib.metadata.PackageNotFoundError:
        return {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    return {}


def _job_id() -> str:
    """Readable, sorted by time, and unique: "train_lenet-20250131-235959-a1b2c3"."""
    script = getattr(sys.modules["__main__"], "__file__", None) or "job"
    name = re.sub(r"[^A-Za-z0-9_]", "_", Path(script).stem)[:40] or "job"
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def absolute_url(place: str | os.PathLike[str]) -> str:
    """A URL as it is, a path made absolute: tasks run in directories of their own."""
    text = os.fspath(place)
    return text if "://" in text else os.path.abspath(os.path.expanduser(text))
