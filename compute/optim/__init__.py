"""Optimizers and metrics."""

from compute import metrics
from compute.metrics import *  # noqa: F403  (their __all__ is part of ours, below)
from compute.optim.optimizer import Optimizer
from compute.optim.sgd import SGD

__all__ = ["SGD", "Optimizer"]
__all__ += metrics.__all__
