"""The networks that are compared: for each, Mesograd's and PyTorch's, with the same layers and sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compute import TensorSpec, models, nn

VOCABULARY = 10_000


@dataclass(frozen=True)
class Network:
    """One comparison.

    Attributes:
        inputs: of one sample.
        target_shape: of one sample's labels, () for one label.
        classes: labels are in 0..classes-1.
        ours: the model, whose criterion is nn.NLLLoss for log-probabilities and nn.CrossEntropyLoss for scores.
        theirs: name of the function in benchmarks.compute.torch_networks that gives PyTorch's.
        images: whether PyTorch's channels_last applies.
    """

    inputs: TensorSpec
    target_shape: tuple[int, ...]
    classes: int
    ours: Callable[[], nn.Module]
    theirs: str
    scores: bool = False
    images: bool = False

    def batch(self, size: int) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
        """A fixed random batch."""
        rng = np.random.default_rng(1)
        shape = (size, *self.inputs.shape)
        x: NDArray[np.generic]
        if self.inputs.dtype == "int64":
            x = rng.integers(0, VOCABULARY, shape)
        else:
            x = rng.standard_normal(shape, dtype=np.float32)
        return x, rng.integers(0, self.classes, (size, *self.target_shape))


NETWORKS = {
    "vgg_cifar10": Network(
        TensorSpec((3, 32, 32)), (), 10, lambda: models.vgg_cifar10(dropout=False), "vgg_cifar10", images=True
    ),
    "resnet50": Network(TensorSpec((3, 224, 224)), (), 1000, models.resnet50, "resnet50", images=True),
    "resnet20": Network(TensorSpec((3, 32, 32)), (), 10, models.resnet20, "resnet20", images=True),
    "inception_v1": Network(
        TensorSpec((3, 224, 224)), (), 1000, lambda: models.inception_v1(dropout=False), "inception_v1", images=True
    ),
    "lenet5": Network(TensorSpec((1, 28, 28)), (), 10, models.lenet5, "lenet5", images=True),
    "lstm_lm": Network(
        TensorSpec((35,), "int64"), (35,), VOCABULARY,
        lambda: models.lstm_language_model(VOCABULARY, 400, 2, dropout=0.0), "lstm_lm", scores=True,
    ),
    "transformer_lm": Network(
        TensorSpec((64,), "int64"), (64,), VOCABULARY,
        lambda: models.transformer_language_model(
            VOCABULARY, 256, 4, 4, 1024, dropout=0.0, max_length=64, tied=False
        ),
        "transformer_lm", scores=True,
    ),
}  # fmt: skip
