"""Inference: predictions and metrics of a trained network, from any thread."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.data.dataset import Dataset
from compute.errors import InputError
from compute.metrics import Metric
from compute.model_file import SavedModel
from compute.nn.module import Module
from compute.program import Program, compile
from compute.spec import Arrays, SpecsLike, as_arrays


class Predictor:
    """A network ready to predict; thread-safe, as BigDL's PredictionService.

    Args:
        module, inputs, parameters: the network, what it takes, and its flat parameter vector.
        engine, threads, precision: as compute.compile.
        replicas: predictions that may run at the same time; all share the one copy of `parameters`.

    Raises:
        InputError: as compute.compile, or the parameters' size differs.
    """

    def __init__(
        self,
        module: Module,
        inputs: SpecsLike,
        parameters: NDArray[np.float32],
        engine: str = "onednn",
        threads: int = 1,
        precision: str = "fp32",
        replicas: int = 1,
    ) -> None:
        if replicas < 1:
            raise InputError(f"replicas must be at least 1, got {replicas}")
        first = compile(module, None, inputs, engine, threads, precision)
        if parameters.shape != first.parameters.shape:
            raise InputError(
                f"the model has {first.parameters.size} parameters, got an array of shape {parameters.shape}"
            )
        first.parameters[:] = parameters
        first.parameters_changed()
        self._idle: queue.SimpleQueue[Program] = queue.SimpleQueue()
        self._idle.put(first)
        for _ in range(replicas - 1):
            self._idle.put(first.replica())

    @classmethod
    def of(cls, saved: SavedModel, **options: Any) -> Predictor:
        """A predictor of a saved model; options as those of the class."""
        return cls(saved.module, saved.inputs, saved.parameters, **options)

    def predict(self, x: NDArray[Any] | Arrays | Dataset, batch_size: int = 128) -> Any:
        """The network's outputs: an array (n, *shape), or a tuple of such where it has several outputs.

        Args:
            x: samples (n, *shape), a tuple of such for several inputs, or a data set.
            batch_size: samples computed at a time.

        Raises:
            InputError: the samples' shape or type is not what the network takes.
        """
        parts = [outputs for outputs, _ in self._batches(x, batch_size)]
        joined = tuple(np.concatenate(column) for column in zip(*parts, strict=True))
        return joined[0] if len(joined) == 1 else joined

    def predict_classes(self, x: NDArray[Any] | Arrays | Dataset, batch_size: int = 128) -> NDArray[np.int64]:
        """The class of the largest output, int64 (n, ...), over the last dimension of the (first) output."""
        parts = [outputs[0].argmax(axis=-1) for outputs, _ in self._batches(x, batch_size)]
        return np.concatenate(parts).astype(np.int64, copy=False)

    def evaluate(self, dataset: Dataset, metrics: Sequence[Metric], batch_size: int = 128) -> dict[str, float]:
        """Results of the metrics over a data set, by their names."""
        sums: list[Any] = [0.0] * len(metrics)
        for outputs, targets in self._batches(dataset, batch_size):
            for place, metric in enumerate(metrics):
                sums[place] = sums[place] + metric.sums(outputs, targets)
        return {metric.name: metric.result(total) for metric, total in zip(metrics, sums, strict=True)}

    @contextmanager
    def _program(self) -> Iterator[Program]:
        program = self._idle.get()
        try:
            yield program
        finally:
            self._idle.put(program)

    def _batches(self, x: NDArray[Any] | Arrays | Dataset, batch_size: int) -> Iterator[tuple[Arrays, Arrays]]:
        """Outputs, copied, and targets of one batch after another."""
        count = len(x) if isinstance(x, Dataset) else len(as_arrays(x)[0])
        if count == 0:
            raise InputError("there are no samples to predict")
        for first in range(0, count, batch_size):
            last = min(first + batch_size, count)
            if isinstance(x, Dataset):
                batch, target = x.batch(np.arange(first, last, dtype=np.int64), (0, 0, first))
                inputs, targets = as_arrays(batch), as_arrays(target)
            else:
                inputs, targets = tuple(array[first:last] for array in as_arrays(x)), ()
            with self._program() as program:
                yield tuple(np.array(output) for output in as_arrays(program.forward(inputs))), targets
