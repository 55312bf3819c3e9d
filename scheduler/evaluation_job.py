"""`EvaluationJob`: predictions and metrics of a trained network, computed by the same executors that train."""

from __future__ import annotations

import os
from collections.abc import Sequence

from compute import InputError, TrainingSpec, Validation, optim, trigger
from compute.data.dataset import Dataset
from compute.metrics import Metric
from compute.nn.criterion import NLLLoss
from compute.nn.module import Module
from scheduler.job import Job, absolute_url


class EvaluationJob(Job):
    """Runs a network over a data set; `run` does it on the cluster that `mesograd run` names.

    Args:
        model: the network.
        weights: its saved parameters (compute.save_model), a path or fsspec URL that all tasks reach.
        dataset: what it is run over.
        metrics: what is computed of its outputs; the results are in JobResult.metrics.
        predictions: directory or fsspec URL, reached by all tasks, where the outputs are written;
            compute.read_predictions reads them.
        batch_size: samples computed at a time.
        engine, precision: as TrainingJob.
    """

    def __init__(
        self,
        model: Module,
        weights: str | os.PathLike[str],
        dataset: Dataset,
        metrics: Sequence[Metric] = (),
        predictions: str | os.PathLike[str] = "",
        batch_size: int = 256,
        engine: str = "onednn",
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        if not metrics and not predictions:
            raise InputError("EvaluationJob needs metrics to compute or a place for predictions")
        place = absolute_url(predictions) if predictions else ""
        self._spec = TrainingSpec(
            model=model,
            criterion=NLLLoss(),  # nothing is trained
            dataset=dataset,
            optimizer=optim.SGD(0.0),
            batch_size=batch_size,
            end_when=trigger.max_iteration(1),
            engine=engine,
            precision=precision,
            weights=absolute_url(weights),
            validation=Validation(trigger.every_epoch(), dataset, metrics, batch_size, place),
            inference=True,
        )
