"""What is to be trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from compute.compression import Plain, Rounding
from compute.compression import parse as parse_compression
from compute.data.dataset import Dataset
from compute.errors import InputError
from compute.graph import build_graph
from compute.layout import parameter_layout
from compute.metrics import Metric
from compute.model_file import load_parameters
from compute.nn.criterion import ClassCriterion, Criterion
from compute.nn.module import Module
from compute.optim.clipping import Clip, ClipNorm
from compute.optim.groups import Optimizers, by_prefix
from compute.optim.lbfgs import LBFGS
from compute.optim.learning_rates import LearningRates
from compute.optim.optimizer import ElementwiseOptimizer
from compute.optim.update import ParameterUpdate
from compute.program import check_engine
from compute.retention import Retention
from compute.sync_mode import SyncMode
from compute.trigger import Trigger

PARAMETER_COMPRESSIONS = ("none", "bf16")


@dataclass
class Validation:
    """When to validate, on what, with which metrics; `batch_size` samples at a time.

    Attributes:
        predictions: where the network's outputs are written (compute.predictions), a directory or fsspec URL that all
            workers reach; empty: nowhere.
    """

    trigger: Trigger
    dataset: Dataset
    metrics: Sequence[Metric]
    batch_size: int = 256
    predictions: str = ""


@dataclass
class TrainingSpec:
    """All that defines a training; see `check` for what must hold.

    Attributes:
        optimizer: one, or one per layer or part of the model: a mapping from name prefixes such as "features.conv_0" to
            optimizers, "" for the rest.
        clip: optim.ClipValue or optim.ClipNorm; None for no gradient clipping.
        batch_size: samples per step; the last step of an epoch may have fewer.
        micro_batches: parts of a step, a power of two; they fix the order of additions, so changing it changes bits.
        seed: of initial parameters, orders and random layers; 0 <= seed < 2**63.
        checkpoint_when: None for no checkpoints.
        retention: which checkpoints are kept.
        precision: "fp32" or "bf16" (compute.compile).
        sync: "sync", "ssp:S" or "async": compute.sync_mode.
        accumulate: batches whose gradients are added up before they are applied: `batch_size * accumulate` samples in
            `micro_batches * accumulate` micro-batches are a step, which gives the same bits as asking for that.
        compression: of the gradients that workers send: compute.compression.
        parameter_compression: "none" or "bf16": of the parameters that workers compute with. What the servers hold,
            update and save stays float32.
        weights: saved model (compute.save_model) to begin with, a path or fsspec URL that all tasks reach; empty: the
            initializers' values.
        inference: no step is trained; the validation is run once.
    """

    model: Module
    criterion: Criterion
    dataset: Dataset
    optimizer: Optimizers
    batch_size: int
    end_when: Trigger
    micro_batches: int = 8
    seed: int = 1
    engine: str = "onednn"
    validation: Validation | None = None
    checkpoint_when: Trigger | None = None
    precision: str = "fp32"
    weights: str = ""
    inference: bool = False
    clip: Clip | None = None
    retention: Retention = field(default_factory=Retention)
    sync: str = "sync"
    accumulate: int = 1
    compression: str = "none"
    parameter_compression: str = "none"

    @property
    def step_samples(self) -> int:
        """Samples of a full step: of one update of the weights."""
        return self.batch_size * self.accumulate

    @property
    def caveat(self) -> str:
        """Why another run may end with other weights; empty where it ends with the same bits, however many workers."""
        if not SyncMode.parse(self.sync).synchronous:
            return f"--sync {self.sync} applies gradients in the order in which they arrive"
        if not isinstance(parse_compression(self.compression), Plain | Rounding):
            return f"--compression {self.compression} depends on which worker computed what"
        return ""

    def check(self) -> None:
        """Validates everything once, at the edge: types, ranges, data files, and that all shapes agree.

        Raises:
            InputError: one line with the remedy.
        """
        _is("model", self.model, Module, "an nn.Module such as nn.Sequential")
        _is("criterion", self.criterion, Criterion, "an nn.Criterion such as nn.NLLLoss()")
        _is("dataset", self.dataset, Dataset, "a data set such as data.mnist(folder)")
        optimizers = by_prefix(self.optimizer)
        _is("end_when", self.end_when, Trigger, "a trigger such as trigger.max_epoch(3)")
        if self.checkpoint_when is not None:
            _is("checkpoint_when", self.checkpoint_when, Trigger, "a trigger such as trigger.every_epoch()")
        self.retention.check()
        _whole("batch_size", self.batch_size, 1)
        _whole("micro_batches", self.micro_batches, 1)
        if self.micro_batches & (self.micro_batches - 1):
            raise InputError(f"micro_batches must be a power of two (1, 2, 4, 8 ...), got {self.micro_batches}")
        _whole("seed", self.seed, 0)
        if self.seed >= 2**63:
            raise InputError(f"seed must be less than 2**63, got {self.seed}")
        _whole("accumulate", self.accumulate, 1)
        parse_compression(self.compression)
        if self.parameter_compression not in PARAMETER_COMPRESSIONS:
            raise InputError(f'parameter_compression must be "none" or "bf16", got {self.parameter_compression!r}')
        if not SyncMode.parse(self.sync).synchronous:
            self._check_asynchronous()
        check_engine(self.engine, self.precision)
        if self.validation is not None:
            _check_validation(self.validation)
        elif self.inference:
            raise InputError("a job without training needs a validation: a data set to run over")
        metrics = [metric.name for metric in self.validation.metrics] if self.validation is not None else []
        for optimizer in optimizers.values():
            optimizer.check(metrics)
        self.end_when.check(metrics)
        if self.checkpoint_when is not None:
            self.checkpoint_when.check(metrics)
        if self.validation is not None:
            self.validation.trigger.check(metrics)
        self.dataset.check()
        self._check_shapes(self.dataset, "dataset")
        ParameterUpdate(parameter_layout(self.model, self.dataset.input_specs), self.optimizer, self.clip, 0, 0)
        if self.validation is not None:
            self.validation.dataset.check()
            self._check_shapes(self.validation.dataset, "validation dataset", self.validation.metrics)
        if self.weights:
            load_parameters(self.weights, self.model, self.dataset.input_specs)

    def _check_asynchronous(self) -> None:
        """Refuses what needs a gradient that all servers hold at one time, or a step that is everybody's."""
        remedy = f'which --sync {self.sync} does not have: use --sync sync'
        if isinstance(self.clip, ClipNorm):
            raise InputError(
                f"ClipNorm needs the norm of one gradient over all servers, {remedy}, or optim.ClipValue"
            )
        for optimizer in by_prefix(self.optimizer).values():
            layerwise = isinstance(optimizer, ElementwiseOptimizer) and optimizer.layerwise
            if layerwise or isinstance(optimizer, LBFGS):
                needs = f"{optimizer.kind} needs sums of one gradient over all servers"
                raise InputError(f"{needs}, {remedy}, or optim.SGD")
        if LearningRates(self.optimizer).feeds_back:
            raise InputError(f"a schedule that looks at losses or metrics needs steps in order, {remedy}")

    def _check_shapes(self, dataset: Dataset, what: str, metrics: Sequence[Metric] = ()) -> None:
        try:
            graph = build_graph(self.model, dataset.input_specs)
        except InputError as error:
            samples = " and ".join(str(spec) for spec in dataset.input_specs)
            raise InputError(f"model and {what} (samples of {samples}) do not fit: {error}") from None
        outputs, targets = graph.output_specs, dataset.target_specs
        if not self.inference:
            self.criterion.check(outputs, targets)
        for metric in metrics:
            metric.check(outputs, targets)
        classes = dataset.classes
        if classes is None or self.inference or not isinstance(self.criterion, ClassCriterion):
            return
        if outputs[0].shape[-1] < classes:
            raise InputError(
                f"the model has {outputs[0].shape[-1]} outputs, but labels of the {what} go to {classes - 1}; "
                f"give the last layer {classes} outputs"
            )


def _check_validation(validation: Validation) -> None:
    _is("validation", validation, Validation, "a compute.Validation")
    _is("validation trigger", validation.trigger, Trigger, "a trigger such as trigger.every_epoch()")
    _is("validation dataset", validation.dataset, Dataset, "a data set such as data.mnist(folder, train=False)")
    if not validation.metrics and not validation.predictions:
        raise InputError("validation needs at least one metric such as optim.Top1Accuracy()")
    for metric in validation.metrics:
        _is("validation metric", metric, Metric, "a metric such as optim.Top1Accuracy()")
    names = [metric.name for metric in validation.metrics]
    if len(set(names)) != len(names):
        raise InputError(f"two validation metrics have the same name: {', '.join(names)}")
    _whole("validation batch_size", validation.batch_size, 1)


def _is(name: str, value: object, wanted: type, example: str) -> None:
    if not isinstance(value, wanted):
        raise InputError(f"{name} must be {example}, got {value!r}")


def _whole(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")
