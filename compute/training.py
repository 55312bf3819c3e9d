"""What is to be trained, and the state that triggers see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compute.data.dataset import Dataset
from compute.errors import InputError
from compute.graph import build_graph
from compute.metrics import Metric
from compute.nn.criterion import ClassCriterion, Criterion
from compute.nn.module import Module
from compute.optim.optimizer import Optimizer
from compute.program import check_engine
from compute.spec import TensorSpec
from compute.trigger import Trigger


@dataclass(frozen=True)
class TrainingState:
    """Where training stands after a step.

    Attributes:
        step: the last finished step, from 1; 0 before the first.
        epoch: the epoch which that step belonged to, from 1.
        epoch_finished: whether that step was its epoch's last.
        loss: mean loss of that step's samples.
        metrics: results of the last validation, by metric name.
    """

    step: int
    epoch: int
    epoch_finished: bool
    loss: float
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Validation:
    """When to validate, on what, with which metrics; `batch_size` samples at a time."""

    trigger: Trigger
    dataset: Dataset
    metrics: Sequence[Metric]
    batch_size: int = 256


@dataclass
class TrainingSpec:
    """All that defines a training; see `check` for what must hold.

    Attributes:
        batch_size: samples per step; the last step of an epoch may have fewer.
        micro_batches: parts of a step, a power of two; they fix the order of additions, so changing it changes bits.
        seed: of initial parameters, orders and random layers; 0 <= seed < 2**63.
        checkpoint_when: None for no checkpoints.
    """

    model: Module
    criterion: Criterion
    dataset: Dataset
    optimizer: Optimizer
    batch_size: int
    end_when: Trigger
    micro_batches: int = 8
    seed: int = 1
    engine: str = "onednn"
    validation: Validation | None = None
    checkpoint_when: Trigger | None = None

    def check(self) -> None:
        """Validates everything once, at the edge: types, ranges, data files, and that all shapes agree.

        Raises:
            InputError: one line with the remedy.
        """
        _is("model", self.model, Module, "an nn.Module such as nn.Sequential")
        _is("criterion", self.criterion, Criterion, "an nn.Criterion such as nn.NLLLoss()")
        _is("dataset", self.dataset, Dataset, "a data set such as data.mnist(folder)")
        _is("optimizer", self.optimizer, Optimizer, "an optimizer such as optim.SGD(learning_rate=0.1)")
        _is("end_when", self.end_when, Trigger, "a trigger such as trigger.max_epoch(3)")
        if self.checkpoint_when is not None:
            _is("checkpoint_when", self.checkpoint_when, Trigger, "a trigger such as trigger.every_epoch()")
        _whole("batch_size", self.batch_size, 1)
        _whole("micro_batches", self.micro_batches, 1)
        if self.micro_batches & (self.micro_batches - 1):
            raise InputError(f"micro_batches must be a power of two (1, 2, 4, 8 ...), got {self.micro_batches}")
        _whole("seed", self.seed, 0)
        if self.seed >= 2**63:
            raise InputError(f"seed must be less than 2**63, got {self.seed}")
        check_engine(self.engine)
        if self.validation is not None:
            _check_validation(self.validation)
        self.dataset.check()
        self._check_shapes(self.dataset, "dataset")
        if self.validation is not None:
            self.validation.dataset.check()
            self._check_shapes(self.validation.dataset, "validation dataset", self.validation.metrics)

    def _check_shapes(self, dataset: Dataset, what: str, metrics: Sequence[Metric] = ()) -> None:
        try:
            graph = build_graph(self.model, dataset.sample_shape)
        except InputError as error:
            raise InputError(f"model and {what} (samples of {dataset.sample_shape}) do not fit: {error}") from None
        outputs, targets = (TensorSpec(graph.output_shape),), (TensorSpec((), "int64"),)
        self.criterion.check(outputs, targets)
        for metric in metrics:
            metric.check(outputs, targets)
        classes = dataset.classes
        if classes is not None and isinstance(self.criterion, ClassCriterion) and graph.output_shape[-1] < classes:
            raise InputError(
                f"the model has {graph.output_shape[-1]} outputs, but labels of the {what} go to {classes - 1}; "
                f"give the last layer {classes} outputs"
            )


def _check_validation(validation: Validation) -> None:
    _is("validation", validation, Validation, "a compute.Validation")
    _is("validation trigger", validation.trigger, Trigger, "a trigger such as trigger.every_epoch()")
    _is("validation dataset", validation.dataset, Dataset, "a data set such as data.mnist(folder, train=False)")
    if not validation.metrics:
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
