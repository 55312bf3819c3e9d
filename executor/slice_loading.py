"""A server's slice as it is at the beginning of an attempt: from a checkpoint, or with the initial parameters."""

import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from compute import InputError, checkpoint
from compute.optim import ParameterUpdate
from executor.arrival_slice import ArrivalSlice
from executor.job import LoadedJob
from executor.parameter_slice import ParameterSlice


def load_slice(job: LoadedJob, url: str, begin: int, end: int) -> ParameterSlice:
    """Elements [begin, end) of the flat vector, with the optimizer's state. Reads files.

    Args:
        url: of the checkpoint; empty: the initial parameters.

    Raises:
        InputError: the checkpoint cannot be read, or is of another job.
    """
    update = ParameterUpdate(job.layout, job.spec.optimizer, job.spec.clip, begin, end)
    if not url:
        parameters = np.array(job.initial_parameters()[begin:end], dtype=np.float32)
        return new_slice(job, begin, end, 0, parameters, update)
    manifest = checkpoint.read_manifest(url)
    checkpoint.check(url, manifest, job.fingerprint, job.parameters, job.training_constants)
    state = checkpoint.load_slice(url, manifest, begin, end)
    parameters = state.pop(checkpoint.PARAMETERS)
    if set(state) != set(update.state) or dict(manifest.optimizers) != job.optimizer_kinds:
        raise InputError(
            f"checkpoint {url} was written with another optimizer ({_shown(dict(manifest.optimizers))}, its "
            f"arrays are {sorted(state)}): resume with the same one, or name another checkpoint directory"
        )
    update.state = state
    update.memory = json.loads(manifest.memory)
    return new_slice(job, begin, end, manifest.step, parameters, update)


def new_slice(
    job: LoadedJob, begin: int, end: int, version: int, parameters: NDArray[np.float32], update: ParameterUpdate
) -> ParameterSlice:
    """A slice with these parameters and this optimizer's state."""
    arguments = (begin, end, version, parameters, update, job.plan, job.told_rates, job.rounding)
    if job.sync.synchronous:
        return ParameterSlice(*arguments)
    return ArrivalSlice(*arguments, staleness=job.sync.staleness)


def _shown(kinds: Mapping[str, str]) -> str:
    return ", ".join(f"{prefix}: {kind}" if prefix else kind for prefix, kind in kinds.items())
