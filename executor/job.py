"""The job as a task receives it: unpacked, checked, with what follows from it."""

import linecache
import traceback
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import cloudpickle
import numpy as np
from numpy.typing import NDArray

import compute
from compute import InputError, ParameterInfo, TrainingSpec
from compute.compression import Rounding, SliceCodec, parse
from compute.description import describe
from compute.optim import LearningRates
from compute.optim.groups import by_prefix
from compute.spec import Specs
from compute.sync_mode import SyncMode
from executor.reduction_tree import Round
from executor.step_plan import StepPlan, index_hashes
from proto import control_pb2 as control
from proto.model_pb2 import ModelDescription


@dataclass
class LoadedJob:
    """What is to be trained.

    Attributes:
        message: as it came from the driver.
        spec: the training.
        plan: cut of its data into steps.
    """

    message: control.Job
    spec: TrainingSpec
    plan: StepPlan

    @cached_property
    def input_specs(self) -> Specs:
        """The tensors of a sample, after the transforms."""
        return self.spec.dataset.input_specs

    @cached_property
    def fingerprint(self) -> str:
        """Of the model."""
        return compute.fingerprint(self.spec.model, self.input_specs)

    @cached_property
    def parameters(self) -> int:
        """Elements of the flat parameter vector."""
        return sum(int(np.prod(info.shape)) for info in self.layout)

    @cached_property
    def layout(self) -> list[ParameterInfo]:
        """The parameters in the order of the flat vector."""
        return compute.parameter_layout(self.spec.model, self.input_specs)

    @cached_property
    def description(self) -> ModelDescription | None:
        """The model as data; None where it holds something that only code can make."""
        try:
            return describe(self.spec.model)
        except InputError:
            return None

    @property
    def optimizer_kinds(self) -> dict[str, str]:
        """Kind of each optimizer, by name prefix."""
        return {prefix: optimizer.kind for prefix, optimizer in by_prefix(self.spec.optimizer).items()}

    @property
    def told_rates(self) -> bool:
        """Whether servers wait for the lease book to say the learning rates of a step."""
        return LearningRates(self.spec.optimizer).feeds_back

    @cached_property
    def codec(self) -> SliceCodec:
        """How gradients travel to the servers."""
        return SliceCodec(parse(self.spec.compression), self.weights)

    @cached_property
    def parameter_codec(self) -> SliceCodec:
        """How parameters travel to the workers."""
        return SliceCodec(parse(self.spec.parameter_compression), self.weights)

    @cached_property
    def weights(self) -> int:
        """Elements of the flat parameter vector that are weights, not statistics; they come first."""
        return next((info.offset for info in self.layout if info.kind == "statistic"), self.parameters)

    def rounding(self, begin: int) -> Round | None:
        """What is done in place to gradients that begin at this element of the flat vector; None: nothing."""
        codec, split = self.codec.codec, max(self.weights - begin, 0)
        if not isinstance(codec, Rounding):
            return None
        return lambda gradient: codec.round(gradient[:split])

    @property
    def sync(self) -> SyncMode:
        """How gradients meet."""
        return SyncMode.parse(self.spec.sync)

    @property
    def training_constants(self) -> dict[str, int]:
        """What a checkpoint must agree on to be resumed."""
        return {
            "batch_size": self.plan.batch_size,
            "micro_batches": self.plan.micro_batches,
            "samples": self.plan.samples,
            "seed": self.spec.seed,
        }

    def initial_parameters(self) -> NDArray[np.float32]:
        """float32 (parameters,): version 0.

        Raises:
            InputError: the saved model to begin with cannot be read here, or is of another network.
        """
        if self.spec.weights:
            return compute.load_parameters(self.spec.weights, self.spec.model, self.input_specs)
        return compute.initial_parameters(self.spec.model, self.input_specs, self.spec.seed)

    def epoch_digest(self) -> int:
        """What the digest of an epoch is that counts every sample once."""
        return index_hashes(np.arange(self.plan.samples, dtype=np.int64))


def load(message: control.Job) -> LoadedJob:
    """Unpacks the job. Only ever called on what came over the authenticated control channel.

    Raises:
        InputError: its data set cannot be used on this host.
        Exception: whatever the user's code raises when it is unpacked.
    """
    for name, text in message.sources.items():  # so that a traceback shows the user's lines on this host, too
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    spec = cloudpickle.loads(message.spec)
    if not isinstance(spec, TrainingSpec):
        raise InputError(f"the driver sent a {type(spec).__name__} for a TrainingSpec: versions of mesograd differ")
    plan = StepPlan(len(spec.dataset), spec.step_samples, spec.micro_batches * spec.accumulate)
    return LoadedJob(message, spec, plan)


def failure(error: BaseException, sources: Collection[str], task_id: str) -> control.Failure:
    """Words for the driver about an exception: the user's fault if a line of the user's files is in its traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    users = [position for position, frame in enumerate(frames) if frame.filename in sources]
    if isinstance(error, InputError) and not users:
        return control.Failure(kind=control.Failure.INPUT, summary=str(error), task_id=task_id)
    kind = control.Failure.USER if users else control.Failure.INTERNAL
    shown = frames[users[0] :] if users else frames
    detail = "".join(["Traceback (most recent call last):\n", *traceback.format_list(shown)])
    last = traceback.format_exception_only(error)
    return control.Failure(kind=kind, summary=last[-1].strip(), detail=detail + "".join(last), task_id=task_id)
