"""`mesograd profile`: a training step of a script's job on this machine, without a cluster, and where its time goes."""

from __future__ import annotations

import numpy as np

import compute
from compute import TrainingSpec
from compute.profile import profile, table
from scheduler.context import ProfileOptions


def profile_step(spec: TrainingSpec, options: ProfileOptions) -> str:
    """Runs some steps on the job's first samples; returns the table.

    Raises:
        InputError: the data set has too few samples or cannot be read, or the engine has no profile.
    """
    count = options.batch_size or -(-spec.batch_size // spec.micro_batches)
    count = min(count, len(spec.dataset))
    x, target = spec.dataset.batch(np.arange(count, dtype=np.int64), (spec.seed, 1, 0))
    program = compute.compile(
        spec.model, spec.criterion, spec.dataset.input_specs, spec.engine, options.threads, spec.precision
    )
    program.parameters[:] = compute.initial_parameters(spec.model, spec.dataset.input_specs, spec.seed)
    program.parameters_changed()
    head = f"engine {spec.engine}, {spec.precision}, {options.threads} thread(s), {count} samples a pass"
    return f"{head}\n{table(profile(program, x, target, options.steps), options.rows)}"
